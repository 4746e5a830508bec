"""The choice of host ports, by example and by property."""

from collections.abc import Iterator

import hypothesis
import pytest
from hypothesis import strategies as st

from api.conditions import Reason, Status
from api.resolve import Defaults, resolve
from api.service import Finalizer, PortAllocation, RouteClaim, Service
from api.spec import ComponentSpec, RouteMode, RouteSpec, ServiceSpec
from reconcilers.base import Plan, Terminal
from reconcilers.ports.plan import Allocate, Node, Reallocate, Release, assume, given, plan, plan_deletion
from tests.unit.reconcilers.memory import newborn

NODE = Node(low=20000, high=20099, taken=frozenset(), ephemeral=range(0))
NAMES = st.sampled_from(["a", "b", "c", "d"])


def spec(routes: dict[str, list[str]], ports: tuple[str, ...] = ()) -> ServiceSpec:
    """A service with these route names in these components."""
    components = [
        ComponentSpec(
            name=component,
            image="i:1",
            ports=ports,
            routes=tuple(RouteSpec(name=name, port=443, hostname=f"{name}.{component}.test") for name in names),
        )
        for component, names in routes.items()
    ]
    return ServiceSpec(name="shop", components=tuple(components))


def decide(service: Service, node: Node = NODE) -> Plan:
    return plan(service, resolve(service.spec, Defaults()), node)


def allocation(route: str, port: int, *, component: str = "web", contested: bool = False) -> PortAllocation:
    return PortAllocation(component=component, route=route, port=port, contested=contested)


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
    assert action.describe() == "allocate port 20002 to web/http (port 20001 is taken by somebody else)"


def test_a_fixed_port_of_the_same_service_is_not_given_to_a_route() -> None:
    service = newborn(spec({"web": ["http"]}, ports=("20000:80",)))
    (action,) = decide(service, Node(20000, 20001, frozenset(), range(0))).actions
    assert action == Allocate("web", "http", 20001)


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


def test_a_dropped_route_keeps_its_port_while_the_proxy_may_lead_to_it() -> None:
    claim = RouteClaim(
        listener=":443",
        hostname="old.test",
        component="web",
        route="old",
        mode=RouteMode.L4,
        backend="127.0.0.1:20002",
    )
    service = newborn(spec({"web": []}), ports=(allocation("old", 20002),), claims=(claim,))
    planned = decide(service)
    assert planned.actions == ()
    assert planned.outcome.requeue_after is not None


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
    """Any definition, any allocations left from earlier ones, any node with room."""
    wanted = draw(st.dictionaries(NAMES, st.lists(NAMES, unique=True, max_size=4), min_size=1, max_size=4))
    keys = draw(st.lists(st.tuples(NAMES, NAMES), unique=True, max_size=6))
    numbers = draw(st.lists(st.integers(20000, 20099), unique=True, min_size=len(keys), max_size=len(keys)))
    held = [
        allocation(route, port, component=component, contested=draw(st.booleans()))
        for (component, route), port in zip(keys, numbers, strict=True)
    ]
    taken = draw(st.frozensets(st.integers(20000, 20099), max_size=60))
    first = draw(st.integers(20000, 20099))
    service = newborn(spec(wanted), ports=tuple(held))
    return service, Node(20000, 20099, taken.union(numbers), range(first, first + draw(st.integers(0, 100))))


@hypothesis.given(situations())
def test_planning_again_on_the_result_gives_nothing_to_do(situation: tuple[Service, Node]) -> None:
    service, node = situation
    after = assume(service, decide(service, node).actions)
    assert decide(after, node).actions == ()
    assert {(port.component, port.route) for port in _kept(after)} == _wanted(after)


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
    return (p for p in service.ports if (p.component, p.route) in _wanted(service) and not p.contested)


def _wanted(service: Service) -> set[tuple[str, str]]:
    return {(component.name, route.key) for component in service.spec.components for route in component.routes}
