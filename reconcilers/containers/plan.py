"""Decides what to do next for the containers of one service. Pure: the same world gives the same plan."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from api.conditions import ConditionType, Reason, Status
from api.resolve import ResolvedComponent, ResolvedService
from api.service import ContainerState, Finalizer, Service
from reconcilers.base import CONVERGED, Action, Outcome, Plan
from reconcilers.containers import model
from reconcilers.containers.actions import Create, Remove, Replace, Start, Stop, Unpause
from reconcilers.containers.model import ContainerObservation, Observation
from reconcilers.containers.request import ContainerRequest, missing_ports, request_for
from reconcilers.containers.restarts import ENDS_UNTIL_FAILED, RestartBackoff, wanted_again


@dataclass(frozen=True, slots=True)
class World:
    """All that a plan depends on beside the service."""

    node: str
    observation: Observation
    ready: frozenset[str]
    """The ids of the containers that accept connections on all their routes."""
    now: datetime
    last_words: Mapping[str, str] = field(default_factory=dict)
    """The end of the log of containers that ended, by id."""
    unwell: Mapping[str, str] = field(default_factory=dict)
    """Containers whose health check failed so often that it counts, by id, with the last failure."""
    newest: Mapping[str, str] = field(default_factory=dict)
    """The id of the image that a reference stands for now, where it was asked for."""
    failed: frozenset[str] = frozenset()
    """The components for which the last action failed: they come after the others, which they must not hold up."""


@dataclass(frozen=True, slots=True)
class _Step:
    """What one component needs, and how it then is."""

    actions: tuple[Action, ...]
    outcome: Outcome


def plan(service: Service, resolved: ResolvedService, world: World, backoff: RestartBackoff) -> Plan:
    """The next actions for a service that is to exist."""
    if not resolved.active:
        return _stopped(service, resolved, world)
    dropped = _Step(_dropped(service, resolved, world), CONVERGED)
    components = sorted(resolved.components, key=lambda component: component.name in world.failed)
    steps = [_component(service, resolved, component, world, backoff) for component in components]
    return _joined([dropped, *steps])


def plan_deletion(service: Service, folders: Mapping[str, str], world: World) -> Plan:
    """The next actions for a service on its way out; `folders` are the derived volume folders by component."""
    if Finalizer.ROUTES in service.finalizers:
        return Plan((), Outcome(Status.FALSE, Reason.TERMINATING, "waits until its routes are gone"))
    left = world.observation.owned(world.node, service.name)
    # Components may share a folder: it goes with the last of them.
    last = {folders[container.component]: container.id for container in left if container.component in folders}
    actions = tuple(
        _remove(
            container,
            "the service is deleted",
            next((folder for folder, container_id in last.items() if container_id == container.id), ""),
        )
        for container in left
    )
    return Plan(actions, Outcome(Status.FALSE, Reason.TERMINATING, "is being removed") if actions else CONVERGED)


def _stopped(service: Service, resolved: ResolvedService, world: World) -> Plan:
    stops = tuple(
        Stop(
            component=container.component,
            name=container.name,
            cause="the definition says active = false",
            container_id=container.id,
        )
        for container in _kept(service, resolved, world)
        if container.state in (ContainerState.RUNNING, ContainerState.PAUSED)
    )
    outcome = Outcome(Status.FALSE, Reason.STOPPED, "stopped, as defined")
    return Plan((*_dropped(service, resolved, world), *stops), outcome)


def _kept(service: Service, resolved: ResolvedService, world: World) -> list[ContainerObservation]:
    names = {component.container_name for component in resolved.components}
    return [c for c in world.observation.owned(world.node, service.name) if c.name in names]


def _dropped(service: Service, resolved: ResolvedService, world: World) -> tuple[Action, ...]:
    kept = _kept(service, resolved, world)
    return tuple(
        _remove(container, "the definition has no such component any more", "")
        for container in world.observation.owned(world.node, service.name)
        if container not in kept
    )


def _remove(container: ContainerObservation, cause: str, folder: str) -> Remove:
    return Remove(
        component=container.component,
        name=container.name,
        cause=cause,
        container_id=container.id,
        networks=container.networks,
        folder=folder,
    )


def _component(
    service: Service, resolved: ResolvedService, component: ResolvedComponent, world: World, backoff: RestartBackoff
) -> _Step:
    if waiting := missing_ports(service, component):
        names = ", ".join(waiting)
        return _waits(Reason.WAITING_FOR_PORTS, f"{component.container_name}: no port yet for route {names}")
    request = request_for(service, resolved, component, world.node)
    found = world.observation.named(request.name)
    if found is None:
        return _create(service, request)
    if not found.owned_by(world.node) or found.service != service.name:
        return _conflict(found, world.node)
    if found.forsaken:
        return _replace(found, request, "it ended, and the engine lost track of it")
    if found.labels.get(model.SPEC_HASH) != request.spec_hash:
        changes = [_change(name, found, request) for name in request.changes_since(found.labels)]
        return _replace(found, request, "; ".join(changes) or "it was made for another definition")
    return _existing(service, component, found, world, backoff)


def _create(service: Service, request: ContainerRequest) -> _Step:
    known = service.component(request.component)
    cause = "it is gone" if known is not None and known.container_id else ""
    return _acts(Create(component=request.component, name=request.name, cause=cause, request=request))


def _conflict(found: ContainerObservation, node: str) -> _Step:
    holder = f"service {found.service}" if found.owned_by(node) else "a stranger"
    message = f"{holder} holds the container name {found.name} (container {found.id[:12]}), which stays untouched"
    return _Step((), Outcome(Status.FALSE, Reason.CONFLICT, message))


def _replace(found: ContainerObservation, request: ContainerRequest, cause: str) -> _Step:
    return _acts(
        Replace(
            component=request.component,
            name=request.name,
            cause=cause,
            request=request,
            container_id=found.id,
            leaves=found.networks,
        )
    )


def _change(name: str, found: ContainerObservation, request: ContainerRequest) -> str:
    return f"image {found.image} -> {request.image}" if name == "image" else f"{name} changed"


def _existing(
    service: Service,
    component: ResolvedComponent,
    found: ContainerObservation,
    world: World,
    backoff: RestartBackoff,
) -> _Step:
    match found.state:
        case ContainerState.RUNNING if found.id in world.ready:
            return _Step((), _settled(service, found, world, backoff))
        case ContainerState.RUNNING:
            ports = ", ".join(str(served.port) for served in found.routes)
            return _waits(Reason.PROGRESSING, f"{found.name} runs; waits until it listens on {ports}")
        case ContainerState.PAUSED:
            return _acts(
                Unpause(
                    component=component.name,
                    name=found.name,
                    cause="it is paused",
                    container_id=found.id,
                    ports=found.routes,
                )
            )
        case ContainerState.CREATED:
            return _acts(_start(component, found, "it was created, but never started", 0))
        case ContainerState.EXITED:
            return _ended(service, component, found, world, backoff)
        case _:
            # On its way somewhere: an event says when it is there.
            return _waits(Reason.PROGRESSING, f"{found.name} is {found.state}")


def _settled(service: Service, found: ContainerObservation, world: World, backoff: RestartBackoff) -> Outcome:
    known = service.component(found.component)
    if known is None or not known.restarts or found.started_at is None:
        return CONVERGED
    quiet_in = found.started_at + backoff.quiet - world.now
    # Looked at once more when its restarts are to be forgotten.
    return Outcome(Status.TRUE, Reason.CONVERGED, requeue_after=quiet_in) if quiet_in.total_seconds() > 0 else CONVERGED


def _ended(
    service: Service,
    component: ResolvedComponent,
    found: ContainerObservation,
    world: World,
    backoff: RestartBackoff,
) -> _Step:
    exited = f"exited with {found.exit_code}"
    before = service.condition(ConditionType.CONTAINERS_RUNNING)
    if before is not None and before.reason is Reason.STOPPED:
        return _acts(_start(component, found, "the definition says active = true again", 0))
    if not wanted_again(component.restart, found.exit_code):
        if found.exit_code == 0:
            return _Step((), Outcome(Status.TRUE, Reason.CONVERGED, f"{found.name} completed"))
        message = f"{found.name} {exited}, and its restart policy is {component.restart}"
        return _Step((), Outcome(Status.FALSE, Reason.CONTAINER_FAILED, message + _said(found, world)))
    restarts = backoff.counted(service.component(component.name), found, world.now)
    due = backoff.due(restarts, found.started_at)
    if due is None or due <= world.now:
        return _acts(_start(component, found, f"it {exited}", restarts + 1))
    ends = restarts + 1
    reason = Reason.CONTAINER_FAILED if ends >= ENDS_UNTIL_FAILED else Reason.BACKING_OFF
    message = f"{found.name} {exited}, {ends} times in a row; it is started again at {due:%H:%M:%S} UTC"
    return _Step((), Outcome(Status.FALSE, reason, message + _said(found, world), requeue_after=due - world.now))


def _said(found: ContainerObservation, world: World) -> str:
    words = world.last_words.get(found.id, "")
    return f"; it last said: {words}" if words else ""


def _start(component: ResolvedComponent, found: ContainerObservation, cause: str, restarts: int) -> Start:
    return Start(
        component=component.name,
        name=found.name,
        cause=cause,
        container_id=found.id,
        ports=found.routes,
        restarts=restarts,
    )


def _acts(action: Create | Replace | Start | Unpause) -> _Step:
    return _Step((action,), Outcome(Status.FALSE, Reason.PROGRESSING, f"waits until {action.name} is ready"))


def _waits(reason: Reason, message: str) -> _Step:
    return _Step((), Outcome(Status.FALSE, reason, message))


def _joined(steps: Iterable[_Step]) -> Plan:
    """All actions in order; of the outcomes the one that needs most attention, and the earliest time to look again."""
    steps = tuple(steps)
    worst = max((step.outcome for step in steps), key=_attention)
    waits = [step.outcome.requeue_after for step in steps if step.outcome.requeue_after is not None]
    outcome = Outcome(worst.status, worst.reason, worst.message, min(waits, default=None))
    return Plan(tuple(action for step in steps for action in step.actions), outcome)


def _attention(outcome: Outcome) -> tuple[bool, bool, bool]:
    return (outcome.reason.needs_a_person, outcome.status is not Status.TRUE, bool(outcome.message))
