"""How the containers of one component take turns: made, replaced, taken over from, given up, restored. Pure.

A component has one container, under its own name. While one takes the place
of another there are two, and what they are called says which part each plays,
so that whoever starts again in the middle knows where it was:

    NAME        the one that serves; in a recreation, the new one
    NAME.next   the new one of a blue-green update, beside the one that serves
    NAME.old    in a recreation, the stopped old one, until the new one is ready

No component can have such a name: it has a dot.
"""

from dataclasses import dataclass
from datetime import timedelta

from api.conditions import Reason, Status
from api.resolve import ResolvedComponent, ResolvedService
from api.service import ContainerState, Service
from reconcilers.base import Action, Outcome
from reconcilers.containers import model
from reconcilers.containers.actions import Create, Drain, GiveUp, Promote, Remove, Replace, Restore
from reconcilers.containers.engine.request import RESTART, ContainerRequest, missing_ports, request_for
from reconcilers.containers.lifecycle import completed, kept, not_ready, overdue, start, unpause
from reconcilers.containers.model import ContainerObservation
from reconcilers.containers.order import awaited
from reconcilers.containers.restarts import RestartBackoff
from reconcilers.containers.world import Step, World, acts, waits

SETTLES = timedelta(seconds=3)
"""A new container that ends so soon has failed: the one before it is kept until then."""


@dataclass(frozen=True, slots=True)
class Cast:
    """The containers of one component, by the part that each plays."""

    current: ContainerObservation | None
    next: ContainerObservation | None
    old: ContainerObservation | None

    @property
    def ids(self) -> frozenset[str]:
        """Of all of them."""
        return frozenset(one.id for one in (self.current, self.next, self.old) if one is not None)


def cast(service: str, name: str, world: World) -> Cast:
    """The containers that play a part for the component whose container is called `name`."""

    def ours(called: str) -> ContainerObservation | None:
        found = world.observation.named(called)
        return found if found is not None and found.owned_by(world.node) and found.service == service else None

    return Cast(ours(name), ours(name + model.NEXT), ours(name + model.OLD))


def step(
    service: Service, resolved: ResolvedService, component: ResolvedComponent, world: World, backoff: RestartBackoff
) -> Step:
    """What a component needs whose service is to run."""
    name = component.container_name
    holder = world.observation.named(name)
    if holder is not None and (not holder.owned_by(world.node) or holder.service != service.name):
        return _conflict(holder, world.node)
    return _Turn(service, resolved, component, world, backoff, cast(service.name, name, world)).step()


def drained(
    component: ResolvedComponent, found: ContainerObservation, world: World, cause: str, *, led_to: bool = False
) -> Drain | timedelta | None:
    """What to do before a container is ended: drain it, wait so long, or, None, nothing, as nobody is connected.

    `led_to`: a route may still bring it new connections, but will not for long.
    """
    if not found.running or not found.routes or not component.update.drain:
        return None
    if not led_to and found.id not in world.busy:
        return None
    since = world.draining.get(found.id)
    if since is None:
        return Drain(
            component=component.name,
            name=found.name,
            cause=cause,
            container_id=found.id,
            patience=component.update.drain,
        )
    left = since + component.update.drain - world.now
    return left if left > timedelta() else None


def remove(found: ContainerObservation, cause: str, folder: str = "", *, outlived: bool = False) -> Remove:
    """Takes a container of ours away."""
    return Remove(
        component=found.component,
        name=found.name,
        cause=cause,
        container_id=found.id,
        networks=found.networks,
        folder=folder,
        outlived=outlived,
    )


