"""What holds of every plan, whatever the definition and whatever there is."""

from collections.abc import Callable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from api.conditions import Reason
from api.service import ContainerState, Finalizer, Service
from api.spec import ComponentSpec, RestartPolicy, RouteSpec
from reconcilers.containers import model
from reconcilers.containers.actions import Create
from reconcilers.containers.model import ContainerObservation
from reconcilers.containers.plan import World
from tests.unit.reconcilers.containers.worlds import (
    NODE,
    NOW,
    carried_out,
    container,
    decide,
    noted,
    requests,
    shop,
    stranger,
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
)


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
    service = shop(*draw(definitions), active=draw(st.booleans()))
    past = requests(shop(*draw(definitions)))
    found: list[ContainerObservation] = []
    for name, request in {**past, **requests(service)}.items():
        kind = draw(st.sampled_from(["none", "same", "old"] if settled else ["none", "same", "old", "foreign"]))
        asked = past.get(name, request) if kind == "old" else request
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


@given(situations())
def test_planning_again_on_the_result_gives_nothing_to_do(situation: tuple[Service, World]) -> None:
    service, seen = situation
    after = carried_out(seen, decide(service, seen).actions)
    assert decide(noted(service, after), after).actions == ()


@given(situations(settled=True))
def test_carried_out_a_plan_leads_to_exactly_what_is_defined(situation: tuple[Service, World]) -> None:
    service, seen = situation
    after = carried_out(seen, decide(service, seen).actions)
    wanted = {request.name: request.spec_hash for request in requests(service).values()}
    owned = {c.name: c.labels[model.SPEC_HASH] for c in after.observation.owned(NODE, service.name)}
    assert owned.keys() <= wanted.keys()
    if service.spec.active:
        assert owned == wanted
    else:
        assert not [c for c in after.observation.owned(NODE, service.name) if c.running]


@given(situations())
def test_no_plan_touches_what_is_not_the_services_own(situation: tuple[Service, World]) -> None:
    service, seen = situation
    own = {c.id for c in seen.observation.owned(NODE, service.name)}
    taken = {c.name for c in seen.observation}
    for action in decide(service, seen).actions:
        if isinstance(action, Create):
            assert action.name not in taken
        else:
            assert action.container_id in own
    after = carried_out(seen, decide(service, seen).actions)
    assert [c for c in seen.observation if c.id not in own and after.observation.get(c.id) != c] == []


@given(situations())
def test_a_deletion_leaves_nothing_of_the_service_and_everything_else(situation: tuple[Service, World]) -> None:
    service, seen = situation
    service = service.model_copy(update={"deletion_requested_at": NOW, "finalizers": (Finalizer.CONTAINERS,)})
    after = carried_out(seen, decide(service, seen).actions)
    own = {c.id for c in seen.observation.owned(NODE, service.name)}
    assert {c.id for c in after.observation} == {c.id for c in seen.observation} - own
    done = decide(service, after)
    assert (done.actions, done.outcome.reason is Reason.TERMINATING) == ((), False)


@given(situations())
def test_the_order_in_which_containers_are_listed_does_not_matter(situation: tuple[Service, World]) -> None:
    service, seen = situation
    backwards = replace(seen, observation=model.Observation(dict(reversed(list(seen.observation.containers.items())))))
    assert decide(service, backwards) == decide(service, seen)
