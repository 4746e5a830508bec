"""The choice of host ports, by example and by property."""

from collections.abc import Iterator

import hypothesis
import pytest
from hypothesis import strategies as st

from api.conditions import Reason, Status
from api.resolve import Defaults, resolve
from api.service import Component, FieldChange, Finalizer, PortAllocation, RouteClaim, Service
from api.spec import ComponentSpec, RouteMode, RouteSpec, ServiceSpec, Strategy, UpdateSpec
from reconcilers.base import Plan, Terminal
from reconcilers.ports.plan import Allocate, Node, Reallocate, Release, assume, given, is_settled, plan, plan_deletion
from tests.unit.reconcilers.memory import newborn

NODE = Node(low=20000, high=20099, taken=frozenset(), ephemeral=range(0))
NAMES = st.sampled_from(["a", "b", "c", "d"])


def spec(
    routes: dict[str, list[str]], ports: tuple[str, ...] = (), blue_green: frozenset[str] = frozenset()
) -> ServiceSpec:
    """A service with these route names in these components, some of which are updated blue-green."""
    components = [
        ComponentSpec(
            name=component,
            image="i:1",
            ports=ports,
            update=UpdateSpec(strategy=Strategy.BLUE_GREEN) if component in blue_green else None,
            routes=tuple(RouteSpec(name=name, port=443, hostname=f"{name}.{component}.test") for name in names),
        )
        for component, names in routes.items()
    ]
    return ServiceSpec(name="shop", components=tuple(components))


def decide(service: Service, node: Node = NODE) -> Plan:
    return plan(service, resolve(service.spec, Defaults()), node)


def allocation(
    route: str, port: int, *, component: str = "web", slot: int = 0, contested: bool = False
) -> PortAllocation:
    return PortAllocation(component=component, route=route, port=port, slot=slot, contested=contested)


def claim(route: str, backend: str, *, component: str = "web") -> RouteClaim:
    hostname = f"{route}.{component}.test"
    return RouteClaim(
        listener=":443", hostname=hostname, component=component, route=route, mode=RouteMode.L4, backend=backend
    )


def in_slot(slot: int, *, component: str = "web") -> Component:
    return Component(name=component, container_name=f"shop-{component}", slot=slot)


BLUE_GREEN = spec({"web": ["http"]}, blue_green=frozenset({"web"}))
BOTH = (allocation("http", 20001), allocation("http", 20002, slot=1))


def test_each_route_gets_a_port_of_its_own() -> None:
    service = newborn(spec({"web": ["http", "admin"], "api": ["rest"]}))
    actions = decide(service).actions
    assert [action.subject for action in actions] == ["api/rest", "web/admin", "web/http"]
    assert len({action.port for action in actions if isinstance(action, Allocate)}) == 3


def test_the_same_service_applied_anew_gets_the_ports_it_had() -> None:
    service = newborn(spec({"web": ["http"]}))
    assert decide(service) == decide(service)


def test_no_routes_need_no_ports() -> None:
    assert decide(newborn(spec({"web": []}))).outcome.reason is Reason.NOT_NEEDED


def test_an_inactive_service_keeps_its_ports() -> None:
    stopped = spec({"web": ["http"]}).model_copy(update={"active": False})
    service = newborn(stopped, ports=(allocation("http", 20001),))
    assert decide(service).actions == ()


def test_an_allocation_stays_although_its_own_container_listens_on_it() -> None:
    service = newborn(spec({"web": ["http"]}), ports=(allocation("http", 20001),))
    assert decide(service, Node(20000, 20099, frozenset({20001}), range(0))).actions == ()


def test_a_contested_port_is_replaced_by_another_one() -> None:
    service = newborn(spec({"web": ["http"]}), ports=(allocation("http", 20001, contested=True),))
    (action,) = decide(service, Node(20000, 20002, frozenset({20000}), range(0))).actions
    assert action == Reallocate("web", "http", 20002, old=20001)
    assert action.differences() == (FieldChange(path="port", old="20001", new="20002"),)
    assert action.describe() == "allocate port 20002 to web/http (port 20001 is taken by somebody else)"


