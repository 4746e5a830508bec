"""What is decided where certificates are obtained beside the workers, from issuers that fail, wait and hurry."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.conditions import Condition, ConditionType, Reason, Status
from api.service import Certificate, Service
from reconcilers.base import Action, Plan
from reconcilers.certs.actions import Issue, Note, Order, Postpone, Reschedule
from reconcilers.certs.model import PROVIDED, Attempt, Observed, Pair, Policy, Site, due, retry_at
from reconcilers.certs.plan import plan
from tests.unit.reconcilers.certs.test_plan import (
    GOOD,
    HOSTNAMES,
    LIFE,
    NOTHING,
    NOW,
    SITE,
    carried_out,
    record,
    recorded_as,
    service,
    situations,
)

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ACME = Policy(LIFE, issuer="ACME", at_hand=False)
NEARLY_OVER = replace(GOOD, not_before=NOW - 89 * DAY, not_after=NOW + 1 * DAY)
DUE = replace(GOOD, not_before=NOW - 61 * DAY, not_after=NOW + 29 * DAY)
OVER = replace(GOOD, not_before=NOW - 91 * DAY, not_after=NOW - 1 * DAY)
ARRIVED = Attempt(running=False)
FAILED = Attempt(running=False, error="ACME: too many")


def noted(pair: Pair, **changes: object) -> Certificate:
    renewed = due(pair.not_before, pair.not_after)
    dates = {"not_before": pair.not_before, "not_after": pair.not_after, "renew_at": renewed}
    return record(**dates | changes)


def decide(
    pair: Pair,
    held: Certificate | None = None,
    attempt: Attempt | None = None,
    policy: Policy = ACME,
    **observed: object,
) -> Plan:
    known = service(*[held] if held is not None else [])
    attempts = {SITE.hostname: attempt} if attempt else {}
    world = replace(Observed({SITE.cert_path: pair}, {}, NOW, attempts), **observed)  # type: ignore[arg-type]
    return plan(known, [SITE], world, policy)


def test_a_missing_certificate_is_ordered_and_awaited() -> None:
    planned = decide(NOTHING)
    assert planned.actions == (Order(SITE, "there is none", urgent=True),)
    assert (planned.outcome.status, planned.outcome.reason) == (Status.FALSE, Reason.PROGRESSING)
    assert planned.outcome.message == "a certificate for shop.test is being obtained from ACME"
    assert decide(NOTHING, attempt=Attempt()) == Plan((), planned.outcome)


def test_one_that_arrived_is_laid_down() -> None:
    planned = decide(NOTHING, attempt=ARRIVED)
    assert planned.actions == (Issue(SITE, "there is none"),)
    assert planned.outcome.status is Status.TRUE


def test_the_old_one_serves_while_another_is_obtained() -> None:
    planned = decide(DUE, noted(DUE))
    assert planned.actions == (Order(SITE, "it is due for renewal", urgent=False),)
    assert planned.outcome.status is Status.TRUE
    assert planned.outcome.message == (
        "shop.test: a new certificate is being obtained from ACME (it is due for renewal)"
    )


def test_a_renewal_that_fails_leaves_the_condition_true_and_says_so() -> None:
    planned = decide(DUE, noted(DUE), FAILED)
    assert planned.actions == (Postpone(SITE, "ACME: too many", 1, NOW + HOUR),)
    assert planned.actions[0].describe() == (
        "postpone a certificate for shop.test until 2026-06-01 01:00Z (ACME: too many)"
    )
    assert planned.outcome.status is Status.TRUE
    assert planned.outcome.message == (
        "shop.test: the certificate serves until 2026-06-30 00:00Z, but no other can be had: ACME: too many; "
        "tried again at 2026-06-01 01:00Z"
    )
    held = noted(DUE, error="ACME: too many", failures=1, retry_at=NOW + HOUR)
    assert decide(DUE, held) == Plan((), planned.outcome)
    assert planned.outcome.requeue_after == HOUR


@pytest.mark.parametrize("pair", [NOTHING, OVER])
def test_without_one_that_serves_the_condition_is_false_and_needs_a_person(pair: Pair) -> None:
    held = noted(OVER, error="ACME: too many", failures=1, retry_at=NOW + HOUR)
    planned = decide(pair, held)
    assert planned.actions == ()
    assert (planned.outcome.status, planned.outcome.reason) == (Status.FALSE, Reason.CERTIFICATE_FAILED)
    assert planned.outcome.message == "no certificate for shop.test: ACME: too many; tried again at 2026-06-01 01:00Z"


def test_it_is_looked_at_when_the_old_one_ends() -> None:
    last_hour = replace(DUE, not_after=NOW + HOUR / 2)
    held = noted(last_hour, error="ACME: too many", failures=9, retry_at=NOW + DAY)
    assert decide(last_hour, held).outcome.requeue_after == HOUR / 2


@pytest.mark.parametrize(
    ("failures", "wait"), [(0, 1), (1, 2), (2, 4), (3, 8), (4, 16), (5, 24), (6, 24), (1_000_000, 24)]
)
def test_pauses_double_from_an_hour_to_a_day(failures: int, wait: int) -> None:
    held = noted(DUE, failures=failures)
    assert retry_at(held, FAILED, ACME, NOW) == (failures + 1, NOW + wait * HOUR)


def test_a_longer_pause_that_the_issuer_wishes_is_kept_and_a_shorter_one_is_not() -> None:
    assert retry_at(None, replace(FAILED, retry_after=3 * DAY), ACME, NOW) == (1, NOW + 3 * DAY)
    assert retry_at(None, replace(FAILED, retry_after=timedelta(seconds=1)), ACME, NOW) == (1, NOW + HOUR)


def test_what_was_not_even_tried_is_no_failure() -> None:
    limited = replace(FAILED, counts=False, retry_after=timedelta(minutes=7))
    assert retry_at(noted(DUE, failures=3), limited, ACME, NOW) == (3, NOW + timedelta(minutes=7))


def test_a_failure_of_an_issuer_that_is_not_asked_any_more_holds_nothing_back() -> None:
    held = noted(DUE, error="Metacrypt: away", failures=5, retry_at=NOW + DAY)
    assert decide(DUE, held).actions == (Order(SITE, "it is due for renewal", urgent=False),)


def test_a_clock_that_was_ahead_once_holds_nothing_back_for_ever() -> None:
    held = noted(DUE, error="ACME: too many", failures=1, retry_at=NOW + 400 * DAY)
    assert isinstance(decide(DUE, held).actions[0], Order)


def test_a_changed_definition_is_tried_at_once_where_nothing_serves() -> None:
    for pair, tried in ((NOTHING, True), (DUE, False)):
        held = noted(DUE, error="ACME: too many", failures=4, retry_at=NOW + HOUR)
        looked_at = Condition(
            type=ConditionType.CERTIFICATES_READY,
            status=Status.FALSE,
            reason=Reason.CERTIFICATE_FAILED,
            observed_generation=1,
            last_transition=NOW,
        )
        changed = service(held, generation=2, conditions=(looked_at,))
        assert bool(plan(changed, [SITE], Observed({SITE.cert_path: pair}, {}, NOW), ACME).actions) is tried
        seen = looked_at.model_copy(update={"observed_generation": 2})
        again = service(held, generation=2, conditions=(seen,))
        assert plan(again, [SITE], Observed({SITE.cert_path: pair}, {}, NOW), ACME).actions == ()


def test_only_what_somebody_damaged_is_drift() -> None:
    for pair, mends in ((DUE, False), (OVER, False), (NOTHING, True), (replace(DUE, problem="it is broken"), True)):
        ordered = decide(pair, noted(pair)).actions[0]
        at_hand = decide(pair, noted(pair), policy=Policy(LIFE)).actions[0]
        assert [action.follows for action in (ordered, at_hand)] == [not mends, not mends]
        assert decide(pair, noted(pair), ARRIVED).actions[0].follows
    assert decide(DUE, noted(DUE), FAILED).actions[0].follows


def test_the_second_issuer_is_for_when_nothing_serves_for_long() -> None:
    assert decide(NEARLY_OVER, noted(NEARLY_OVER)).actions == (Order(SITE, "it is due for renewal", urgent=True),)


def test_a_pause_ends_when_the_second_issuer_may_be_asked() -> None:
    both = replace(ACME, stand_in=True)
    soon = replace(DUE, not_before=NOW - 80 * DAY, not_after=NOW + 10 * DAY)
    planned = decide(soon, noted(soon, failures=7), FAILED, both)
    assert planned.actions == (Postpone(SITE, "ACME: too many", 8, NOW + 1 * DAY),)
    sooner = replace(soon, not_before=NOW - 80.5 * DAY, not_after=NOW + 9.5 * DAY)
    planned = decide(sooner, noted(sooner, failures=7), FAILED, both)
    assert planned.actions == (Postpone(SITE, "ACME: too many", 8, NOW + 0.5 * DAY),)


def test_one_that_only_stands_in_is_replaced_once_the_pause_is_over() -> None:
    pair = replace(GOOD, stands_in="spare")
    held = noted(pair, issuer="spare", error="ACME: too many", failures=1, retry_at=NOW + HOUR)
    assert decide(pair, held).actions == ()
    assert decide(pair, held).outcome.status is Status.TRUE
    over = held.model_copy(update={"retry_at": NOW})
    assert decide(pair, over).actions == (Order(SITE, "spare only stands in", urgent=False),)


def test_one_that_a_death_left_unnoted_is_noted_before_it_is_replaced() -> None:
    planned = decide(DUE, record(fingerprint=""))
    assert planned.actions == (Note(SITE, "f1", provided=False),)
    assert planned.outcome.requeue_after == timedelta()


def test_an_issuer_s_wish_makes_a_renewal_earlier_and_never_later() -> None:
    earlier, later = NOW + 3 * DAY, NOW + 80 * DAY
    planned = decide(GOOD, noted(GOOD), suggested={"f1": earlier})
    assert planned.actions == (Reschedule(SITE, earlier),)
    assert planned.outcome.requeue_after == 3 * DAY
    assert decide(GOOD, noted(GOOD, renew_at=earlier)).outcome.requeue_after == 3 * DAY
    assert decide(GOOD, noted(GOOD), suggested={"f1": later}).actions == ()
    assert isinstance(decide(GOOD, noted(GOOD), suggested={"f1": NOW}).actions[0], Order)


@dataclass
class History:
    """One site, an issuer with a mind of its own, and the times at which it was asked."""

    policy: Policy
    answers: list[timedelta | None]
    """The lives of what it gives, in order; None: it fails."""
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    pair: Pair = NOTHING
    held: Certificate | None = None
    attempt: Attempt | None = None
    asked: list[tuple[datetime, timedelta | None]] = field(default_factory=list)

    def step(self) -> None:
        """One look and all that comes of it, up to the moment at which it wants to look again."""
        observed = Observed(
            {SITE.cert_path: self.pair}, {}, self.now, {SITE.hostname: self.attempt} if self.attempt else {}
        )
        planned = plan(service(*[self.held] if self.held else []), [SITE], observed, self.policy)
        for action in planned.actions:
            self.carry_out(action)
        if not self.attempt:
            assert planned.outcome.requeue_after is not None
            self.now += planned.outcome.requeue_after
        serves = self.pair.serves(observed.now) or any(isinstance(action, Issue) for action in planned.actions)
        assert (planned.outcome.status is Status.TRUE) == serves

    def carry_out(self, action: Action) -> None:
        match action:
            case Order():
                life = self.answers[len(self.asked) % len(self.answers)]
                self.asked.append((self.now, life))
                self.attempt = ARRIVED if life else FAILED
            case Issue():
                life = self.asked[-1][1] or LIFE
                fingerprint = f"f{len(self.asked)}"
                self.pair = replace(GOOD, fingerprint=fingerprint, not_before=self.now, not_after=self.now + life)
                soonest = max(due(self.now, self.now + life), self.now + self.policy.least_life)
                self.held, self.attempt = noted(self.pair, fingerprint=fingerprint, renew_at=soonest), None
            case Postpone():
                trouble = {"error": action.error, "failures": action.failures, "retry_at": action.retry_at}
                self.held, self.attempt = (self.held or noted(OVER, fingerprint="")).model_copy(update=trouble), None
            case _:
                raise AssertionError(action)


LIVES = [None, timedelta(seconds=1), timedelta(minutes=1), timedelta(minutes=10), DAY, LIFE]


@given(st.lists(st.sampled_from(LIVES), min_size=1, max_size=6))
def test_no_issuer_is_ever_asked_in_a_loop(answers: list[timedelta | None]) -> None:
    history = History(ACME, answers)
    for _ in range(60):
        history.step()
    for (earlier, life), (later, _) in zip(history.asked, history.asked[1:], strict=False):
        assert later - earlier >= (HOUR if life is None else max(ACME.least_life, life * 0.6))
    assert len(history.asked) >= 10


ATTEMPTS = st.sampled_from([None, Attempt(), ARRIVED, FAILED])


@given(situations(), st.fixed_dictionaries(dict.fromkeys(HOSTNAMES, ATTEMPTS)))
def test_planning_again_on_the_result_soon_gives_nothing_to_do(
    situation: tuple[Service, list[Site], Observed], attempts: dict[str, Attempt | None]
) -> None:
    held, wanted, observed = situation
    observed = replace(observed, attempts={name: attempt for name, attempt in attempts.items() if attempt})
    done: list[Action] = []
    for _ in range(4):
        actions = plan(held, wanted, observed, ACME).actions
        done += actions
        held, observed = brought_about(held, observed, actions)
    assert actions == ()
    for action in done:
        if isinstance(action, Order | Issue | Postpone):
            assert action.site.cert_path not in observed.holders
            # Nothing is asked twice on the way.
            assert sum(isinstance(other, Order) and other.site == action.site for other in done) <= 1


def brought_about(held: Service, observed: Observed, actions: tuple[Action, ...]) -> tuple[Service, Observed]:
    """Records, files and attempts once the actions worked."""
    attempts = dict(observed.attempts)
    held, observed = carried_out(held, observed, actions)
    records = {one.hostname: one for one in held.certificates}
    for action in actions:
        name = action.subject
        match action:
            case Order():
                attempts[name] = Attempt()
                if name not in records or records[name].issuer == PROVIDED:
                    records[name] = recorded_as(action.site, "ACME", "")
            case Issue():
                attempts.pop(name)
            case Postpone():
                trouble = {"error": action.error, "failures": action.failures, "retry_at": action.retry_at}
                known = records.get(name) or recorded_as(action.site, "ACME", "")
                records[name] = known.model_copy(update=trouble)
                attempts.pop(name)
            case Reschedule():
                records[name] = records[name].model_copy(update={"renew_at": action.renew_at})
    return held.model_copy(update={"certificates": tuple(records.values())}), replace(observed, attempts=attempts)
