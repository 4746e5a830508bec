"""Keeps the container that a component has: started, well, and restarted ever more slowly. Pure."""

from datetime import timedelta

from api.conditions import ConditionType, Reason, Status
from api.resolve import ResolvedComponent
from api.service import ContainerState, Service
from api.spec import RestartPolicy
from reconcilers.base import CONVERGED, Outcome
from reconcilers.containers.actions import Restart, Start, Unpause
from reconcilers.containers.model import ContainerObservation
from reconcilers.containers.restarts import ENDS_UNTIL_FAILED, RestartBackoff, wanted_again
from reconcilers.containers.world import Step, World, acts, waits


def kept(
    service: Service, component: ResolvedComponent, found: ContainerObservation, world: World, backoff: RestartBackoff
) -> Step:
    """What a container that is as defined needs."""
    match found.state:
        case ContainerState.RUNNING:
            return _running(service, component, found, world, backoff)
        case ContainerState.PAUSED:
            return acts(unpause(component, found))
        case ContainerState.CREATED:
            return acts(start(component, found, "it was created, but never started", 0))
        case ContainerState.EXITED:
            return _ended(service, component, found, world, backoff)
        case _:
            # On its way somewhere: an event says when it is there.
            return waits(Reason.PROGRESSING, f"{found.name} is {found.state}")


def _running(
    service: Service, component: ResolvedComponent, found: ContainerObservation, world: World, backoff: RestartBackoff
) -> Step:
    if found.id in world.unwell and component.restart is not RestartPolicy.NO:
        return _unwell(service, component, found, world, backoff)
    if found.id in world.ready:
        return Step((), _settled(service, found, world, backoff))
    return not_ready(component, found, world)


def completed(component: ResolvedComponent, found: ContainerObservation) -> bool:
    """Whether it did all that it was made for."""
    ended_well = found.state is ContainerState.EXITED and found.exit_code == 0
    return ended_well and not wanted_again(component.restart, 0)


def overdue(component: ResolvedComponent, found: ContainerObservation, world: World) -> timedelta | None:
    """How long it has been past its deadline, negative while there is time; None where it does not run."""
    if not found.running or found.started_at is None:
        return None
    return world.now - found.started_at - component.update.deadline


def not_ready(component: ResolvedComponent, found: ContainerObservation, world: World) -> Step:
    """What is said of a container that runs and is not ready."""
    late = overdue(component, found, world)
    awaited = _awaited(component, found, world)
    if late is not None and late >= timedelta():
        message = f"{found.name} is not ready {_told(component.update.deadline)} after its start: {awaited}"
        return Step((), Outcome(Status.FALSE, Reason.ROLLOUT_FAILED, message + world.said(found)))
    if _should_be_well(component, found, world):
        return waits(Reason.UNHEALTHY, f"{found.name} is not well: {awaited}", late and -late)
    return waits(Reason.PROGRESSING, f"{found.name} runs; {awaited}", late and -late)


def start(component: ResolvedComponent, found: ContainerObservation, cause: str, restarts: int) -> Start:
    """Has a container of the component run."""
    return Start(
        component=component.name,
        name=found.name,
        cause=cause,
        container_id=found.id,
        ports=found.routes,
        restarts=restarts,
    )


def unpause(component: ResolvedComponent, found: ContainerObservation) -> Unpause:
    """Has a paused container of the component go on."""
    return Unpause(
        component=component.name, name=found.name, cause="it is paused", container_id=found.id, ports=found.routes
    )


def _awaited(component: ResolvedComponent, found: ContainerObservation, world: World) -> str:
    if trouble := world.trouble.get(found.id):
        return trouble
    if component.health is not None:
        return "its health check has not succeeded yet"
    return f"waits until it listens on {', '.join(str(served.port) for served in found.routes)}"


def _should_be_well(component: ResolvedComponent, found: ContainerObservation, world: World) -> bool:
    """Whether its failures count by now."""
    health = component.health
    if health is None or found.id not in world.trouble or found.started_at is None:
        return False
    patience = timedelta(seconds=health.start_period + health.retries * health.interval)
    return world.now >= found.started_at + patience


def _settled(service: Service, found: ContainerObservation, world: World, backoff: RestartBackoff) -> Outcome:
    known = service.component(found.component)
    if known is None or not known.restarts or found.started_at is None:
        return CONVERGED
    quiet_in = found.started_at + backoff.quiet - world.now
    # Looked at once more when its restarts are to be forgotten.
    return Outcome(Status.TRUE, Reason.CONVERGED, requeue_after=quiet_in) if quiet_in.total_seconds() > 0 else CONVERGED


def _unwell(
    service: Service, component: ResolvedComponent, found: ContainerObservation, world: World, backoff: RestartBackoff
) -> Step:
    cause = world.unwell[found.id]
    restarts = backoff.counted(service.component(component.name), found, world.now)
    due = backoff.due(restarts, found.started_at)
    if due is None or due <= world.now:
        return acts(
            Restart(
                component=component.name,
                name=found.name,
                cause=cause,
                container_id=found.id,
                ports=found.routes,
                restarts=restarts + 1,
            )
        )
    failures = restarts + 1
    reason = Reason.CONTAINER_FAILED if failures >= ENDS_UNTIL_FAILED else Reason.UNHEALTHY
    message = f"{found.name}: {cause}, for the {_ordinal(failures)} time; it is restarted at {due:%H:%M:%S} UTC"
    return Step((), Outcome(Status.FALSE, reason, message + world.said(found), due - world.now))


def _ended(
    service: Service, component: ResolvedComponent, found: ContainerObservation, world: World, backoff: RestartBackoff
) -> Step:
    exited = f"exited with {found.exit_code}"
    before = service.condition(ConditionType.CONTAINERS_RUNNING)
    known = service.component(component.name)
    if (before is not None and before.reason is Reason.STOPPED) or (known is not None and known.stopped):
        return acts(start(component, found, "the definition says active = true again", 0))
    if completed(component, found):
        return Step((), Outcome(Status.TRUE, Reason.CONVERGED, f"{found.name} completed"))
    if not wanted_again(component.restart, found.exit_code):
        message = f"{found.name} {exited}, and its restart policy is {component.restart}"
        return Step((), Outcome(Status.FALSE, Reason.CONTAINER_FAILED, message + world.said(found)))
    restarts = backoff.counted(service.component(component.name), found, world.now)
    due = backoff.due(restarts, found.started_at)
    if due is None or due <= world.now:
        return acts(start(component, found, f"it {exited}", restarts + 1))
    ends = restarts + 1
    reason = Reason.CONTAINER_FAILED if ends >= ENDS_UNTIL_FAILED else Reason.BACKING_OFF
    message = f"{found.name} {exited}, {ends} times in a row; it is started again at {due:%H:%M:%S} UTC"
    return Step((), Outcome(Status.FALSE, reason, message + world.said(found), due - world.now))


def _told(span: timedelta) -> str:
    seconds = span.total_seconds()
    return f"{seconds / 60:g} min" if seconds >= 60 and seconds % 60 == 0 else f"{seconds:g} s"


def _ordinal(number: int) -> str:
    return {1: "1st", 2: "2nd", 3: "3rd"}.get(number, f"{number}th")
