"""What is issued, noted, removed and left alone, by example and by property."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.conditions import Reason, Status
from api.resolve import Defaults, resolve
from api.service import Certificate, Finalizer, RouteClaim, Service
from api.spec import ComponentSpec, RouteMode, RouteSpec, ServiceSpec
from reconcilers.base import Action, Plan
from reconcilers.certs.actions import Forget, Issue, Note, Remove
from reconcilers.certs.model import PROVIDED, Observed, Pair, Policy, Site, due
from reconcilers.certs.plan import plan, plan_deletion, sites
from tests.unit.reconcilers.memory import newborn

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LIFE = timedelta(days=90)
POLICY = Policy(LIFE)
SITE = Site("shop.test", "/certs/shop.test.pem", "/certs/shop.test.key")
GOOD = Pair(True, True, "f1", ours=True, not_before=NOW - timedelta(days=1), not_after=NOW + timedelta(days=89))
FOREIGN = replace(GOOD, fingerprint="f9", ours=False)
NOTHING = Pair()


def spec(*hostnames: str, mode: RouteMode = RouteMode.L7) -> ServiceSpec:
    routes = tuple(RouteSpec(name=f"r{i}", hostname=name, port=443, mode=mode) for i, name in enumerate(hostnames))
    return ServiceSpec(name="shop", components=(ComponentSpec(name="web", image="i:1", routes=routes),))


def record(**changes: object) -> Certificate:
    held = Certificate(
        hostname="shop.test",
        issuer="CA",
        serial="1",
        fingerprint="f1",
        not_before=GOOD.not_before,
        not_after=GOOD.not_after,
        renew_at=NOW + timedelta(days=59),
        cert_path=SITE.cert_path,
        key_path=SITE.key_path,
    )
    return held.model_copy(update=changes)


def service(*records: Certificate, **changes: object) -> Service:
    return newborn(spec("shop.test"), certificates=records).model_copy(update=changes)


def decide(held: Service, pair: Pair = NOTHING, *, holders: dict[str, str] | None = None) -> Plan:
    return plan(held, [SITE], Observed({SITE.cert_path: pair}, holders or {}, NOW), POLICY)


def test_certificates_lie_where_the_proxy_s_convention_has_them() -> None:
    defaults = Defaults(zone="zone")
    found = sites(resolve(spec("shop.svc.zone", "docs.test"), defaults), "zone", "/certs")
    assert found == (
        Site("docs.test", "/certs/docs.test.pem", "/certs/docs.test.key"),
        Site("shop.svc.zone", "/certs/shop.pem", "/certs/shop.key"),
    )


def test_a_hostname_on_two_listeners_has_one_certificate() -> None:
    routes = tuple(RouteSpec(name=f"r{port}", hostname="a.test", port=port, mode=RouteMode.L7) for port in (443, 8443))
    two = ServiceSpec(name="shop", components=(ComponentSpec(name="web", image="i:1", routes=routes),))
    assert len(sites(resolve(two, Defaults()), "zone", "/certs")) == 1


def test_routes_that_pass_tls_through_need_no_certificate() -> None:
    only_l4 = newborn(spec("shop.test", mode=RouteMode.L4))
    assert sites(resolve(only_l4.spec, Defaults()), "zone", "/certs") == ()
    assert plan(only_l4, (), Observed({}, {}, NOW), POLICY).outcome.reason is Reason.NOT_NEEDED


@pytest.mark.parametrize(
    ("pair", "cause"),
    [
        (NOTHING, "there is none"),
        (replace(GOOD, problem="it does not match its key"), "it does not match its key"),
        (replace(GOOD, problem="it is for other names"), "it is for other names"),
        (replace(GOOD, problem="its chain is incomplete"), "its chain is incomplete"),
        (Pair(has_key=True, problem="its certificate file is missing"), "its certificate file is missing"),
        (replace(GOOD, not_after=NOW), "it expired on 2026-06-01"),
        (replace(GOOD, not_before=NOW + timedelta(hours=1)), "it is not valid before 2026-06-01 01:00"),
        (
            replace(GOOD, not_before=NOW - timedelta(days=60), not_after=NOW + timedelta(days=30)),
            "it is due for renewal",
        ),
        (replace(GOOD, ours=False), "it is from another CA"),
    ],
)
def test_a_certificate_of_ours_that_cannot_serve_is_issued_again(pair: Pair, cause: str) -> None:
    planned = decide(service(record(renew_at=due(pair.not_before, pair.not_after))), pair)
    assert planned.actions == (Issue(SITE, cause),)
    assert planned.actions[0].describe() == f"issue a certificate for shop.test ({cause})"
    assert planned.outcome.requeue_after == timedelta(days=60)


def test_a_good_certificate_is_kept_until_two_thirds_of_its_life() -> None:
    planned = decide(service(record()), GOOD)
    assert planned.actions == ()
    assert planned.outcome.status is Status.TRUE
    assert planned.outcome.requeue_after == timedelta(days=59)


def test_what_a_death_left_between_writing_and_noting_is_noted() -> None:
    assert decide(service(record(fingerprint="f0")), GOOD).actions == (Note(SITE, "f1", provided=False),)
    assert decide(service(), GOOD).actions == (Note(SITE, "f1", provided=False),)


def test_half_a_pair_that_a_death_left_is_issued_again() -> None:
    lone_key = Pair(has_key=True, problem="its certificate file is missing")
    assert decide(service(record(fingerprint="")), lone_key).actions == (Issue(SITE, lone_key.problem),)


def test_a_good_pair_of_the_operator_s_is_used_and_never_renewed() -> None:
    planned = decide(service(), FOREIGN)
    assert planned.actions == (Note(SITE, "f9", provided=True),)
    assert planned.outcome.message == f"shop.test: {PROVIDED}"
    noted = service(record(issuer=PROVIDED, fingerprint="f9"))
    nearly_over = replace(FOREIGN, not_after=NOW + timedelta(minutes=1))
    assert decide(noted, nearly_over).actions == ()
    assert decide(noted, nearly_over).outcome.requeue_after == timedelta(minutes=1)


def test_a_pair_that_the_operator_renewed_is_noted() -> None:
    noted = service(record(issuer=PROVIDED, fingerprint="f8"))
    assert decide(noted, FOREIGN).actions == (Note(SITE, "f9", provided=True),)


def test_a_good_pair_that_took_the_place_of_ours_is_used() -> None:
    assert decide(service(record()), FOREIGN).actions == (Note(SITE, "f9", provided=True),)


@pytest.mark.parametrize("held", [service(), service(record(issuer=PROVIDED, fingerprint="f9"))])
@pytest.mark.parametrize("problem", ["it does not match its key", ""])
def test_a_foreign_pair_that_cannot_serve_is_a_conflict_that_names_its_path(held: Service, problem: str) -> None:
    planned = decide(held, replace(FOREIGN, problem=problem, not_after=NOW if not problem else GOOD.not_after))
    assert planned.actions == ()
    assert planned.outcome.reason is Reason.CONFLICT
    assert SITE.cert_path in planned.outcome.message


def test_a_path_of_another_service_is_a_conflict_that_names_it() -> None:
    planned = decide(service(), GOOD, holders={SITE.cert_path: "market"})
    assert planned.actions == ()
    assert 'service "market"' in planned.outcome.message


def test_two_hostnames_cannot_share_a_path() -> None:
    other = replace(SITE, hostname="another.test")
    planned = plan(service(), [SITE, other], Observed({SITE.cert_path: NOTHING}, {}, NOW), POLICY)
    assert planned.actions == (Issue(SITE, "there is none"),)
    assert planned.outcome.reason is Reason.CONFLICT


def drop(held: Service, pair: Pair) -> Plan:
    return plan(held, (), Observed({SITE.cert_path: pair}, {}, NOW), POLICY)


@pytest.mark.parametrize(
    ("held", "pair", "expected"),
    [
        (record(), GOOD, Remove(SITE, "f1")),
        (record(fingerprint="f0"), GOOD, Remove(SITE, "f1")),
        (record(fingerprint="f9"), FOREIGN, Remove(SITE, "f9")),
        (record(fingerprint=""), Pair(has_key=True), Remove(SITE, "")),
        (record(), NOTHING, Forget(SITE, "its files are gone")),
        (record(), FOREIGN, Forget(SITE, "its files are not ours any more")),
        (record(issuer=PROVIDED, fingerprint="f9"), FOREIGN, Forget(SITE, f"its files were {PROVIDED}")),
    ],
)
def test_only_files_of_ours_that_are_as_we_left_them_are_removed(
    held: Certificate, pair: Pair, expected: Action
) -> None:
    assert drop(service(held), pair).actions == (expected,)


def test_a_certificate_stays_while_the_proxy_may_serve_it() -> None:
    claim = RouteClaim(listener=":443", hostname="shop.test", component="web", route="r0", mode=RouteMode.L7)
    planned = drop(service(record(), claims=(claim,)), GOOD)
    assert planned.actions == ()
    assert planned.outcome.requeue_after is not None


def test_a_hostname_that_takes_the_place_of_another_one_displaces_its_record_only() -> None:
    held = service(record(hostname="old.test"))
    planned = decide(held, replace(GOOD, problem="it is for other names"))
    old = replace(SITE, hostname="old.test")
    assert planned.actions == (Forget(old, "another hostname has its place"), Issue(SITE, "it is for other names"))


@pytest.mark.parametrize("left", [Finalizer.ROUTES, Finalizer.CONTAINERS])
def test_a_deleted_service_keeps_its_certificates_until_nothing_can_use_them(left: Finalizer) -> None:
    held = service(record(), finalizers=(left, Finalizer.CERTS))
    planned = plan_deletion(held, Observed({SITE.cert_path: GOOD}, {}, NOW))
    assert planned.actions == ()
    assert planned.outcome.reason is Reason.TERMINATING


def test_a_deleted_service_takes_its_certificates_along() -> None:
    held = service(record(), finalizers=(Finalizer.CERTS, Finalizer.PORTS))
    assert plan_deletion(held, Observed({SITE.cert_path: GOOD}, {}, NOW)).actions == (Remove(SITE, "f1"),)


HOSTNAMES = ["a.test", "b.test", "c.test"]
FINGERPRINTS = st.sampled_from(["f1", "f2", "f3"])
TIMES = st.timedeltas(timedelta(days=-100), timedelta(days=100)).map(lambda delta: NOW + delta)
PROBLEMS = st.sampled_from(["", "", "it does not match its key"])


def site(hostname: str) -> Site:
    return Site(hostname, f"/certs/{hostname}.pem", f"/certs/{hostname}.key")


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    """Nothing, a lone key, or any pair."""
    kind = draw(st.sampled_from(["nothing", "key", "pair", "pair"]))
    if kind == "nothing":
        return NOTHING
    if kind == "key":
        return Pair(has_key=True, problem="its certificate file is missing")
    start = draw(TIMES)
    return Pair(True, True, draw(FINGERPRINTS), draw(PROBLEMS), draw(st.booleans()), start, start + LIFE)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Service, list[Site], Observed]:
    """Any definition, any records of earlier ones, any files."""
    wanted = draw(st.lists(st.sampled_from(HOSTNAMES), unique=True))
    recorded = draw(st.lists(st.sampled_from(HOSTNAMES), unique=True))
    records = [
        record(
            hostname=name,
            cert_path=site(name).cert_path,
            key_path=site(name).key_path,
            fingerprint=draw(st.one_of(FINGERPRINTS, st.just(""))),
            issuer=draw(st.sampled_from(["CA", PROVIDED])),
        )
        for name in recorded
    ]
    found = {site(name).cert_path: draw(pairs()) for name in HOSTNAMES}
    foreign = draw(st.lists(st.sampled_from(sorted(set(HOSTNAMES) - set(recorded)) or ["z"]), unique=True, max_size=1))
    holders = {site(name).cert_path: "market" for name in foreign}
    return service(*records), [site(name) for name in sorted(wanted)], Observed(found, holders, NOW)


def carried_out(held: Service, observed: Observed, actions: tuple[Action, ...]) -> tuple[Service, Observed]:
    """Records and files once the actions worked."""
    records = {r.hostname: r for r in held.certificates}
    found = dict(observed.pairs)
    for action in actions:
        match action:
            case Issue():
                fresh = replace(GOOD, fingerprint="new", not_before=NOW, not_after=NOW + LIFE)
                found[action.site.cert_path] = fresh
                records[action.site.hostname] = recorded_as(action.site, "CA", "new")
            case Note():
                issuer = PROVIDED if action.provided else "CA"
                records[action.site.hostname] = recorded_as(action.site, issuer, action.fingerprint)
            case Remove():
                found[action.site.cert_path] = NOTHING
                records.pop(action.site.hostname)
            case Forget():
                records.pop(action.site.hostname)
    after = held.model_copy(update={"certificates": tuple(records.values())})
    return after, replace(observed, pairs=found)


def recorded_as(place: Site, issuer: str, fingerprint: str) -> Certificate:
    return record(
        hostname=place.hostname,
        cert_path=place.cert_path,
        key_path=place.key_path,
        issuer=issuer,
        fingerprint=fingerprint,
    )


@given(situations())
def test_planning_again_on_the_result_gives_nothing_to_do(situation: tuple[Service, list[Site], Observed]) -> None:
    held, wanted, observed = situation
    actions = plan(held, wanted, observed, POLICY).actions
    after, world = carried_out(held, observed, actions)
    assert plan(after, wanted, world, POLICY).actions == ()


@given(situations())
def test_no_plan_overwrites_or_removes_what_is_not_ours(situation: tuple[Service, list[Site], Observed]) -> None:
    held, wanted, observed = situation
    for action in plan(held, wanted, observed, POLICY).actions:
        if not isinstance(action, (Issue, Remove)):
            continue
        pair = observed.pairs[action.site.cert_path]
        recorded = held.certificate(action.site.hostname)
        managed = recorded is not None and recorded.issuer != PROVIDED
        assert action.site.cert_path not in observed.holders
        assert not pair.exists or pair.ours or managed
        if isinstance(action, Issue) and pair.exists and not pair.ours and not pair.problem:
            expired = not pair.not_before <= NOW < pair.not_after
            assert expired or (recorded is not None and recorded.fingerprint == pair.fingerprint)


@given(situations())
def test_a_converged_plan_means_that_every_site_can_serve(situation: tuple[Service, list[Site], Observed]) -> None:
    held, wanted, observed = situation
    planned = plan(held, wanted, observed, POLICY)
    if planned.outcome.status is Status.TRUE:
        after, world = carried_out(held, observed, planned.actions)
        for place in wanted:
            pair, recorded = world.pairs[place.cert_path], after.certificate(place.hostname)
            assert pair.exists
            assert not pair.problem
            assert pair.not_before <= NOW < pair.not_after
            assert recorded is not None
            assert recorded.fingerprint == pair.fingerprint


@given(situations())
def test_the_order_of_records_does_not_matter(situation: tuple[Service, list[Site], Observed]) -> None:
    held, wanted, observed = situation
    turned = held.model_copy(update={"certificates": held.certificates[::-1]})
    assert set(plan(turned, wanted, observed, POLICY).actions) == set(plan(held, wanted, observed, POLICY).actions)


@given(TIMES, st.timedeltas(timedelta(seconds=3), timedelta(days=3650)))
def test_renewal_is_at_two_thirds_of_life(start: datetime, life: timedelta) -> None:
    assert abs((due(start, start + life) - start) / life - 2 / 3) < 1e-6