@dataclass(frozen=True, slots=True)
class _Turn:
    """One look at one component."""

    service: Service
    resolved: ResolvedService
    component: ResolvedComponent
    world: World
    backoff: RestartBackoff
    cast: Cast

    def step(self) -> Step:
        """What comes next."""
        if self.cast.next is not None:
            return self._beside(self.cast.next)
        if self.cast.old is not None:
            return self._after(self.cast.old)
        if self.cast.current is not None:
            return self._alone(self.cast.current)
        request = self._request(0)
        return self._without_ports(0) if request is None else self._create(request, self._gone())

    def _alone(self, current: ContainerObservation) -> Step:
        """One container, which may have to give way."""
        same = self._request(current.slot)
        if same is not None and self._is_as(current, same):
            return self._as_defined(current)
        slot = 1 - current.slot if self.component.update.blue_green and self.component.routes else 0
        target = self._request(slot)
        if target is None:
            return self._without_ports(slot)
        if self._is_given_up(target):
            return self._instead(current)
        cause = self._changes(current, same or target)
        if current.forsaken:
            cause = "it ended, and the engine lost track of it"
        return self._give_way(current, target, cause)

    def _give_way(self, current: ContainerObservation, target: ContainerRequest, cause: str) -> Step:
        """One container, which is not what is wanted."""
        if current.forsaken or not self._is_fit(current):
            return self._replace(current, target, cause)
        if self.component.update.blue_green:
            beside = current.name + model.NEXT
            return acts(Create(component=self.component.name, name=beside, cause=cause, request=target.named(beside)))
        return self._replace(current, target, cause, aside=current.name + model.OLD)

    def _as_defined(self, current: ContainerObservation) -> Step:
        """One container, which only has to run."""
        step = kept(self.service, self.component, current, self.world, self.backoff)
        if not step.actions or current.state not in (ContainerState.CREATED, ContainerState.EXITED):
            return step
        missing = awaited(self.resolved, self.component, self.world)
        return waits(Reason.WAITING_FOR_DEPENDENCY, f"{current.name} waits for {missing}") if missing else step

    def _instead(self, current: ContainerObservation) -> Step:
        """What was wanted failed, and what was there before goes on."""
        going_on = kept(self.service, self.component, current, self.world, self.backoff)
        known = self.service.component(self.component.name)
        message = known.failure if known is not None else ""
        return Step(
            going_on.actions,
            Outcome(Status.FALSE, Reason.ROLLOUT_FAILED, message, going_on.outcome.requeue_after),
        )

    def _beside(self, newcomer: ContainerObservation) -> Step:
        """A new container beside the one that serves, or that served."""
        current = self.cast.current
        request = self._request(newcomer.slot)
        wanted = request is not None and self._is_as(newcomer, request) and not self._is_given_up(request)
        if self._serves(newcomer):
            return self._take_over(newcomer, current, wanted=wanted)
        if not wanted or request is None:
            return acts(remove(newcomer, "another one is wanted", outlived=True))
        if current is None:
            # There is nothing to go back to: it is the component's container, come what may.
            return Step((self._promote(newcomer, ""),), Outcome(Status.FALSE, Reason.PROGRESSING))
        step = self._awaited(newcomer, request)
        going_on = kept(self.service, self.component, current, self.world, self.backoff)
        return step.after(*going_on.actions)

    def _take_over(self, newcomer: ContainerObservation, current: ContainerObservation | None, *, wanted: bool) -> Step:
        """Routes first, then the old one's last connections, then its name."""
        rest = Outcome(Status.TRUE, Reason.CONVERGED)
        cause = self._changes(current, self._request(current.slot)) if current is not None else ""
        promote = self._promote(newcomer, cause)
        if current is None:
            return Step((promote,), rest)
        if not self._is_led_to(newcomer):
            return waits(Reason.PROGRESSING, f"{newcomer.name} is ready; waits until its routes lead to it")
        if wanted and (left := self._settles_in(newcomer)):
            return Step((), Outcome(Status.TRUE, Reason.CONVERGED, requeue_after=left))
        match drained(self.component, current, self.world, f"{newcomer.name} has taken over"):
            case Drain() as drain:
                return Step((drain,), rest)
            case timedelta() as left:
                message = f"{current.name} waits for its open connections to end"
                return Step((), Outcome(Status.TRUE, Reason.CONVERGED, message, left))
        return Step((remove(current, "another one has taken over", outlived=True), promote), rest)

    def _promote(self, newcomer: ContainerObservation, cause: str) -> Promote:
        return Promote(
            component=self.component.name,
            name=self.component.container_name,
            cause=cause,
            container_id=newcomer.id,
        )

    def _after(self, old: ContainerObservation) -> Step:
        """A recreation under way: the old container is set aside."""
        current, request = self.cast.current, self._request(0)
        if request is None:
            return self._without_ports(0)
        if current is None:
            return self._instead_of(old, request)
        if not self._is_as(current, request):
            return self._replace(current, request, self._changes(current, request))
        if self._is_given_up(request):
            return acts(remove(current, "it failed", outlived=True))
        if self._serves(current):
            left = self._settles_in(current)
            actions = () if left else (remove(old, f"{current.name} is ready", outlived=True),)
            return Step(actions, Outcome(Status.TRUE, Reason.CONVERGED, requeue_after=left))
        return self._awaited(current, request)

    def _instead_of(self, old: ContainerObservation, request: ContainerRequest) -> Step:
        """The old container is set aside, and the new one is not there."""
        if self._is_given_up(request):
            return Step((self._restore(old, "the one that was to replace it failed"),), self._failed())
        if self._is_as(old, request):
            return acts(self._restore(old, "it is wanted again"))
        if refusal := self.world.refused.get(self.component.name):
            return self._given_up(None, request, refusal)
        return self._create(request, self._changes(old, request))

    def _awaited(self, newcomer: ContainerObservation, request: ContainerRequest) -> Step:
        """A new container on its way, while there is one to go back to."""
        if failure := self._failure(newcomer):
            return self._given_up(newcomer, request, failure)
        match newcomer.state:
            case ContainerState.CREATED:
                return acts(start(self.component, newcomer, "it was created, but never started", 0))
            case ContainerState.PAUSED:
                return acts(unpause(self.component, newcomer))
            case ContainerState.RUNNING:
                return not_ready(self.component, newcomer, self.world)
            case _:
                return waits(Reason.PROGRESSING, f"{newcomer.name} is {newcomer.state}")

    def _failure(self, newcomer: ContainerObservation) -> str:
        late = overdue(self.component, newcomer, self.world)
        if newcomer.forsaken:
            problem = "ended, and the engine lost track of it"
        elif newcomer.state is ContainerState.EXITED:
            problem = f"exited with {newcomer.exit_code}"
        elif newcomer.state is ContainerState.CREATED and self.component.name in self.world.refused:
            return self.world.refused[self.component.name]
        elif late is not None and late >= timedelta():
            return not_ready(self.component, newcomer, self.world).outcome.message
        else:
            return ""
        return f"{newcomer.name} {problem}{self.world.said(newcomer)}"

    def _given_up(self, newcomer: ContainerObservation | None, request: ContainerRequest, failure: str) -> Step:
        action = GiveUp(
            component=self.component.name,
            name=newcomer.name if newcomer is not None else request.name,
            cause=failure,
            container_id=newcomer.id if newcomer is not None else "",
            networks=newcomer.networks if newcomer is not None else (),
            generation=self.service.generation,
            request=self._identity(request),
        )
        return Step((action,), Outcome(Status.FALSE, Reason.ROLLOUT_FAILED, failure))

    def _restore(self, old: ContainerObservation, cause: str) -> Action:
        return Restore(
            component=self.component.name,
            name=self.component.container_name,
            cause=cause,
            container_id=old.id,
            ports=old.routes,
        )

    def _failed(self) -> Outcome:
        known = self.service.component(self.component.name)
        return Outcome(Status.FALSE, Reason.ROLLOUT_FAILED, known.failure if known is not None else "")

    def _create(self, request: ContainerRequest, cause: str) -> Step:
        if missing := awaited(self.resolved, self.component, self.world):
            return waits(Reason.WAITING_FOR_DEPENDENCY, f"{request.name} waits for {missing}")
        return acts(Create(component=self.component.name, name=request.name, cause=cause, request=request))

    def _replace(self, found: ContainerObservation, request: ContainerRequest, cause: str, aside: str = "") -> Step:
        return acts(
            Replace(
                component=self.component.name,
                name=request.name,
                cause=cause or "it was made for another definition",
                request=request,
                container_id=found.id,
                leaves=found.networks,
                aside=aside,
            )
        )

    def _request(self, slot: int) -> ContainerRequest | None:
        """What is asked for in that slot; None while it lacks a port."""
        if missing_ports(self.service, self.component, slot):
            return None
        return request_for(self.service, self.resolved, self.component, self.world.node, slot)

    def _without_ports(self, slot: int) -> Step:
        names = ", ".join(missing_ports(self.service, self.component, slot))
        return waits(Reason.WAITING_FOR_PORTS, f"{self.component.container_name}: no port yet for route {names}")

    def _is_as(self, found: ContainerObservation, request: ContainerRequest) -> bool:
        same = found.labels.get(model.SPEC_HASH) == request.spec_hash and not found.forsaken
        return same and not self._has_moved(found, request)

    def _has_moved(self, found: ContainerObservation, request: ContainerRequest) -> bool:
        newest = self.world.newest.get(request.image)
        return newest is not None and found.image == request.image and found.image_id not in ("", newest)

    def _changes(self, found: ContainerObservation | None, request: ContainerRequest | None) -> str:
        """What is asked for otherwise than it was for `found`."""
        if found is None or request is None:
            return ""
        changes = [self._change(name, found, request) for name in request.changes_since(found.labels)]
        if not changes and self._has_moved(found, request):
            changes = [f"the tag {request.image} moved"]
        return "; ".join(changes)

    def _change(self, name: str, found: ContainerObservation, request: ContainerRequest) -> str:
        if name == "image":
            return f"image {found.image} -> {request.image}"
        return f"restart asked by {self.service.actor}" if name == RESTART else f"{name} changed"

    def _gone(self) -> str:
        known = self.service.component(self.component.name)
        return "it is gone" if known is not None and known.container_id else ""

    def _identity(self, request: ContainerRequest) -> str:
        """Tells the wish, and the image that it stands for now; a port that changed makes no other one of it."""
        return f"{self.service.generation}/{self.world.newest.get(request.image, '')[:12]}"

    def _is_given_up(self, request: ContainerRequest) -> bool:
        known = self.service.component(self.component.name)
        return known is not None and known.failed_request == self._identity(request)

    def _is_fit(self, found: ContainerObservation) -> bool:
        """Whether it is worth going back to."""
        known = self.service.component(self.component.name)
        was_ready = known is not None and known.container_id == found.id and known.ready
        return found.id in self.world.ready or (found.running and was_ready)

    def _serves(self, found: ContainerObservation) -> bool:
        return found.id in self.world.ready or completed(self.component, found)

    def _is_led_to(self, newcomer: ContainerObservation) -> bool:
        """Whether no route of the component leads elsewhere any more."""
        backends = {f"127.0.0.1:{served.port}" for served in newcomer.routes}
        claims = [claim for claim in self.service.claims if claim.component == self.component.name]
        return all(not claim.backend or claim.backend in backends for claim in claims)

    def _settles_in(self, found: ContainerObservation) -> timedelta | None:
        """How long it must last yet; None where it lasted."""
        if found.started_at is None or not found.running:
            return None
        left = found.started_at + SETTLES - self.world.now
        return left if left > timedelta() else None


def _conflict(found: ContainerObservation, node: str) -> Step:
    holder = f"service {found.service}" if found.owned_by(node) else "a stranger"
    message = f"{holder} holds the container name {found.name} (container {found.id[:12]}), which stays untouched"
    return Step((), Outcome(Status.FALSE, Reason.CONFLICT, message))
