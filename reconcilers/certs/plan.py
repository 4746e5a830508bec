"""Which certificate is ordered, issued, noted or removed: the whole decision, and nothing but the decision."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from api.conditions import ConditionType, Reason, Status
from api.resolve import ResolvedService, default_hostname
from api.service import Certificate, Finalizer, Service
from api.spec import RouteMode
from reconcilers.base import NOT_NEEDED, Action, Outcome, Plan
from reconcilers.certs.actions import Forget, Issue, Note, Order, Postpone, Remove, Reschedule, moment
from reconcilers.certs.model import (
    LONGEST_WAIT,
    PROVIDED,
    RENEWAL,
    Observed,
    Pair,
    Policy,
    Site,
    renewal_of,
    retry_at,
    urgent_from,
)

_GO_FIRST = frozenset({Finalizer.ROUTES, Finalizer.CONTAINERS})
_ROUTE_GOES = timedelta(seconds=1)
_CONFLICT_ENDS = timedelta(seconds=5)
_STILL_RUNNING = timedelta(seconds=30)
"""Only a safety net: the end of an attempt wakes its service."""


@dataclass(frozen=True, slots=True)
class _Decision:
    """What is done about one site, and what can then be said of it."""

    action: Action | None = None
    look_again: timedelta | None = None
    status: Status = Status.TRUE
    reason: Reason = Reason.CONVERGED
    message: str = ""


def sites(desired: ResolvedService, zone: str, cert_dir: str) -> tuple[Site, ...]:
    """Where mc-proxy's convention wants the certificates of a service, each hostname once."""
    hostnames = {route.hostname for route in desired.routes if route.mode is RouteMode.L7}
    default = default_hostname(desired.name, zone)
    return tuple(
        Site(hostname, f"{cert_dir}/{stem}.pem", f"{cert_dir}/{stem}.key")
        for hostname in sorted(hostnames)
        for stem in (desired.name if hostname == default else hostname,)
    )


def plan(service: Service, wanted: Sequence[Site], observed: Observed, policy: Policy) -> Plan:
    """What to do for a service that wants certificates at these sites."""
    decisions = [_decide(service, site, wanted, observed, policy) for site in wanted]
    removals, waits = _drop(service, wanted, observed)
    # A record that stands in the place of another one goes first: a site has one record.
    notes = [decision.action for decision in decisions if isinstance(decision.action, Note)]
    others = [decision.action for decision in decisions if decision.action and not isinstance(decision.action, Note)]
    look_again = [_ROUTE_GOES] if waits else []
    return Plan((*removals, *notes, *others), _outcome(decisions, look_again))


def plan_deletion(service: Service, observed: Observed) -> Plan:
    """What to do for a service on its way out, once nothing can use its certificates."""
    waiting = [finalizer for finalizer in service.finalizers if finalizer in _GO_FIRST]
    if waiting:
        return Plan((), Outcome(Status.FALSE, Reason.TERMINATING, f"waits until its {', '.join(waiting)} are gone"))
    return Plan(tuple(_removal(record, observed) for record in service.certificates), NOT_NEEDED)


def _outcome(decisions: Sequence[_Decision], look_again: list[timedelta]) -> Outcome:
    """The worst that any decision says, with all that is said of the same kind."""
    look_again = [*look_again, *(decision.look_again for decision in decisions if decision.look_again is not None)]
    after = min(look_again, default=None)
    for reason in (Reason.CONFLICT, Reason.CERTIFICATE_FAILED, Reason.PROGRESSING):
        found = [decision for decision in decisions if decision.reason is reason]
        if found:
            return Outcome(found[0].status, reason, "; ".join(decision.message for decision in found), after)
    message = "; ".join(decision.message for decision in decisions if decision.message)
    return Outcome(Status.TRUE, Reason.CONVERGED if decisions else Reason.NOT_NEEDED, message, after)


