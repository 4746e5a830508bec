"""Carries out actions on the engine, and looks after each of them what came of it.

The engine's answer is a hint: it may fail after it did the work, and it may
never come. What counts is the next listing.
"""

import asyncio
import re
import socket
import zlib
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from api.conditions import Reason, Status
from api.service import Service
from reconcilers.base import Registry, Terminal, Transient
from reconcilers.containers import model
from reconcilers.containers.actions import Create, Drain, GiveUp, Promote, Remove, Replace, Restart, Restore, Start
from reconcilers.containers.engine.podman import Engine
from reconcilers.containers.engine.request import ContainerRequest
from reconcilers.containers.engine.transport import EngineError, Failure
from reconcilers.containers.guard import Guard
from reconcilers.containers.images.presence import Images
from reconcilers.containers.model import ContainerObservation
from reconcilers.containers.watching.deaths import end_left_behind
from reconcilers.containers.watching.drain import Drains
from reconcilers.containers.watching.picture import Picture

T = TypeVar("T")

_MISSING = re.compile(r"statfs (/.*): no such file or directory")
"""How podman says that what is to be mounted is not there."""

_AT_ONCE = timedelta(milliseconds=50)
_LEAST_WORKOUTS = 4
_WORKOUTS = 40
"""Four to six are enough as a rule, and take a tenth of a second."""
_PORT_FREES = timedelta(milliseconds=200)


