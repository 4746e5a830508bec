"""What holds of every plan, whatever the definition and whatever there is."""

from collections.abc import Callable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from api.conditions import Reason
from api.service import ContainerState, Finalizer, Service
from api.spec import ComponentSpec, RestartPolicy, RouteSpec, Strategy, UpdateSpec
from reconcilers.containers import model
from reconcilers.containers.actions import Create
from reconcilers.containers.model import ContainerObservation
from reconcilers.containers.world import World
from tests.unit.reconcilers.containers.worlds import (
    NODE,
    NOW,
    carried_out,
    container,
    decide,
    noted,
    requests,
    settled,
    shop,
    story,
    stranger,
    with_ports,
    world,
)

components = st.builds(
    ComponentSpec,
    name=st.sampled_from(["a", "b", "c"]),
    image=st.sampled_from(["i:1", "i:2"]),
    restart=st.none() | st.sampled_from(RestartPolicy),
    env=st.sampled_from([(), ("A=1",)]),
    network=st.none() | st.sampled_from(["host", "net"]),
    routes=st.sampled_from([(), (RouteSpec(port=443),)]),
    update=st.none() | st.builds(UpdateSpec, strategy=st.sampled_from(Strategy)),
).map(lambda part: part if part.network != "host" else part.model_copy(update={"update": None}))


def on_listeners_of_their_own(parts: list[ComponentSpec]) -> list[ComponentSpec]:
    return [
        part.model_copy(update={"routes": tuple(RouteSpec(port=443 + n) for _ in part.routes)})
        for n, part in enumerate(parts)
    ]


definitions = st.lists(components, min_size=1, max_size=3, unique_by=lambda component: component.name).map(
    on_listeners_of_their_own
)
states = st.sampled_from([state for state in ContainerState if state is not ContainerState.MISSING])


@st.composite
def situations(draw: Callable[..., object], *, settled: bool = False) -> tuple[Service, World]:
    """A service, and containers of its own, of its past, of other services, of other nodes and of strangers.

    `settled`: what there is is on its way nowhere, and under no name of ours is somebody else's.
    """
    service = with_ports(shop(*draw(definitions), active=draw(st.booleans())), 0, 1)
    past = requests(shop(*draw(definitions)))
    found: list[ContainerObservation] = []
    for name, request in {**past, **requests(service)}.items():
        kind = draw(st.sampled_from(["none", "same", "old"] if settled else ["none", "same", "old", "foreign"]))
        asked = past.get(name, request) if kind == "old" else request
        if draw(st.booleans()) and draw(st.booleans()):
            # An update was under way.
            beside = draw(st.sampled_from([model.NEXT, model.OLD]))
            state = draw(states) if beside == model.NEXT else ContainerState.EXITED
            left = container(request.named(request.name + beside), state, id=f"{beside}-{name}")
            if settled and left.state in (ContainerState.STOPPING, ContainerState.UNKNOWN):
                left = replace(left, state=ContainerState.EXITED)
            found.append(left)
        shown = container(asked, draw(states), exit_code=draw(st.sampled_from([None, 0, 1])), id=f"{kind}-{name}")
        if settled and shown.state in (ContainerState.STOPPING, ContainerState.UNKNOWN):
            shown = replace(shown, state=ContainerState.EXITED)
        if kind == "foreign":
            change = draw(st.sampled_from([model.MANAGED_BY, model.NODE, model.SERVICE]))
            shown = replace(shown, labels={**shown.labels, change: "somebody"})
        found += [shown] if kind != "none" else []
    found += [stranger(f"x{n}", f"x{n}") for n in range(draw(st.integers(0, 2)))]
    seen = world(*found, ready=draw(st.booleans()))
    restarts = {name: draw(st.integers(0, 4)) for name in past}
    return noted(service, seen, restarts), seen


@given(situations(settled=True))
def test_plan_after_plan_leads_to_exactly_what_is_defined(situation: tuple[Service, World]) -> None:
    service, after = settled(*situation)
    owned = {c.name: c for c in after.observation.owned(NODE, service.name)}
    if not service.spec.active:
        assert not [c for c in owned.values() if c.running]
        return
    wanted = [requests(service, slot) for slot in (0, 1)]
    assert owned.keys() == {request.name for request in wanted[0].values()}
    for found in owned.values():
        assert found.labels[model.SPEC_HASH] == wanted[found.slot][found.component].spec_hash


@given(situations())
def test_there_is_an_end_whatever_the_beginning(situation: tuple[Service, World]) -> None:
    service, after = settled(*situation)
    assert decide(service, after).actions == ()


@given(situations())
def test_no_plan_touches_what_is_not_the_services_own(situation: tuple[Service, World]) -> None:
    for service, seen, plan in story(*situation):
        own = {c.id for c in seen.observation.owned(NODE, service.name)}
        taken = {c.name for c in seen.observation}
        for action in plan.actions:
            if isinstance(action, Create):
                assert action.name not in taken
            else:
                assert action.container_id in own | {""}
        after = carried_out(seen, plan.actions)
        assert [c for c in seen.observation if c.id not in own and after.observation.get(c.id) != c] == []


@given(situations(settled=True))
def test_what_is_updated_blue_green_and_was_ready_never_leaves_nobody_ready(situation: tuple[Service, World]) -> None:
    service, _ = situation
    parts = {c.name for c in service.spec.components if c.update and c.update.strategy is Strategy.BLUE_GREEN}
    serving: set[str] = set()
    for now, seen, _ in story(*situation):
        ready = {c.component for c in seen.observation.owned(NODE, service.name) if c.id in seen.ready}
        if now.spec.active:
            assert serving <= ready
        serving |= parts & {c.component for c in _well(now, seen)}


def _well(service: Service, seen: World) -> list[ContainerObservation]:
    """Those that are ready and that the registry knows to be so."""
    known = {c.container_id for c in service.components if c.ready}
    return [c for c in seen.observation.owned(NODE, service.name) if c.id in seen.ready & known and not c.forsaken]


@given(situations())
def test_a_deletion_leaves_nothing_of_the_service_and_everything_else(situation: tuple[Service, World]) -> None:
    service, seen = situation
    service = service.model_copy(update={"deletion_requested_at": NOW, "finalizers": (Finalizer.CONTAINERS,)})
    own = {c.id for c in seen.observation.owned(NODE, service.name)}
    service, after = settled(service, seen)
    assert {c.id for c in after.observation} == {c.id for c in seen.observation} - own
    done = decide(service, after)
    assert (done.actions, done.outcome.reason is Reason.TERMINATING) == ((), False)


@given(situations())
def test_the_order_in_which_containers_are_listed_does_not_matter(situation: tuple[Service, World]) -> None:
    service, seen = situation
    backwards = replace(seen, observation=model.Observation(dict(reversed(list(seen.observation.containers.items())))))
    assert decide(service, backwards) == decide(service, seen)