def test_a_fixed_port_of_the_same_service_is_not_given_to_a_route() -> None:
    service = newborn(spec({"web": ["http"]}, ports=("20000:80",)))
    (action,) = decide(service, Node(20000, 20001, frozenset(), range(0))).actions
    assert action == Allocate("web", "http", 20001)


def test_a_route_makes_way_for_a_fixed_port_of_its_own_service() -> None:
    service = newborn(spec({"web": ["http"]}, ports=("20001:80",)), ports=(allocation("http", 20001),))
    assert not is_settled(service, resolve(service.spec, Defaults()))
    (action,) = decide(service, Node(20001, 20002, frozenset(), range(0))).actions
    assert action == Reallocate("web", "http", 20002, old=20001)


def test_a_lost_port_is_tried_again_where_there_is_no_other_and_nobody_has_it_now() -> None:
    service = newborn(spec({"web": ["http"]}), ports=(allocation("http", 20001, contested=True),))
    (action,) = decide(service, Node(20001, 20001, frozenset(), range(0))).actions
    assert action == Reallocate("web", "http", 20001, old=20001)
    assert action.describe() == "try port 20001 for web/http once more"
    with pytest.raises(Terminal):
        decide(service, Node(20001, 20001, frozenset({20001}), range(0)))


def test_a_service_gives_back_its_own_ports_before_it_complains_that_none_is_left() -> None:
    service = newborn(spec({"web": ["new"]}), ports=(allocation("old", 20001),))
    node = Node(20001, 20001, frozenset(), range(0))
    first = decide(service, node)
    assert first.actions == (Release("web", "old", 20001),)
    assert first.outcome.reason is Reason.PROGRESSING
    assert first.outcome.requeue_after is not None
    assert decide(assume(service, first.actions), node).actions == (Allocate("web", "new", 20001),)


def test_the_kernels_own_range_is_used_only_when_nothing_else_is_left() -> None:
    service = newborn(spec({"web": ["a", "b"]}))
    actions = decide(service, Node(20000, 20001, frozenset(), range(20001, 30000))).actions
    assert {port.port for port in assume(service, actions).ports} == {20000, 20001}


@pytest.mark.parametrize("ephemeral", [range(0), range(20003, 20006), range(19000, 20004), range(20004, 30000)])
def test_every_port_of_the_range_is_given_before_none_is_left(ephemeral: range) -> None:
    routes = [f"r{number}" for number in range(10)]
    service = newborn(spec({"web": routes}))
    given_now = [action.port for action in decide(service, Node(20000, 20009, frozenset(), ephemeral)).actions]
    assert sorted(given_now) == list(range(20000, 20010))
    outside = set(range(20000, 20010)) - set(ephemeral)
    assert set(given_now[: len(outside)]) == outside


def test_no_port_left_says_which_setting_to_widen() -> None:
    service = newborn(spec({"web": ["a", "b"]}))
    with pytest.raises(Terminal, match="between 20000 and 20000") as caught:
        decide(service, Node(20000, 20000, frozenset(), range(0)))
    assert caught.value.reason is Reason.PORTS_EXHAUSTED


def test_a_dropped_route_gives_its_port_back() -> None:
    service = newborn(spec({"web": ["http"]}), ports=(allocation("http", 20001), allocation("old", 20002)))
    assert decide(service).actions == (Release("web", "old", 20002),)


@pytest.mark.parametrize("backend", ["127.0.0.1:20002", ""])
def test_a_dropped_route_keeps_its_port_while_the_proxy_may_lead_to_it(backend: str) -> None:
    service = newborn(spec({"web": []}), ports=(allocation("old", 20002),), claims=(claim("old", backend),))
    planned = decide(service)
    assert planned.actions == ()
    assert planned.outcome.requeue_after is not None