class Executor:
    """The reconciler's hands. Every method raises Transient or Terminal."""

    def __init__(
        self,
        registry: Registry,
        engine: Engine,
        picture: Picture,
        images: Images,
        drains: Drains,
        node: str,
        guard: Guard,
    ) -> None:
        self._registry = registry
        self._engine = engine
        self._picture = picture
        self._images = images
        self._drains = drains
        self._node = node
        self._guard = guard
        self._doubted: set[tuple[str, int]] = set()

    async def create(self, service: Service, action: Create) -> None:
        """Makes the container and starts it."""
        await self._create_and_start(service, action.request)

    async def replace(self, service: Service, action: Replace) -> None:
        """Ends the old container and makes the new one; the old one runs until the new image is there."""
        self._guard.check(action.request)
        await self._images.obtain(service.name, action.request.image, action.request.pull)
        if action.aside:
            await self._ask(self._engine.stop(action.container_id))
            await self._rename(action.container_id, action.aside)
        else:
            await self._ask(self._engine.remove(action.container_id))
        await self._create_and_start(service, action.request)
        for network in set(action.leaves) - {action.request.network}:
            await self._remove_network(network)

    async def start(self, service: Service, action: Start) -> None:
        """Starts a container that exists."""
        await self._check_mounts(service, action)
        ports = tuple((served.route, served.port) for served in action.ports)
        await self._start(service, action.component, action.container_id, ports)

    async def restart(self, service: Service, action: Restart) -> None:
        """Stops a container and starts it again."""
        await self._check_mounts(service, action)
        await self._ask(self._engine.stop(action.container_id))
        await self.start(service, action)

    async def restore(self, service: Service, action: Restore) -> None:
        """Gives a container its component's name back, and starts it."""
        await self._check_mounts(service, action)
        await self._rename(action.container_id, action.name)
        ports = tuple((served.route, served.port) for served in action.ports)
        await self._start(service, action.component, action.container_id, ports)

    async def promote(self, action: Promote) -> None:
        """Gives a container its component's name."""
        await self._rename(action.container_id, action.name)

    async def drain(self, action: Drain) -> None:
        """Has the container's connections watched."""
        container = self._picture.current().get(action.container_id)
        if container is not None:
            await self._drains.begin(container)

    async def unpause(self, container_id: str) -> None:
        """Lets a container go on."""
        await self._ask(self._engine.unpause(container_id))
        await self._picture.refresh(container_id)

    async def stop(self, container_id: str) -> None:
        """Stops a container and keeps it."""
        await self._ask(self._engine.stop(container_id))
        await self._picture.refresh(container_id)

    async def remove(self, action: Remove) -> None:
        """Removes a container, and of what was made for it what is empty and nobody's any more."""
        await self._remove(action.container_id, action.networks)
        if action.folder:
            _remove_if_empty(Path(action.folder))

    async def give_up(self, action: GiveUp) -> None:
        """Removes a container that failed, where there is one."""
        if action.container_id:
            await self._remove(action.container_id, action.networks)

    async def _remove(self, container_id: str, networks: Iterable[str]) -> None:
        await self._ask(self._engine.remove(container_id))
        await self._picture.refresh(container_id)
        for network in networks:
            await self._remove_network(network)

    async def _rename(self, container_id: str, name: str) -> None:
        try:
            await self._engine.rename(container_id, name)
        except EngineError as error:
            # It may be called so already: the answer to the last attempt may have been lost.
            found = (await self._picture.refresh(container_id)).get(container_id)
            if found is None or found.name != name:
                raise Transient(Reason.ENGINE_ERROR, error.message) from error
        await self._picture.refresh(container_id)

    async def _check_mounts(self, service: Service, action: Start | Restore) -> None:
        """Refuses a container in whose mounts a link was moved since it was made."""
        sources = await self._ask(self._engine.mounts(action.container_id))
        self._guard.check_mounts(service.name, action.name, sources)

    async def _create_and_start(self, service: Service, request: ContainerRequest) -> None:
        container_id = await self._create(request)
        try:
            await self._start(service, request.component, container_id, request.ports)
        except Transient as failure:
            if failure.reason is Reason.PORT_IN_USE:
                # Another port is on its way, and with it another container.
                await self._ask(self._engine.remove(container_id))
            raise

    async def _create(self, request: ContainerRequest) -> str:
        self._guard.check(request)
        image = await self._images.obtain(request.service, request.image, request.pull)
        request = request.labelled({model.DIGEST: image.digest_in(request.image)})
        self._make_folder(request)
        try:
            container_id = await self._try_to_create(request)
        except EngineError as error:
            container_id = await self._created_after_all(request, error)
        self._images.used(request.service, request.image)
        return container_id

    async def _try_to_create(self, request: ContainerRequest) -> str:
        # Most networks exist: looking first would cost every creation a call.
        try:
            return await self._engine.create(request.body)
        except EngineError as error:
            if error.failure is not Failure.NO_SUCH_NETWORK:
                raise
        await self._make_network(request.network)
        return await self._engine.create(request.body)

    async def _created_after_all(self, request: ContainerRequest, error: EngineError) -> str:
        found = (await self._picture.refresh()).named(request.called)
        if found is not None and found.owned_by(self._node) and _is_as(found, request):
            return found.id
        if error.failure is Failure.REFUSED:
            raise _refused(request.name, error) from error
        raise Transient(Reason.ENGINE_ERROR, error.message, delay=_AT_ONCE) from error

    async def _start(
        self, service: Service, component: str, container_id: str, ports: tuple[tuple[str, int], ...]
    ) -> None:
        problem = await self._try_to_start(container_id)
        container = (await self._picture.refresh(container_id)).get(container_id)
        if problem is not None and problem.failure is Failure.NO_SUCH_NETWORK and container is not None:
            # Removed behind our back, or by another service's deletion since this container was created.
            for network in container.networks:
                await self._make_network(network)
            problem = await self._try_to_start(container_id)
            container = (await self._picture.refresh(container_id)).get(container_id)
        if problem is None and container is None:
            # Somebody removed it in the very moment of its start.
            await asyncio.to_thread(end_left_behind, container_id)
            raise Transient(Reason.PROGRESSING, "it was removed while it started", delay=_AT_ONCE)
        if problem is None or (container is not None and container.running):
            self._doubted -= {(service.name, port) for _, port in ports}
            return
        if problem.failure is Failure.ADDRESS_IN_USE:
            await self._contest(service, component, ports, problem)
        if problem.failure is Failure.REFUSED and container is not None:
            await self._have_ports_freed(ports)
            if not _lost_its_files(container_id, problem):
                raise _refused(container.name, problem) from problem
            # Only what is left of it in the engine's books stands in the way of a new one.
            await self._ask(self._engine.remove(container_id))
            await self._picture.refresh(container_id)
        raise Transient(Reason.ENGINE_ERROR, problem.message, delay=_AT_ONCE) from problem

    async def _have_ports_freed(self, ports: tuple[tuple[str, int], ...]) -> None:
        """Podman 4 keeps the ports that it took for a start which failed, until its garbage is collected.

        Whoever is to have them back, as the container before the one that
        failed, must not wait for that: it may take two minutes.
        """
        for attempt in range(_WORKOUTS):
            if attempt >= _LEAST_WORKOUTS and all(_is_free(port) for _, port in ports):
                return
            await self._ask(self._engine.work_out())

    async def _try_to_start(self, container_id: str) -> EngineError | None:
        try:
            await self._engine.start(container_id)
        except EngineError as error:
            return error
        return None

    async def _contest(
        self, service: Service, component: str, ports: tuple[tuple[str, int], ...], problem: EngineError
    ) -> None:
        for route, port in ports:
            if f":{port}:" in problem.message:
                if (service.name, port) not in self._doubted:
                    # It may be our own container's still, which is just being taken away.
                    self._doubted.add((service.name, port))
                    message = f"port {port} of route {component}/{route} is still in use; tried once more"
                    raise Transient(Reason.ENGINE_ERROR, message, delay=_PORT_FREES) from problem
                self._doubted.discard((service.name, port))
                await self._registry.contest_port(service.name, component, route, port)
                message = f"port {port} of route {component}/{route} is taken by somebody else; another one is chosen"
                raise Transient(Reason.PORT_IN_USE, message, delay=_AT_ONCE, status=Status.FALSE) from problem
        raise Terminal(Reason.CONTAINER_REFUSED, problem.message) from problem

    async def _make_network(self, name: str) -> None:
        labels = {model.MANAGED_BY: model.MANAGER, model.NODE: self._node}
        # Left to itself podman takes the first podmanN that is free just now, which on a machine with several podmans
        # may be another's that has no container at the moment: the two would share a bridge, and lose it together.
        interface = f"mcp-{zlib.crc32(f'{self._node}/{name}'.encode()):08x}"
        await self._ask(self._engine.make_network(name, interface, labels))

    async def _remove_network(self, name: str) -> None:
        labels = await self._ask(self._engine.network_labels(name)) or {}
        if labels.get(model.MANAGED_BY) == model.MANAGER and labels.get(model.NODE) == self._node:
            await self._ask(self._engine.remove_unused_network(name))

    def _make_folder(self, request: ContainerRequest) -> None:
        if request.folder:
            try:
                Path(request.folder).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                message = f"the volume {request.folder} of {request.name} cannot be made: {error.strerror}"
                raise Terminal(Reason.CONTAINER_REFUSED, message) from error

    async def _ask(self, call: Awaitable[T]) -> T:
        """The answer of a call for whose failure there is no better word than the engine's own."""
        try:
            return await call
        except EngineError as error:
            raise Transient(Reason.ENGINE_ERROR, error.message) from error


def _is_as(found: ContainerObservation, request: ContainerRequest) -> bool:
    return found.labels.get(model.SPEC_HASH) == request.spec_hash and found.service == request.service


def _lost_its_files(container_id: str, problem: EngineError) -> bool:
    """Whether a removal that was cut off left the container half: it can never be started again."""
    return problem.message.endswith((f"/{container_id}: no such file or directory", "container not known"))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _refused(name: str, error: EngineError) -> Terminal:
    if missing := _MISSING.search(error.message):
        message = (
            f"the folder {missing[1]} of a volume of {name} is not on the node: make it there, or push a file into it"
        )
        return Terminal(Reason.CONTAINER_REFUSED, message)
    return Terminal(Reason.CONTAINER_REFUSED, f"{name}: {error.message}")


def _remove_if_empty(folder: Path) -> None:
    # It fails where there is data, and data is never deleted.
    with suppress(OSError):
        folder.rmdir()
