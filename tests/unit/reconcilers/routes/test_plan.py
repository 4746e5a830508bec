"""What is programmed and withdrawn, by example and by property."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.conditions import Reason, Status
from api.resolve import Defaults, resolve
from api.service import Certificate, Component, PortAllocation, RouteClaim, ServedPort, Service
from api.spec import ComponentSpec, RouteMode, RouteSpec, ServiceSpec
from reconcilers.base import Action, Plan
from reconcilers.routes.model import Hold, Key, Listing, Observed, Program, ProxyRoute, Withdraw
from reconcilers.routes.plan import assume, plan, plan_deletion
from tests.unit.reconcilers.memory import newborn

L4, L7 = RouteMode.L4, RouteMode.L7
KEY = (":443", "shop.test")
EMPTY = Listing(frozenset({":443", ":8443"}), {})
TIME = datetime(2026, 1, 1, tzinfo=UTC)


def route(name: str = "http", *, hostname: str = "shop.test", port: int = 443, mode: RouteMode = L7) -> RouteSpec:
    return RouteSpec(name=name, hostname=hostname, port=port, mode=mode)


def spec(*routes: RouteSpec, active: bool = True) -> ServiceSpec:
    component = ComponentSpec(name="web", image="i:1", routes=routes)
    return ServiceSpec(name="shop", active=active, components=(component,))


def serving(*names: str, first_port: int = 20001, ready: bool = True) -> Component:
    ports = tuple(ServedPort(route=name, port=first_port + index) for index, name in enumerate(names))
    return Component(name="web", container_name="shop-web", ready=ready, ports=ports)


def certificate(hostname: str = "shop.test", fingerprint: str = "f1") -> Certificate:
    return Certificate(
        hostname=hostname,
        issuer="CA",
        serial="1",
        fingerprint=fingerprint,
        not_before=TIME,
        not_after=TIME,
        renew_at=TIME,
        cert_path=f"/certs/{hostname}.pem",
        key_path=f"/certs/{hostname}.key",
    )


def claim(**changes: object) -> RouteClaim:
    held = RouteClaim(
        listener=":443",
        hostname="shop.test",
        component="web",
        route="http",
        mode=L7,
        backend="127.0.0.1:20001",
        certificate="f1",
    )
    return held.model_copy(update=changes)


PROGRAMMED = ProxyRoute(
    ":443", "shop.test", "127.0.0.1:20001", L7, "/certs/shop.test.pem", "/certs/shop.test.key", policies=()
)


def listing(*routes: ProxyRoute) -> Listing:
    return Listing(EMPTY.listeners, {route.key: route for route in routes})


def ready_service(*claims: RouteClaim, **changes: object) -> Service:
    """A service whose only route could be programmed now."""
    allocation = PortAllocation(component="web", route="http", port=20001)
    born = newborn(
        spec(route()), components=(serving("http"),), certificates=(certificate(),), ports=(allocation,), claims=claims
    )
    return born.model_copy(update=changes)


def decide(service: Service, listing: Listing = EMPTY, holders: dict[Key, str] | None = None) -> Plan:
    return plan(service, resolve(service.spec, Defaults()), Observed(listing, holders or {}))


def program(planned: Plan) -> Program:
    """The one route that is programmed; a name that is not held yet is held first."""
    *before, action = planned.actions
    assert isinstance(action, Program)
    held = action.claim.model_copy(update={"backend": "", "certificate": ""})
    assert before in ([], [Hold(held)])
    return action


def test_a_ready_route_is_programmed_with_its_certificate() -> None:
    planned = decide(ready_service())
    assert len(planned.actions) == 2
    assert program(planned).route == PROGRAMMED
    assert program(planned).claim == claim()
    assert program(planned).describe() == "route shop.test:443 to 127.0.0.1:20001 by l7 (new)"
    assert planned.outcome.status is Status.TRUE


def test_a_route_that_is_as_it_should_be_is_left_alone() -> None:
    assert decide(ready_service(claim()), listing(PROGRAMMED)).actions == ()


def test_an_l4_route_needs_no_certificate() -> None:
    service = ready_service(spec=spec(route(mode=L4)), certificates=())
    assert program(decide(service)).route == ProxyRoute(":443", "shop.test", "127.0.0.1:20001", L4)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"components": ()}, Reason.WAITING_FOR_CONTAINER),
        ({"components": (serving("http", ready=False),)}, Reason.WAITING_FOR_CONTAINER),
        ({"components": (serving("another"),)}, Reason.WAITING_FOR_CONTAINER),
        ({"certificates": ()}, Reason.WAITING_FOR_CERTIFICATE),
        ({"certificates": (certificate(fingerprint=""),)}, Reason.WAITING_FOR_CERTIFICATE),
    ],
)
def test_a_route_is_not_programmed_before_what_it_leads_to_is_there(changes: dict[str, object], reason: Reason) -> None:
    """But its name is held, lest a younger service takes it that is quicker to be ready."""
    service = ready_service(**changes)
    planned = decide(service)
    assert planned.actions == (Hold(claim(backend="", certificate="")),)
    assert decide(assume(service, planned.actions)).actions == ()
    assert planned.outcome.reason is reason
    assert planned.outcome.status is Status.FALSE


def test_a_route_stays_while_its_container_restarts() -> None:
    service = ready_service(claim(), components=(serving("http", ready=False),))
    assert decide(service, listing(PROGRAMMED)).actions == ()


def test_a_route_is_withdrawn_when_its_port_became_somebody_else_s() -> None:
    lost = PortAllocation(component="web", route="http", port=20001, contested=True)
    service = ready_service(claim(), components=(), ports=(lost,))
    planned = decide(service, listing(PROGRAMMED))
    (action,) = planned.actions
    assert isinstance(action, Withdraw)
    assert action.describe() == "withdraw route shop.test:443 (127.0.0.1:20001 is not this service's any more)"
    assert planned.outcome.reason is Reason.WAITING_FOR_CONTAINER


@pytest.mark.parametrize(
    ("held", "found", "cause"),
    [
        (claim(backend="", certificate=""), None, "new"),
        (claim(), None, "missing from the proxy"),
        (claim(), replace(PROGRAMMED, backend="10.0.0.1:1"), "edited by somebody: it led to 10.0.0.1:1"),
        (claim(), replace(PROGRAMMED, backend_tls=True), "edited by somebody"),
        (claim(), replace(PROGRAMMED, mode=L4, cert_path="", key_path=""), "edited by somebody"),
        (claim(), replace(PROGRAMMED, cert_path="/other.pem"), "edited by somebody"),
        (
            claim(backend="127.0.0.1:20009"),
            replace(PROGRAMMED, backend="127.0.0.1:20009"),
            "backend changed 127.0.0.1:20009 -> 127.0.0.1:20001",
        ),
        (claim(certificate="f0"), PROGRAMMED, "certificate renewed"),
        (claim(mode=L4, certificate=""), replace(PROGRAMMED, mode=L4), "mode changed l4 -> l7"),
        (claim(route="old"), PROGRAMMED, "its route has another name now"),
    ],
)
def test_a_difference_is_corrected_and_its_cause_named(held: RouteClaim, found: ProxyRoute | None, cause: str) -> None:
    action = program(decide(ready_service(held), listing(found) if found else EMPTY))
    assert action.route == PROGRAMMED
    assert action.cause == cause
    assert action.follows == (not cause.startswith(("new", "missing", "edited")))


def test_policies_that_the_operator_put_on_our_route_survive() -> None:
    policed = replace(PROGRAMMED, policies=(("require_header", "X-Key"),))
    assert decide(ready_service(claim()), listing(policed)).actions == ()
    action = program(decide(ready_service(claim(certificate="f0")), listing(policed)))
    assert action.route.policies == (("require_header", "X-Key"),)


def test_a_stranger_s_route_is_a_conflict() -> None:
    planned = decide(ready_service(), listing(replace(PROGRAMMED, backend="10.0.0.1:1")))
    assert planned.actions == ()
    assert planned.outcome.reason is Reason.CONFLICT
    assert planned.outcome.message == "shop.test:443 is a route to 10.0.0.1:1 that MCP did not make"


@pytest.mark.parametrize("port", [20001, 20002, 20003])
def test_a_route_to_our_own_container_is_ours_though_the_registry_forgot_it(port: int) -> None:
    """Be it that of a port that is given to the route, in either slot, or of the container that runs."""
    other = PortAllocation(component="web", route="http", port=20002, slot=1)
    service = ready_service(components=(serving("http", first_port=20003),))
    service = service.model_copy(update={"ports": (*service.ports, other)})
    found = replace(PROGRAMMED, backend=f"127.0.0.1:{port}")
    action = program(decide(service, listing(found)))
    assert action.route.backend == "127.0.0.1:20003"
    assert action.cause == "found in the proxy, leading to our own container"


@pytest.mark.parametrize(
    "found",
    [
        replace(PROGRAMMED, backend="127.0.0.1:20009"),
        replace(PROGRAMMED, backend="127.0.0.2:20001"),
        replace(PROGRAMMED, mode=L4),
        replace(PROGRAMMED, cert_path="/other.pem"),
        replace(PROGRAMMED, backend_tls=True),
        replace(PROGRAMMED, send_proxy_protocol=True),
    ],
)
def test_a_route_that_we_would_not_have_made_is_a_stranger_s(found: ProxyRoute) -> None:
    planned = decide(ready_service(), listing(found))
    assert (planned.actions, planned.outcome.reason) == ((), Reason.CONFLICT)


@pytest.mark.parametrize(
    ("changes", "backend", "reason"),
    [
        ({"components": ()}, "127.0.0.1:20009", Reason.WAITING_FOR_CONTAINER),
        ({"components": (), "certificates": ()}, "127.0.0.1:20009", Reason.WAITING_FOR_CERTIFICATE),
        ({"components": ()}, "10.0.0.1:20001", Reason.CONFLICT),
    ],
)
def test_whether_a_route_is_ours_is_judged_once_our_container_is_known(
    changes: dict[str, object], backend: str, reason: Reason
) -> None:
    planned = decide(ready_service(**changes), listing(replace(PROGRAMMED, backend=backend)))
    assert (planned.actions, planned.outcome.reason) == ((), reason)


def test_a_port_of_either_slot_does_not_lead_astray() -> None:
    """The container that was put in the place of another is not ready at this moment."""
    allocations = tuple(
        PortAllocation(component="web", route="http", port=port, slot=slot) for slot, port in enumerate((20001, 20002))
    )
    service = ready_service(
        claim(backend="127.0.0.1:20002"), components=(serving("http", ready=False),), ports=allocations
    )
    assert decide(service, listing(replace(PROGRAMMED, backend="127.0.0.1:20002"))).actions == ()


def test_what_was_edited_is_told_by_field() -> None:
    edited = replace(PROGRAMMED, backend="127.0.0.1:9", mode=L4, cert_path="", key_path="")
    assert [
        (change.path, change.old, change.new)
        for change in program(decide(ready_service(claim()), listing(edited))).differences()
    ] == [
        ("backend", "127.0.0.1:9", "127.0.0.1:20001"),
        ("mode", "l4", "l7"),
        ("cert_path", "", "/certs/shop.test.pem"),
        ("key_path", "", "/certs/shop.test.key"),
    ]
    assert program(decide(ready_service(claim()))).differences() == ()


def test_a_name_of_another_service_is_a_conflict_that_names_it() -> None:
    planned = decide(ready_service(), holders={KEY: "market"})
    assert planned.actions == ()
    assert planned.outcome.reason is Reason.CONFLICT
    assert 'service "market"' in planned.outcome.message


def test_a_conflict_does_not_hold_up_the_other_routes() -> None:
    two = spec(route(mode=L4), route("api", hostname="api.test", mode=L4))
    service = ready_service(spec=two, components=(serving("http", "api"),))
    planned = decide(service, holders={KEY: "market"})
    assert program(planned).route.hostname == "api.test"
    assert planned.outcome.reason is Reason.CONFLICT


def test_what_was_refused_before_goes_last() -> None:
    two = spec(route(mode=L4), route("api", hostname="api.test", mode=L4))
    service = ready_service(spec=two, components=(serving("http", "api"),))
    observed = Observed(EMPTY, refused=frozenset({(":443", "api.test")}))
    planned = plan(service, resolve(two, Defaults()), observed)
    programs = [action for action in planned.actions if isinstance(action, Program)]
    assert [action.subject for action in programs] == ["shop.test:443", "api.test:443"]
    assert planned.actions[-1] == programs[-1]


def test_a_missing_listener_is_named_with_those_that_exist() -> None:
    planned = decide(ready_service(spec=spec(route(port=9443))))
    assert planned.actions == ()
    assert planned.outcome.reason is Reason.LISTENER_MISSING
    assert "it has :443, :8443" in planned.outcome.message


def test_a_route_that_is_not_defined_any_more_is_withdrawn_with_its_name() -> None:
    service = ready_service(claim(), spec=spec())
    planned = decide(service, listing(PROGRAMMED))
    assert planned.actions == (Withdraw(":443", "shop.test", "not defined any more"),)
    assert assume(service, planned.actions).claims == ()


@pytest.mark.parametrize("found", [listing(PROGRAMMED), EMPTY])
def test_a_stopped_service_has_no_route_and_keeps_its_name(found: Listing) -> None:
    """Else it could not be started again once another service wants that name."""
    service = ready_service(claim(), spec=spec(route(), active=False))
    planned = decide(service, found)
    held = claim(backend="", certificate="")
    assert planned.actions == (Withdraw(":443", "shop.test", "the service is stopped", held),)
    stopped = assume(service, planned.actions)
    assert stopped.claims == (held,)
    assert decide(stopped).actions == ()
    assert decide(stopped, listing(PROGRAMMED)).actions != ()


def test_the_routes_of_a_stopped_component_are_withdrawn_alone() -> None:
    both = spec(route())
    quiet = both.components[0].model_copy(update={"active": False})
    service = ready_service(claim(), spec=both.model_copy(update={"components": (quiet,)}))
    (action,) = decide(service, listing(PROGRAMMED)).actions
    assert isinstance(action, Withdraw)
    assert action.cause == f"component {quiet.name} is stopped"
    assert decide(assume(service, (action,))).outcome.status is Status.TRUE


def test_a_stopped_service_says_so() -> None:
    assert decide(ready_service(spec=spec(route(), active=False))).outcome.reason is Reason.STOPPED


def test_no_routes_need_no_proxy() -> None:
    assert decide(ready_service(spec=spec())).outcome.reason is Reason.NOT_NEEDED


def test_a_deleted_service_withdraws_every_claim() -> None:
    service = ready_service(claim(), claim(listener=":8443"), deletion_requested_at=TIME)
    planned = plan_deletion(service)
    assert [action.subject for action in planned.actions] == ["shop.test:443", "shop.test:8443"]
    assert plan_deletion(assume(service, planned.actions)).actions == ()


HOSTNAMES = st.sampled_from(["a.test", "b.test", "c.test"])
LISTENERS = st.sampled_from([443, 8443, 9443])
MODES = st.sampled_from(list(RouteMode))
BACKENDS = st.sampled_from(["127.0.0.1:20001", "127.0.0.1:20002", "10.0.0.1:1", ""])
FINGERPRINTS = st.sampled_from(["", "f1", "f2"])


ALLOCATIONS = st.builds(
    PortAllocation,
    component=st.just("web"),
    route=st.sampled_from(["r0", "r1"]),
    port=st.sampled_from([20001, 20002, 20003]),
    slot=st.sampled_from([0, 1]),
    contested=st.booleans(),
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Service, Observed]:
    """Any definition, any past, any proxy."""
    wanted = draw(st.lists(st.tuples(LISTENERS, HOSTNAMES), unique=True, max_size=4))
    routes = [route(f"r{i}", hostname=name, port=port, mode=draw(MODES)) for i, (port, name) in enumerate(wanted)]
    keys = draw(st.lists(st.tuples(LISTENERS.map(":{}".format), HOSTNAMES), unique=True, max_size=4))
    claims = [
        claim(
            listener=listener,
            hostname=hostname,
            route=draw(st.sampled_from(["r0", "r1", "old"])),
            mode=draw(MODES),
            backend=draw(BACKENDS),
            certificate=draw(FINGERPRINTS),
        )
        for listener, hostname in keys
    ]
    names = draw(st.lists(st.sampled_from(["r0", "r1", "r2", "r3"]), unique=True))
    held = draw(st.lists(HOSTNAMES, unique=True))
    service = newborn(
        spec(*routes, active=draw(st.booleans())),
        components=(serving(*names, ready=draw(st.booleans())),),
        ports=tuple(draw(st.lists(ALLOCATIONS, max_size=3))),
        certificates=tuple(certificate(hostname, draw(FINGERPRINTS)) for hostname in held),
        claims=tuple(claims),
    )
    present = draw(st.lists(st.tuples(st.sampled_from([":443", ":8443"]), HOSTNAMES), unique=True))
    certs = st.sampled_from(["", "/certs/a.test.pem", "/certs/b.test.pem"])
    found = {
        (listener, hostname): ProxyRoute(listener, hostname, draw(BACKENDS), draw(MODES), draw(certs))
        for listener, hostname in present
    }
    foreign = draw(st.lists(st.tuples(LISTENERS.map(":{}".format), HOSTNAMES), unique=True, max_size=2))
    return service, Observed(
        Listing(EMPTY.listeners, found), {key: "market" for key in foreign if key not in set(keys)}
    )


def carried_out(observed: Observed, actions: tuple[Action, ...]) -> Observed:
    """The world once mc-proxy did as it was told."""
    routes = dict(observed.listing.routes)
    for action in actions:
        match action:
            case Program():
                routes[action.route.key] = action.route
            case Withdraw():
                routes.pop((action.listener, action.hostname), None)
    return replace(observed, listing=replace(observed.listing, routes=routes))


def full(service: Service, observed: Observed) -> Plan:
    return plan(service, resolve(service.spec, Defaults()), observed)


@given(situations())
def test_planning_again_on_the_result_gives_nothing_to_do(situation: tuple[Service, Observed]) -> None:
    service, observed = situation
    actions = full(service, observed).actions
    assert full(assume(service, actions), carried_out(observed, actions)).actions == ()


@given(situations())
def test_no_plan_touches_what_the_service_does_not_own(situation: tuple[Service, Observed]) -> None:
    service, observed = situation
    ours = {(claim.listener, claim.hostname) for claim in service.claims}
    own = {f"127.0.0.1:{served.port}" for served in service.components[0].ports}
    own |= {f"127.0.0.1:{allocation.port}" for allocation in service.ports if not allocation.contested}
    for action in full(service, observed).actions:
        match action:
            case Withdraw():
                assert (action.listener, action.hostname) in ours
            case Hold():
                key = action.claim.listener, action.claim.hostname
                assert key not in {*ours, *observed.holders}
                current = observed.listing.routes.get(key)
                assert current is None or current.backend in own
            case Program():
                key = action.route.key
                assert key not in observed.holders
                current = observed.listing.routes.get(key)
                assert key in ours or current is None or current.backend in own


@given(situations())
def test_a_name_is_let_go_only_when_it_is_not_defined_any_more(situation: tuple[Service, Observed]) -> None:
    service, observed = situation
    defined = {(route.listener, route.hostname) for route in resolve(service.spec, Defaults()).routes}
    before, after = (
        {(claim.listener, claim.hostname) for claim in known.claims}
        for known in (service, assume(service, full(service, observed).actions))
    )
    assert before & defined == before & after


@given(situations())
def test_a_stopped_service_leaves_no_route_of_its_own(situation: tuple[Service, Observed]) -> None:
    service, observed = situation
    stopped = service.model_copy(update={"spec": service.spec.model_copy(update={"active": False})})
    held = {(claim.listener, claim.hostname) for claim in service.claims}
    after = carried_out(observed, full(stopped, observed).actions)
    assert not held & after.listing.routes.keys()
    assert after.listing.routes.items() <= observed.listing.routes.items()


class Town:
    """Two services that want one name, one after the other, in front of one proxy."""

    def __init__(self) -> None:
        self.services = {
            name: newborn(
                spec(route(mode=L4)),
                name=name,
                components=(serving("http", first_port=port),),
                ports=(PortAllocation(component="web", route="http", port=port),),
            )
            for name, port in (("older", 20001), ("younger", 20002))
        }
        self.listing = EMPTY

    def settle(self) -> None:
        """Everybody looks until there is nothing to do."""
        for _ in range(4):
            for name, service in self.services.items():
                others = [other for other in self.services.values() if other.name != name]
                holders = {(c.listener, c.hostname): other.name for other in others for c in other.claims}
                observed = Observed(self.listing, holders)
                gone = service.deleting
                actions = (plan_deletion(service) if gone else full(service, observed)).actions
                self.listing = carried_out(observed, actions).listing
                self.services[name] = assume(service, actions)

    @property
    def holder(self) -> str:
        """Who has the name; never two."""
        (holder,) = [name for name, service in self.services.items() if any(_key_of(c) == KEY for c in service.claims)]
        return holder

    def does(self, name: str, what: str) -> None:
        service = self.services[name]
        active, hostname = service.spec.active, service.spec.components[0].routes[0].hostname or ""
        changes: dict[str, object] = {}
        match what:
            case "stop" | "start":
                active = what == "start"
            case "leave" | "come back":
                hostname = f"{name}.test" if what == "leave" else "shop.test"
            case "die" | "live":
                changes["components"] = (service.components[0].model_copy(update={"ready": what == "live"}),)
        changes["spec"] = spec(route(mode=L4, hostname=hostname), active=active)
        self.services[name] = service.model_copy(update=changes)


def _key_of(claim: RouteClaim) -> Key:
    return claim.listener, claim.hostname


DEEDS = st.tuples(
    st.sampled_from(["older", "younger"]),
    st.sampled_from(["stop", "start", "leave", "come back", "die", "live", "empty the proxy"]),
)


@given(st.lists(DEEDS, max_size=8))
def test_whoever_has_a_name_keeps_it_until_it_goes(deeds: list[tuple[str, str]]) -> None:
    town = Town()
    town.settle()
    assert town.holder == "older"
    for who, what in deeds:
        before = town.holder
        town.does(who, what)
        if what == "empty the proxy":
            town.listing = EMPTY
        town.settle()
        wanting = {
            name
            for name, service in town.services.items()
            if service.spec.components[0].routes[0].hostname == "shop.test"
        }
        if not wanting:
            return
        if before in wanting:
            assert town.holder == before
        elif any(town.services[name].spec.active for name in wanting):
            assert town.holder in wanting
        else:
            return
        held = town.services[town.holder]
        led = town.listing.routes.get(KEY)
        if not held.spec.active:
            assert led is None
        elif held.components[0].ready:
            assert led is not None
            assert led.backend == f"127.0.0.1:{held.ports[0].port}"


def test_the_younger_takes_over_when_the_older_is_deleted() -> None:
    town = Town()
    town.settle()
    town.services["older"] = town.services["older"].model_copy(update={"deletion_requested_at": TIME})
    town.settle()
    assert town.holder == "younger"
    assert town.listing.routes[KEY].backend == "127.0.0.1:20002"


@given(situations())
def test_a_route_moves_only_to_a_ready_backend_with_a_recorded_certificate(
    situation: tuple[Service, Observed],
) -> None:
    service, observed = situation
    recorded = {c.cert_path for c in service.certificates if c.fingerprint}
    component = service.components[0]
    for action in full(service, observed).actions:
        if isinstance(action, Program):
            assert component.ready
            assert action.route.backend in {f"127.0.0.1:{served.port}" for served in component.ports}
            assert action.route.mode is L4 or action.route.cert_path in recorded


@given(situations())
def test_the_order_of_records_does_not_matter(situation: tuple[Service, Observed]) -> None:
    service, observed = situation
    (component,) = service.spec.components
    turned = component.model_copy(update={"routes": component.routes[::-1]})
    other = service.model_copy(
        update={
            "spec": service.spec.model_copy(update={"components": (turned,)}),
            "claims": service.claims[::-1],
            "certificates": service.certificates[::-1],
        }
    )
    assert full(other, observed).actions == full(service, observed).actions