def test_a_claim_that_leads_elsewhere_holds_no_port() -> None:
    service = newborn(spec({"web": []}), ports=(allocation("old", 20002),), claims=(claim("old", "127.0.0.1:20003"),))
    assert decide(service).actions == (Release("web", "old", 20002),)


def test_containers_that_take_turns_have_a_port_each() -> None:
    actions = decide(newborn(BLUE_GREEN)).actions
    assert [action.subject for action in actions] == ["web/http", "web/http (slot 1)"]
    assert len(given(decide(newborn(BLUE_GREEN)))) == 2


def test_the_first_slot_has_the_port_that_it_has_without_a_second() -> None:
    alone = decide(newborn(spec({"web": ["http"]}))).actions
    assert decide(newborn(BLUE_GREEN)).actions[:1] == alone


def test_only_the_contested_port_of_two_slots_moves() -> None:
    ports = (allocation("http", 20001), allocation("http", 20002, slot=1, contested=True))
    (action,) = decide(newborn(BLUE_GREEN, ports=ports)).actions
    assert isinstance(action, Reallocate)
    assert (action.slot, action.old) == (1, 20002)


def test_turning_to_blue_green_leaves_the_port_that_serves() -> None:
    service = newborn(BLUE_GREEN, ports=(allocation("http", 20001),), components=(in_slot(0),))
    (action,) = decide(service).actions
    assert isinstance(action, Allocate)
    assert action.slot == 1


def test_a_slot_that_is_not_needed_any_more_goes_once_no_container_is_in_it() -> None:
    service = newborn(spec({"web": ["http"]}), ports=BOTH, components=(in_slot(0),))
    assert decide(service).actions == (Release("web", "http", 20002, slot=1),)


def test_a_slot_stays_while_the_container_is_in_it() -> None:
    service = newborn(spec({"web": ["http"]}), ports=BOTH, components=(in_slot(1),))
    planned = decide(service)
    assert planned.actions == ()
    # The container's move wakes this reconciler, and may never come.
    assert planned.outcome.requeue_after is None


def test_a_slot_stays_while_the_proxy_leads_to_it() -> None:
    service = newborn(
        spec({"web": ["http"]}), ports=BOTH, components=(in_slot(0),), claims=(claim("http", "127.0.0.1:20002"),)
    )
    assert decide(service).actions == ()


def test_a_dropped_route_gives_back_the_ports_of_both_slots() -> None:
    service = newborn(spec({"web": []}), ports=BOTH, components=(in_slot(1),))
    assert decide(service).actions == (Release("web", "http", 20001), Release("web", "http", 20002, slot=1))


@pytest.mark.parametrize("left", [Finalizer.ROUTES, Finalizer.CONTAINERS, Finalizer.CERTS])
def test_a_deleted_service_keeps_its_ports_until_everything_else_is_gone(left: Finalizer) -> None:
    service = newborn(spec({"web": ["http"]}), ports=(allocation("http", 20001),), finalizers=(left, Finalizer.PORTS))
    planned = plan_deletion(service)
    assert planned.actions == ()
    assert planned.outcome.reason is Reason.TERMINATING
    assert left in planned.outcome.message


def test_a_deleted_service_gives_its_ports_back_last() -> None:
    service = newborn(
        spec({"web": ["http"]}), ports=(allocation("http", 20001, contested=True),), finalizers=(Finalizer.PORTS,)
    )
    planned = plan_deletion(service)
    assert planned.actions == (Release("web", "http", 20001),)
    assert planned.outcome.status is Status.TRUE