def _decide(service: Service, site: Site, wanted: Sequence[Site], observed: Observed, policy: Policy) -> _Decision:
    if holder := observed.holders.get(site.cert_path):
        return _conflict(f'{site.cert_path} is needed for {site.hostname}, and service "{holder}" holds it')
    first = next(other for other in wanted if other.cert_path == site.cert_path)
    if first is not site:
        return _conflict(f"{site.cert_path} is needed for both {first.hostname} and {site.hostname}")
    record = service.certificate(site.hostname)
    if record is not None and record.cert_path != site.cert_path:
        record = None
    if record is not None and _is_news(service) and not observed.pairs[site.cert_path].serves(observed.now):
        # Somebody may have mended what was wrong, and waits for it.
        record = record.model_copy(update={"retry_at": None})
    return _decide_by_pair(record, site, observed, policy)


def _is_news(service: Service) -> bool:
    """Whether nobody looked at this generation yet."""
    condition = service.condition(ConditionType.CERTIFICATES_READY)
    return condition is not None and condition.observed_generation < service.generation


def _decide_by_pair(record: Certificate | None, site: Site, observed: Observed, policy: Policy) -> _Decision:
    pair, now = observed.pairs[site.cert_path], observed.now
    if not pair.exists:
        return _obtain(record, site, "there is none", observed, policy)
    problem = pair.problem or _expiry(pair, now)
    managed = record is not None and record.issuer != PROVIDED
    if pair.ours:
        cause = problem or _renewal(record, pair, observed)
        if cause and not policy.at_hand and pair.serves(now) and not _is_noted(record, pair):
            # Others shall know what serves for as long as another one takes.
            return replace(_use(record, site, observed), look_again=timedelta())
        return _obtain(record, site, cause, observed, policy) if cause else _use(record, site, observed)
    if record is not None and managed and (problem or record.fingerprint == pair.fingerprint):
        return _obtain(record, site, problem or "it is from another CA", observed, policy)
    # A good pair of somebody else's is used, even in the place of ours: its key may exist nowhere else.
    if problem:
        return _conflict(
            f"{site.cert_path} is not ours and cannot serve {site.hostname}: {problem}; mend it or take it away"
        )
    return _use(record, site, observed)


def _conflict(message: str) -> _Decision:
    return _Decision(None, _CONFLICT_ENDS, Status.FALSE, Reason.CONFLICT, message)


def _use(record: Certificate | None, site: Site, observed: Observed) -> _Decision:
    """The pair that is there is good; the registry may not know of it yet."""
    pair = observed.pairs[site.cert_path]
    provided = not pair.ours
    until = pair.not_after if provided else renewal_of(pair, record, observed)
    action: Action | None = None
    if record is None or not _is_noted(record, pair):
        action = Note(site, pair.fingerprint, provided)
    elif not provided and until < record.renew_at:
        action = Reschedule(site, until)
    message = f"{site.hostname}: {PROVIDED}" if provided else ""
    return _Decision(action, max(until - observed.now, timedelta()), message=message)


def _is_noted(record: Certificate | None, pair: Pair) -> bool:
    return (
        record is not None and record.fingerprint == pair.fingerprint and (record.issuer == PROVIDED) == (not pair.ours)
    )


def _obtain(record: Certificate | None, site: Site, cause: str, observed: Observed, policy: Policy) -> _Decision:
    """Another certificate is needed: the next step to it."""
    attempt, pair, now = observed.attempts.get(site.hostname), observed.pairs[site.cert_path], observed.now
    damaged = not pair.exists or bool(pair.problem)
    if policy.at_hand or (attempt is not None and not attempt.running and not attempt.error):
        # What comes from outside may live shorter than it was asked to: that is seen once it lies there.
        look_again = policy.lifetime * RENEWAL if policy.at_hand else timedelta()
        return _Decision(Issue(site, cause, mends=damaged and policy.at_hand), look_again)
    if attempt is not None and attempt.running:
        return _under_way(None, site, cause, observed, policy)
    if attempt is not None:
        failures, again = retry_at(record, attempt, policy, now)
        if policy.stand_in and not _urgent(pair, now):
            # From then on the second issuer may be asked.
            again = min(again, urgent_from(pair))
        return _failing(Postpone(site, attempt.error, failures, again), site, attempt.error, again, observed)
    if record is not None and (held := _held(record, pair, now, policy)):
        return _failing(None, site, held[0], held[1], observed)
    order = Order(site, cause, _urgent(pair, now), mends=damaged)
    return _under_way(order, site, cause, observed, policy)


