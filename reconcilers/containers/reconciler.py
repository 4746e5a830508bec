"""Keeps each component's container as its definition says: observe, plan, act."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

from api.conditions import ConditionType, Reason
from api.errors import InvalidSpec
from api.resolve import Defaults, ResolvedService, resolve
from api.service import Component, ContainerState, Finalizer, ServedPort, Service
from reconcilers.base import Action, Clock, Plan, Terminal, Transient
from reconcilers.containers.actions import ContainerAction, Create, Remove, Replace, Start, Stop, Unpause
from reconcilers.containers.execute import Executor
from reconcilers.containers.model import Observation
from reconcilers.containers.picture import Picture
from reconcilers.containers.plan import World, plan, plan_deletion
from reconcilers.containers.podman import Engine, EngineError
from reconcilers.containers.probe import Prober
from reconcilers.containers.pulls import Pulls
from reconcilers.containers.record import ContainerRegistry, Recorder, observed
from reconcilers.containers.restarts import RestartBackoff

_FAILING = frozenset({Reason.BACKING_OFF, Reason.CONTAINER_FAILED})


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
    ) -> None:
        """`wake` is called with the name of each service that must be looked at again."""
        self._engine = engine
        self._picture = picture
        self._prober = prober
        self._node = node
        self._defaults = defaults
        self._backoff = backoff
        self._clock = clock
        self._wake = wake
        self._recorder = Recorder(registry, picture, prober, node, backoff, clock)
        self._pulls = Pulls(engine, wake)
        self._executor = Executor(registry, engine, picture, self._pulls, node)
        self._names: dict[str, set[str]] = {}
        self._blind: set[str] = set()
        self._failed: dict[str, set[str]] = {}
        picture.listen(prober.follow)
        picture.listen(self._picture_changed)
        prober.listen(self._changed)

    async def run(self) -> None:
        """Observes until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._picture.run(), name="picture")
            tasks.create_task(self._prober.run(), name="prober")
            tasks.create_task(self._recorder.run(), name="recorder")
            tasks.create_task(self._pulls.run(), name="pulls")

    async def plan(self, service: Service) -> Plan:
        """See Reconciler. Raises Transient while the picture is unknown, Terminal for a definition wrong here."""
        try:
            world = self._world(await self._picture.known())
        except Transient:
            self._blind.add(service.name)
            raise
        if service.deleting:
            return await self._plan_deletion(service, world)
        resolved = self._resolved(service)
        for component in resolved.components:
            self._names.setdefault(component.container_name, set()).add(service.name)
        world = replace(world, failed=frozenset(self._failed.get(service.name, ())))
        if observed(service, world, self._backoff) != service.components:
            self._recorder.touch(service.name)
        planned = plan(service, resolved, world, self._backoff)
        if planned.outcome.reason in _FAILING:
            return plan(service, resolved, await self._with_last_words(service, world), self._backoff)
        return planned

    async def execute(self, service: Service, action: Action) -> None:
        """See Reconciler."""
        if not isinstance(action, ContainerAction):
            raise TypeError(f"{action!r} is not an action on containers")
        failed = self._failed.setdefault(service.name, set())
        try:
            await self._carry_out(service, action)
        except (Transient, Terminal):
            if action.component not in failed and len(service.spec.components) > 1:
                # The next plan has the other components first, and is made at once.
                failed.add(action.component)
                self._wake(service.name)
            raise
        failed.discard(action.component)
        # Required: a container that ended again within the second looks as it did before it was started.
        self._changed(service.name)

    async def _carry_out(self, service: Service, action: ContainerAction) -> None:
        match action:
            case Create():
                await self._executor.create(service, action)
            case Replace():
                await self._executor.replace(service, action)
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

    def assume(self, service: Service, actions: Sequence[Action]) -> Service:
        """See Reconciler: what was made or started runs and is ready."""
        components = {component.name: component for component in service.components}
        for action in actions:
            match action:
                case Create() | Replace():
                    ports = tuple(ServedPort(route=route, port=port) for route, port in action.request.ports)
                    components[action.component] = _running(action, service, action.request.image, ports)
                case Start() | Unpause():
                    known = components.get(action.component)
                    image = known.image if known else ""
                    components[action.component] = _running(action, service, image, action.ports)
                case Stop() if action.component in components:
                    stopped = {"state": ContainerState.EXITED, "ready": False}
                    components[action.component] = components[action.component].model_copy(update=stopped)
                case Remove():
                    components.pop(action.component, None)
        return service.model_copy(update={"components": tuple(components.values())})

    async def _plan_deletion(self, service: Service, world: World) -> Plan:
        try:
            resolved = self._resolved(service).components
        except Terminal:
            resolved = ()
        folders = {component.name: component.derived_volume for component in resolved if component.derived_volume}
        planned = plan_deletion(service, folders, world)
        if planned.actions or planned.outcome.reason is Reason.TERMINATING:
            return planned
        self._failed.pop(service.name, None)
        # That nothing is left is said only of what was looked at for it.
        return plan_deletion(service, folders, self._world(await self._picture.refresh()))

    def _world(self, observation: Observation) -> World:
        return World(self._node, observation, self._prober.ready, self._clock())

    def _resolved(self, service: Service) -> ResolvedService:
        try:
            return resolve(service.spec, self._defaults)
        except InvalidSpec as error:
            raise Terminal(Reason.INVALID_SPEC, f"{error.field}: {error.message}") from error

    async def _with_last_words(self, service: Service, world: World) -> World:
        words = {}
        for container in world.observation.owned(self._node, service.name):
            if container.state is ContainerState.EXITED:
                try:
                    words[container.id] = await self._engine.last_words(container.id)
                except (EngineError, Transient):
                    continue  # they are a help to a person, and no more
        return replace(world, last_words=words)

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


def _running(
    action: Create | Replace | Start | Unpause, service: Service, image: str, ports: tuple[ServedPort, ...]
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
