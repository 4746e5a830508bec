"""Keeps each component's container as its definition says: observe, plan, act."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import ClassVar

from api.conditions import ConditionType, Reason
from api.resolve import Defaults, ResolvedService
from api.service import Component, ContainerState, FieldChange, Finalizer, ServedPort, Service
from reconcilers.base import Action, Clock, Plan, Terminal, Transient
from reconcilers.containers import differences, model
from reconcilers.containers.actions import (
    ContainerAction,
    Create,
    Drain,
    GiveUp,
    Promote,
    Remove,
    Replace,
    Restart,
    Restore,
    Start,
    Stop,
    Unpause,
)
from reconcilers.containers.engine.podman import Engine
from reconcilers.containers.engine.transport import EngineError
from reconcilers.containers.execute import Executor
from reconcilers.containers.guard import Guard
from reconcilers.containers.images.presence import Images, ImageSettings
from reconcilers.containers.model import Observation
from reconcilers.containers.plan import plan, plan_deletion
from reconcilers.containers.restarts import RestartBackoff
from reconcilers.containers.sight import Sight
from reconcilers.containers.watching.drain import Drains
from reconcilers.containers.watching.picture import Picture
from reconcilers.containers.watching.probe import Prober
from reconcilers.containers.watching.record import ContainerRegistry, Recorder, observed
from reconcilers.containers.watching.waiting import Waiting
from reconcilers.containers.world import World
from reconcilers.definition import resolved

_SPEAKING = frozenset({Reason.BACKING_OFF, Reason.CONTAINER_FAILED, Reason.ROLLOUT_FAILED, Reason.UNHEALTHY})
"""What a container said last is asked for only where it helps a person."""


class Containers:
    """The containers reconciler. `run` keeps its picture of the world; the driver does the rest."""

    name: ClassVar[str] = "containers"
    condition: ClassVar[ConditionType] = ConditionType.CONTAINERS_RUNNING
    finalizer: ClassVar[Finalizer] = Finalizer.CONTAINERS

    def __init__(
        self,
        registry: ContainerRegistry,
        engine: Engine,
        picture: Picture,
        prober: Prober,
        node: str,
        defaults: Defaults,
        backoff: RestartBackoff,
        clock: Clock,
        wake: Callable[[str], None],
        guard: Guard,
        images: ImageSettings | None = None,
    ) -> None:
        """`wake` is called with the name of each service that must be looked at again."""
        self._engine = engine
        self._picture = picture
        self._node = node
        self._defaults = defaults
        self._backoff = backoff
        self._wake = wake
        self._guard = guard
        self._images = Images(engine, picture, registry, defaults, images or ImageSettings(), clock, wake)
        self._prober = prober
        self._drains = Drains(clock, wake)
        self._sight = Sight(node, registry, engine, picture, prober, self._drains, self._images, defaults, clock)
        self._recorder = Recorder(registry, self._sight.attend, backoff)
        self._executor = Executor(registry, engine, picture, self._images, self._drains, node, guard)
        self._names: dict[str, set[str]] = {}
        self._blind: set[str] = set()
        self._failed: dict[str, set[str]] = {}
        self._refused: dict[str, dict[str, str]] = {}
        self._waiting = Waiting()
        picture.listen(prober.follow)
        picture.listen(self._drains.follow)
        picture.listen(self._sight.follow)
        picture.listen(self._picture_changed)
        prober.listen(self._changed)

    async def run(self) -> None:
        """Observes until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._picture.run(), name="picture")
            tasks.create_task(self._prober.run(), name="prober")
            tasks.create_task(self._recorder.run(), name="recorder")
            tasks.create_task(self._images.run(), name="images")
            tasks.create_task(self._drains.run(), name="drains")

    @property
    def waiting(self) -> Waiting:
        """Which services wait for others."""
        return self._waiting

    async def plan(self, service: Service, *, attend: bool = True) -> Plan:
        """See Reconciler. Raises Transient while the picture is unknown, Terminal for a definition wrong here."""
        try:
            observation = await self._picture.known()
        except Transient:
            if attend:
                self._blind.add(service.name)
            raise
        # Nobody may have attended to the service yet since the agent started.
        self._prober.recall(service.components)
        if attend:
            self._sight.remember(service)
        world = self._sight.world(service, observation)
        if service.deleting:
            world = await self._sight.with_connections(service.name, world)
            return await self._plan_deletion(service, world, attend=attend)
        definition = resolved(service, self._defaults)
        if attend:
            self._follow(service, definition)
        leads = self._waits_for_routes(service, world)
        if leads:
            world = await self._sight.with_connections(service.name, world)
        world = replace(
            world,
            unready=await self._sight.unready(definition, world),
            refused=self._refused.get(service.name, {}),
            failed=frozenset(self._failed.get(service.name, ())),
        )
        planned = plan(service, definition, world, self._backoff)
        if planned.outcome.reason in _SPEAKING:
            world = await self._sight.with_last_words(service, world)
            planned = plan(service, definition, world, self._backoff)
        if attend:
            self._note(service, definition, world)
        return self._guard.admitted(planned)

    async def execute(self, service: Service, action: Action) -> None:
        """See Reconciler."""
        if not isinstance(action, ContainerAction):
            raise TypeError(f"{type(action).__name__} is not an action on containers")
        failed = self._failed.setdefault(service.name, set())
        try:
            await self._carry_out(service, action)
        except (Transient, Terminal) as failure:
            if failure.reason is Reason.CONTAINER_REFUSED:
                self._refused.setdefault(service.name, {})[action.component] = failure.message
                # There may be one to go back to.
                self._wake(service.name)
            if action.component not in failed and len(service.spec.components) > 1:
                # The next plan has the other components first, and is made at once.
                failed.add(action.component)
                self._wake(service.name)
            raise
        failed.discard(action.component)
        self._refused.get(service.name, {}).pop(action.component, None)
        # Required: a container that ended again within the second looks as it did before it was started.
        self._changed(service.name)

    async def _carry_out(self, service: Service, action: ContainerAction) -> None:
        match action:
            case Create():
                await self._executor.create(service, action)
            case Replace():
                await self._executor.replace(service, action)
            case Restart():
                await self._recorder.restarting(service.name, action)
                await self._executor.restart(service, action)
            case Start():
                # Side by side: the count is written long before the engine has started anything.
                counting = asyncio.create_task(self._recorder.restarting(service.name, action))
                try:
                    await self._executor.start(service, action)
                finally:
                    await counting
            case Unpause():
                await self._executor.unpause(action.container_id)
            case Stop():
                await self._executor.stop(action.container_id)
            case Remove():
                await self._executor.remove(action)
            case Drain():
                await self._executor.drain(action)
            case Promote():
                await self._executor.promote(action)
            case GiveUp():
                await self._recorder.give_up(service.name, action)
                await self._executor.give_up(action)
            case Restore():
                await self._executor.restore(service, action)

    def assume(self, service: Service, actions: Sequence[Action]) -> Service:
        """See Reconciler: what was made or started runs and is ready."""
        components = {component.name: component for component in service.components}
        for action in actions:
            match action:
                case Create() | Replace():
                    ports = tuple(ServedPort(route=route, port=port) for route, port in action.request.ports)
                    components[action.component] = _running(action, service, action.request.image, ports)
                case Start() | Unpause() | Restore():
                    known = components.get(action.component)
                    image = known.image if known else ""
                    components[action.component] = _running(action, service, image, action.ports)
                case Stop() if action.component in components:
                    stopped = {"state": ContainerState.EXITED, "ready": False}
                    components[action.component] = components[action.component].model_copy(update=stopped)
                case Remove() if not action.outlived:
                    components.pop(action.component, None)
        return service.model_copy(update={"components": tuple(components.values())})

    async def differences(self, action: Action) -> tuple[FieldChange, ...]:
        """See Compares: what the engine says of the one container that is to be replaced or started."""
        with suppress(EngineError, Transient):  # they are a help to a person, and no more
            match action:
                case Replace():
                    return await self._compared(action)
                case Create() if action.cause:
                    return (differences.state(action.component, ContainerState.MISSING),)
                case Start() | Unpause() if seen := self._picture.current().get(action.container_id):
                    return (differences.state(action.component, seen.state),)
        return action.differences()

    async def _compared(self, action: Replace) -> tuple[FieldChange, ...]:
        container = await self._engine.inspect(action.container_id)
        try:
            image = await self._engine.inspect_image(container["Image"])
            return differences.differences(action.request, container, image)
        except (LookupError, TypeError, ValueError, AttributeError):
            # Another version of podman may say it otherwise.
            return ()

    async def _plan_deletion(self, service: Service, world: World, *, attend: bool) -> Plan:
        try:
            components = {component.name: component for component in resolved(service, self._defaults).components}
        except Terminal:
            components = {}
        planned = plan_deletion(service, components, world)
        if planned.actions or planned.outcome.reason is Reason.TERMINATING:
            return planned
        if attend:
            self._forget(service.name)
        # That nothing is left is said only of what was looked at for it.
        return plan_deletion(service, components, self._sight.world(service, await self._picture.refresh()))

    def _follow(self, service: Service, definition: ResolvedService) -> None:
        for component in definition.components:
            self._names.setdefault(component.container_name, set()).add(service.name)
        # Before it is looked whether they are ready: whoever becomes so in between is told of.
        self._waiting.note(service.name, definition.depends_on)

    def _note(self, service: Service, definition: ResolvedService, world: World) -> None:
        """Has written down, and watched, what is not as it was the last time."""
        self._waiting.note(service.name, world.unready)
        watched = self._sight.attends(service, definition, world.observation)
        if not watched or observed(service, world, self._backoff) != service.components:
            self._recorder.touch(service.name)

    def _forget(self, service: str) -> None:
        for name in [name for name, services in self._names.items() if service in services]:
            self._names[name].discard(service)
            if not self._names[name]:
                del self._names[name]
        self._failed.pop(service, None)
        self._refused.pop(service, None)
        self._waiting.note(service, ())
        self._sight.forget(service)

    def _waits_for_routes(self, service: Service, world: World) -> bool:
        """Whether a container may end, or take over, once a route has moved."""
        owned = world.observation.owned(self._node, service.name)
        return any(
            one.name.endswith(model.NEXT) or (one.running and not service.spec.runs(one.component)) for one in owned
        )

    def _picture_changed(self, before: Observation | None, after: Observation | None) -> None:
        if after is None:
            for container in before or ():
                if container.owned_by(self._node):
                    self._wake(container.service)
            return
        for service in self._touched_by(before, after):
            self._changed(service)
        if before is None:
            blind, self._blind = self._blind, set()
            for service in blind:
                self._wake(service)

    def _touched_by(self, before: Observation | None, after: Observation) -> set[str]:
        """The services of the containers that changed, and those that wait for a name which a stranger held."""
        old = {} if before is None else before.containers
        changed = [
            container
            for container_id in old.keys() | after.containers.keys()
            if old.get(container_id) != after.get(container_id)
            for container in (old.get(container_id), after.get(container_id))
            if container is not None
        ]
        owned = {container.service for container in changed if container.owned_by(self._node)}
        return owned.union(*(self._names.get(container.name, ()) for container in changed))

    def _changed(self, service: str) -> None:
        # In this order, as the registry serves one after the other: first who acts, then who writes down.
        self._wake(service)
        self._recorder.touch(service)
        for waiting in self._waiting.waiting_for(service):
            self._wake(waiting)


def _running(
    action: Create | Replace | Start | Unpause | Restore, service: Service, image: str, ports: tuple[ServedPort, ...]
) -> Component:
    return Component(
        name=action.component,
        container_name=action.name,
        image=image,
        state=ContainerState.RUNNING,
        ready=True,
        generation=service.generation,
        ports=ports,
    )