@st.composite
def situations(draw: st.DrawFn) -> tuple[Service, Node]:
    """Any definition, any allocations left from earlier ones, containers and claims anywhere, any node with room."""
    wanted = draw(st.dictionaries(NAMES, st.lists(NAMES, unique=True, max_size=4), min_size=1, max_size=4))
    blue_green = draw(st.frozensets(NAMES))
    keys = draw(st.lists(st.tuples(NAMES, NAMES, st.integers(0, 1)), unique=True, max_size=6))
    numbers = draw(st.lists(st.integers(20000, 20099), unique=True, min_size=len(keys), max_size=len(keys)))
    held = [
        allocation(route, port, component=component, slot=slot, contested=draw(st.booleans()))
        for (component, route, slot), port in zip(keys, numbers, strict=True)
    ]
    slots = draw(st.dictionaries(NAMES, st.integers(0, 1)))
    backends = st.sampled_from(["", *(f"127.0.0.1:{port}" for port in (*numbers, 9))])
    claimed = draw(st.dictionaries(st.tuples(NAMES, NAMES), backends, max_size=4))
    taken = draw(st.frozensets(st.integers(20000, 20099), max_size=50))
    first = draw(st.integers(20000, 20099))
    service = newborn(
        spec(wanted, blue_green=blue_green),
        ports=tuple(held),
        components=tuple(in_slot(slot, component=component) for component, slot in slots.items()),
        claims=tuple(claim(route, backend, component=name) for (name, route), backend in claimed.items()),
    )
    return service, Node(20000, 20099, taken.union(numbers), range(first, first + draw(st.integers(0, 100))))


@hypothesis.given(situations())
def test_planning_again_on_the_result_gives_nothing_to_do(situation: tuple[Service, Node]) -> None:
    service, node = situation
    after = assume(service, decide(service, node).actions)
    assert decide(after, node).actions == ()
    assert is_settled(after, resolve(after.spec, Defaults()))
    assert {(port.component, port.route, port.slot) for port in _kept(after)} == _wanted(after)


@hypothesis.given(situations())
def test_no_port_is_given_twice_or_taken_from_anybody(situation: tuple[Service, Node]) -> None:
    service, node = situation
    planned = decide(service, node)
    chosen = [action for action in planned.actions if isinstance(action, Allocate | Reallocate)]
    assert len(given(planned)) == len(chosen)
    assert not node.taken & given(planned)
    assert all(node.low <= port <= node.high for port in given(planned))


@hypothesis.given(situations())
def test_good_allocations_of_wanted_routes_are_never_moved(situation: tuple[Service, Node]) -> None:
    service, node = situation
    after = assume(service, decide(service, node).actions)
    assert set(_kept(service)) <= set(after.ports)


@hypothesis.given(situations())
def test_no_port_is_given_back_while_the_proxy_leads_to_it(situation: tuple[Service, Node]) -> None:
    service, node = situation
    released = {action.port for action in decide(service, node).actions if isinstance(action, Release)}
    assert not {f"127.0.0.1:{port}" for port in released} & {claim.backend for claim in service.claims}


@hypothesis.given(situations())
def test_no_slot_is_given_back_while_its_container_serves_the_route(situation: tuple[Service, Node]) -> None:
    service, node = situation
    routes = {(component, route) for component, route, _ in _wanted(service)}
    for action in decide(service, node).actions:
        if isinstance(action, Release) and (action.component, action.route) in routes:
            container = service.component(action.component)
            assert container is None or container.slot != action.slot


@hypothesis.given(situations())
def test_the_order_of_the_definition_does_not_matter(situation: tuple[Service, Node]) -> None:
    service, node = situation
    components = tuple(reversed(service.spec.components))
    turned = service.model_copy(
        update={
            "spec": service.spec.model_copy(update={"components": components}),
            "ports": tuple(reversed(service.ports)),
        }
    )
    assert set(assume(service, decide(service, node).actions).ports) == set(
        assume(turned, decide(turned, node).actions).ports
    )


def _kept(service: Service) -> Iterator[PortAllocation]:
    wanted = _wanted(service)
    return (p for p in service.ports if (p.component, p.route, p.slot) in wanted and not p.contested)


def _wanted(service: Service) -> set[tuple[str, str, int]]:
    return {
        (component.name, route.key, slot)
        for component in resolve(service.spec, Defaults()).components
        for route in component.routes
        for slot in component.slots
    }
