"""Writes down what is observed of each component, as soon as it is observed.

It waits for no worker: a container that became ready is in the registry, and
with that on the way to its route, while others are still being created. What
is written follows from the picture alone, so that it can be written again at
any time; only the count of restarts is remembered rather than seen.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import structlog

from api.errors import RegistryUnavailable
from api.service import Component, ContainerState, Service
from api.spec import container_name
from reconcilers.base import Registry, Transient
from reconcilers.containers import model
from reconcilers.containers.actions import GiveUp, Start
from reconcilers.containers.images.presence import ImagesRegistry
from reconcilers.containers.model import ContainerObservation
from reconcilers.containers.restarts import RestartBackoff
from reconcilers.containers.world import World

log = structlog.get_logger("containers")

_RETRY = 1.0
"""Seconds until a registry that could not be written is tried again."""


class ContainerRegistry(Registry, ImagesRegistry, Protocol):
    """What this reconciler reads beside what every one may."""

    async def service(self, name: str) -> Service | None:
        """The service, or None. Raises RegistryUnavailable."""
        ...


def observed(service: Service, world: World, backoff: RestartBackoff) -> tuple[Component, ...]:
    """The service's components as they are: those that it is to have, then others that are still there."""
    containers: dict[str, ContainerObservation] = {}
    for container in sorted(world.observation.owned(world.node, service.name), key=partial(_merit, world)):
        containers[container.component] = container
    names = dict.fromkeys([*(component.name for component in service.spec.components), *containers])
    return tuple(_observed(service, name, containers.get(name), world, backoff) for name in names)


def _merit(world: World, container: ContainerObservation) -> tuple[bool, int]:
    """Which of a component's containers speaks for it, the last: one that is ready, and of two the newer one."""
    ready = container.id in world.ready
    if container.name.endswith(model.NEXT):
        return ready, 2 if ready else 1
    return ready, 0 if container.name.endswith(model.OLD) else 1 if ready else 2


def _observed(
    service: Service, name: str, container: ContainerObservation | None, world: World, backoff: RestartBackoff
) -> Component:
    known = service.component(name)
    if container is None:
        # Its id stays: a container that is gone is something else than one that never was.
        blank = known or Component(name=name, container_name=container_name(service.name, name))
        gone = {"state": ContainerState.MISSING, "ready": False, "ports": (), "exit_code": None, "message": ""}
        return blank.model_copy(update={**gone, "retry_at": None, **_failure(service, known)})
    ready = container.id in world.ready
    return Component(
        name=name,
        container_name=container.name,
        container_id=container.id,
        image=container.image,
        digest=container.digest,
        slot=container.slot,
        state=container.state,
        ready=ready,
        generation=container.generation,
        ports=container.routes,
        restarts=backoff.counted(known, container, world.now),
        exit_code=container.exit_code,
        started_at=container.started_at,
        retry_at=_retry_at(service, container, world, backoff),
        message=_message(container, world),
        last_words="" if ready else world.last_words.get(container.id, ""),
        stopped=_stopped(service, container, known),
        **_failure(service, known),
    )


def _stopped(service: Service, container: ContainerObservation, known: Component | None) -> bool:
    """It stays so until it runs again: the wish that stopped it may be gone by then."""
    if container.state is not ContainerState.EXITED:
        return False
    was = known is not None and known.stopped and known.container_id == container.id
    return was or not service.spec.runs(container.component)


def _failure(service: Service, known: Component | None) -> dict[str, Any]:
    """What failed in this generation is remembered, and in no other."""
    if known is None or known.failed_generation != service.generation:
        return {"failed_generation": 0, "failed_request": "", "failure": ""}
    return {name: getattr(known, name) for name in ("failed_generation", "failed_request", "failure")}


def _retry_at(
    service: Service, container: ContainerObservation, world: World, backoff: RestartBackoff
) -> datetime | None:
    if container.state is not ContainerState.EXITED or not service.spec.runs(container.component):
        return None
    restarts = backoff.counted(service.component(container.component), container, world.now)
    return backoff.due(restarts, container.started_at)


def _message(container: ContainerObservation, world: World) -> str:
    match container.state:
        case ContainerState.EXITED:
            return f"exited with {container.exit_code}"
        case ContainerState.RUNNING if container.id in world.unwell:
            return world.unwell[container.id]
        case ContainerState.RUNNING if container.id not in world.ready:
            return world.trouble.get(container.id, "does not listen yet" if container.routes else "is not ready yet")
        case _:
            return ""


class Recorder:
    """Keeps the registry's components as the picture shows them."""

    def __init__(
        self,
        registry: ContainerRegistry,
        world: Callable[[Service], World],
        backoff: RestartBackoff,
    ) -> None:
        """`world` is what is known now beside a service; it raises Transient where that is nothing."""
        self._registry = registry
        self._world = world
        self._backoff = backoff
        self._names: dict[str, None] = {}
        self._touched = asyncio.Event()
        # The count of restarts is read, raised and written.
        self._writing = asyncio.Lock()

    def touch(self, service: str) -> None:
        """Has the service's components written soon."""
        self._names[service] = None
        self._touched.set()

    async def run(self) -> None:
        """Writes what was touched until it is cancelled."""
        while True:
            await self._touched.wait()
            self._touched.clear()
            names, self._names = self._names, {}
            for name in names:
                await self._record(name)

    async def restarting(self, service: str, start: Start) -> None:
        """Counts a start before it is made, so that one which ends the agent is counted too."""
        if not start.restarts:
            return
        async with self._writing:
            found = await self._registry.service(service)
            known = found.component(start.component) if found else None
            if known is not None and known.restarts != start.restarts:
                counted = known.model_copy(update={"restarts": start.restarts, "container_id": start.container_id})
                await self._registry.record_component(service, counted)

    async def give_up(self, service: str, action: GiveUp) -> None:
        """Notes that a new container failed, before it is taken away: it must not be tried again."""
        async with self._writing:
            found = await self._registry.service(service)
            known = found.component(action.component) if found else None
            if known is not None:
                failed = {
                    "failed_generation": action.generation,
                    "failed_request": action.request,
                    "failure": action.cause,
                }
                await self._registry.record_component(service, known.model_copy(update=failed))

    async def _record(self, name: str) -> None:
        try:
            async with self._writing:
                await self._write(name)
        except RegistryUnavailable as error:
            log.warning("observation_not_written", service=name, error=error.message)
            asyncio.get_running_loop().call_later(_RETRY, self.touch, name)
        except Transient:
            pass  # Unknown is not written over what was known; the picture's return touches all again.

    async def _write(self, name: str) -> None:
        service = await self._registry.service(name)
        if service is None:
            return
        components = observed(service, self._world(service), self._backoff)
        for component in components:
            if component != service.component(component.name):
                await self._registry.record_component(name, component)
        for name_gone in {c.name for c in service.components} - {c.name for c in components}:
            await self._registry.forget_component(name, name_gone)