def _held(record: Certificate, pair: Pair, now: datetime, policy: Policy) -> tuple[str, datetime] | None:
    """Why no attempt may be made yet, and when one may."""
    # What was changed in the settings since is not held back by what failed before.
    wait = (record.retry_at or now) - now
    # A time that is farther off was written while the clock was wrong.
    possible = timedelta() < wait <= max(LONGEST_WAIT, policy.retry_most)
    if record.retry_at is not None and possible and record.error.startswith(policy.issuer):
        return record.error, record.retry_at
    same = record.fingerprint == pair.fingerprint and not pair.problem
    if same and pair.ours and pair.not_after <= now < record.renew_at:
        return f"{record.issuer} gave one that lived too short to be renewed in time", record.renew_at
    return None


def _urgent(pair: Pair, now: datetime) -> bool:
    return not pair.serves(now) or now >= urgent_from(pair)


def _under_way(action: Order | None, site: Site, cause: str, observed: Observed, policy: Policy) -> _Decision:
    origin = policy.issuer or "its issuer"
    if observed.pairs[site.cert_path].serves(observed.now):
        message = f"{site.hostname}: a new certificate is being obtained from {origin} ({cause})"
        return _Decision(action, _STILL_RUNNING, message=message)
    message = f"a certificate for {site.hostname} is being obtained from {origin}"
    return _Decision(action, _STILL_RUNNING, Status.FALSE, Reason.PROGRESSING, message)


def _failing(action: Postpone | None, site: Site, error: str, again: datetime, observed: Observed) -> _Decision:
    pair, now = observed.pairs[site.cert_path], observed.now
    wait = max(again - now, timedelta())
    if pair.serves(now):
        message = (
            f"{site.hostname}: the certificate serves until {moment(pair.not_after)}, but no other can be had: "
            f"{error}; tried again at {moment(again)}"
        )
        return _Decision(action, min(wait, pair.not_after - now), message=message)
    message = f"no certificate for {site.hostname}: {error}; tried again at {moment(again)}"
    return _Decision(action, wait, Status.FALSE, Reason.CERTIFICATE_FAILED, message)


def _expiry(pair: Pair, now: datetime) -> str:
    if now >= pair.not_after:
        return f"it expired on {pair.not_after:%Y-%m-%d}"
    return f"it is not valid before {pair.not_before:%Y-%m-%d %H:%M}" if now < pair.not_before else ""


def _renewal(record: Certificate | None, pair: Pair, observed: Observed) -> str:
    if pair.stands_in:
        return f"{pair.stands_in} only stands in"
    return "it is due for renewal" if observed.now >= renewal_of(pair, record, observed) else ""


def _drop(service: Service, wanted: Sequence[Site], observed: Observed) -> tuple[list[Action], bool]:
    """Removals of hostnames that are not wanted any more, and whether one waits for its route to go."""
    hostnames = {site.hostname for site in wanted}
    paths = {site.cert_path for site in wanted}
    # A proxy that still holds the route would fail to load the files that are gone.
    served = {claim.hostname for claim in service.claims if claim.mode is RouteMode.L7}
    actions: list[Action] = []
    waits = False
    for record in service.certificates:
        if record.hostname in hostnames:
            continue
        if record.cert_path in paths:
            actions.append(Forget(_site(record), "another hostname has its place"))
        elif record.hostname in served:
            waits = True
        else:
            actions.append(_removal(record, observed))
    return actions, waits


def _removal(record: Certificate, observed: Observed) -> Remove | Forget:
    pair = observed.pairs[record.cert_path]
    if record.issuer == PROVIDED:
        return Forget(_site(record), f"its files were {PROVIDED}")
    if not pair.exists:
        return Forget(_site(record), "its files are gone")
    if pair.ours or pair.fingerprint == record.fingerprint:
        return Remove(_site(record), pair.fingerprint)
    return Forget(_site(record), "its files are not ours any more")


def _site(record: Certificate) -> Site:
    return Site(record.hostname, record.cert_path, record.key_path)
