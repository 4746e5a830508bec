"""Decides what to do next for the containers of one service. Pure: the same world gives the same plan."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta

from api.conditions import Reason, Status
from api.resolve import ResolvedComponent, ResolvedService
from api.service import ContainerState, Finalizer, Service
from reconcilers.base import CONVERGED, Action, Outcome, Plan
from reconcilers.containers.actions import Drain, Promote, Stop
from reconcilers.containers.restarts import RestartBackoff
from reconcilers.containers.rollout import Cast, cast, drained, remove, step
from reconcilers.containers.world import Step, World

_INACTIVE = "the definition says active = false"


def plan(service: Service, resolved: ResolvedService, world: World, backoff: RestartBackoff) -> Plan:
    """The next actions for a service that is to exist."""
    dropped = Step(tuple(_dropped(service, resolved, world)), CONVERGED)
    components = sorted(resolved.components, key=lambda component: component.name in world.failed)
    steps = [
        step(service, resolved, component, world, backoff) if component.active else _stopped(service, component, world)
        for component in components
    ]
    return _joined([dropped, *steps])


def plan_deletion(service: Service, components: Mapping[str, ResolvedComponent], world: World) -> Plan:
    """The next actions for a service on its way out; `components` are those of which more is known than their names."""
    if Finalizer.ROUTES in service.finalizers:
        return Plan((), Outcome(Status.FALSE, Reason.TERMINATING, "waits until its routes are gone"))
    left = world.observation.owned(world.node, service.name)
    # Components may share a folder: it goes with the last of them.
    folders = {name: component.derived_volume for name, component in components.items() if component.derived_volume}
    last = {folders[container.component]: container.id for container in left if container.component in folders}
    actions: list[Action] = []
    pauses: list[timedelta] = []
    for container in left:
        folder = next((folder for folder, container_id in last.items() if container_id == container.id), "")
        known = components.get(container.component)
        match drained(known, container, world, "the service is deleted") if known is not None else None:
            case Drain() as drain:
                actions.append(drain)
            case timedelta() as pause:
                pauses.append(pause)
            case None:
                actions.append(remove(container, "the service is deleted", folder))
    if not left:
        return Plan((), CONVERGED)
    message = "waits for open connections to end" if pauses else "is being removed"
    return Plan(tuple(actions), Outcome(Status.FALSE, Reason.TERMINATING, message, min(pauses, default=None)))


def _stopped(service: Service, component: ResolvedComponent, world: World) -> Step:
    """What a component needs that is to be stopped, alone or with its service: one container that does not run."""
    found = cast(service.name, component.container_name, world)
    # One that is stopped alone is as it should be, and holds up nothing.
    outcome = CONVERGED if service.spec.active else Outcome(Status.FALSE, Reason.STOPPED, "stopped, as defined")
    actions = list(_superfluous(component, found))
    if found.current is None or found.current.state not in (ContainerState.RUNNING, ContainerState.PAUSED):
        return Step(tuple(actions), outcome)
    stop = Stop(component=component.name, name=found.current.name, cause=_INACTIVE, container_id=found.current.id)
    led_to = any(claim.component == component.name and claim.backend for claim in service.claims)
    reason = Reason.PROGRESSING if service.spec.active else Reason.STOPPED
    message = f"{found.current.name} waits for its open connections to end"
    match drained(component, found.current, world, _INACTIVE, led_to=led_to):
        case Drain() as drain:
            return Step((*actions, drain), Outcome(Status.FALSE, reason, message))
        case timedelta() as left:
            return Step(tuple(actions), Outcome(Status.FALSE, reason, message, left))
    return Step((*actions, stop), outcome)


def _superfluous(component: ResolvedComponent, found: Cast) -> Iterator[Action]:
    """What an update left that a stop broke off."""
    spare = [one for one in (found.next, found.old) if one is not None]
    if found.current is None and spare:
        yield Promote(
            component=component.name, name=component.container_name, cause=_INACTIVE, container_id=spare.pop().id
        )
    for one in spare:
        yield remove(one, _INACTIVE, outlived=True)


def _dropped(service: Service, resolved: ResolvedService, world: World) -> Iterator[Action]:
    parts = frozenset[str]().union(*(cast(service.name, c.container_name, world).ids for c in resolved.components))
    for container in world.observation.owned(world.node, service.name):
        if container.id not in parts:
            yield remove(container, "the definition has no such component any more")


def _joined(steps: Iterable[Step]) -> Plan:
    """All actions in order; of the outcomes the one that needs most attention, and the earliest time to look again."""
    steps = tuple(steps)
    worst = max((step.outcome for step in steps), key=_attention)
    waits = [step.outcome.requeue_after for step in steps if step.outcome.requeue_after is not None]
    outcome = Outcome(worst.status, worst.reason, worst.message, min(waits, default=None))
    return Plan(tuple(action for step in steps for action in step.actions), outcome)


def _attention(outcome: Outcome) -> tuple[bool, bool, bool]:
    return (outcome.reason.needs_a_person, outcome.status is not Status.TRUE, bool(outcome.message))
