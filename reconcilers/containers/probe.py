"""Finds out when a container is ready: when it listens on the port of each of its routes.

What the kernel says of the sockets in the container's own network namespace is
exact and costs the container nothing: no connection is made, and rootlessport,
which accepts connections for containers that do not listen yet, is not in the
way. Where it cannot be asked, or the namespace is the host's, a connection
decides that is not closed at once.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from reconcilers.containers.listening import reachable_ports, reachable_ports_by_table
from reconcilers.containers.model import ContainerObservation, Observation


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """How often a starting container is looked at, in seconds."""

    first: float = 0.002
    most: float = 0.25
    growth: float = 1.3
    connect: float = 1.0
    """The longest wait for an answer, where a connection has to be made."""
    closed_within: float = 0.05
    """A connection that lasts so long has somebody at its other end."""


class Prober:
    """Which containers are ready. Once ready, a container stays so for as long as its process runs."""

    def __init__(self, node: str, settings: ProbeSettings) -> None:
        self._node = node
        self._settings = settings
        self._listeners: list[Callable[[str], None]] = []
        self._pids: dict[str, int] = {}
        self._ready: set[str] = set()
        self._arrivals: asyncio.Queue[ContainerObservation] = asyncio.Queue()

    def listen(self, listener: Callable[[str], None]) -> None:
        """Has `listener` called with the service's name when one of its containers became ready."""
        self._listeners.append(listener)

    @property
    def ready(self) -> frozenset[str]:
        """The ids of the containers that are ready."""
        return frozenset(self._ready)

    def follow(self, _: Observation | None, observation: Observation | None) -> None:
        """Takes note of what runs now; an unknown picture changes nothing."""
        if observation is None:
            return
        running = {c.id: c for c in observation if c.running and c.owned_by(self._node)}
        self._ready &= running.keys()
        for container_id, container in running.items():
            if self._pids.get(container_id) != container.pid:
                self._ready.discard(container_id)
                # Only faster: most listen by the time that they are seen, and are then recorded once, as ready.
                if not container.routes or _listens_already(container):
                    self._ready.add(container_id)
                else:
                    self._arrivals.put_nowait(container)
        self._pids = {container_id: container.pid for container_id, container in running.items()}

    async def run(self) -> None:
        """Probes what starts until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                container = await self._arrivals.get()
                tasks.create_task(self._watch(container), name=f"probe-{container.name}")

    async def _watch(self, container: ContainerObservation) -> None:
        pause = self._settings.first
        while self._pids.get(container.id) == container.pid:
            if await self._listens(container):
                if self._pids.get(container.id) == container.pid:
                    self._ready.add(container.id)
                    for listener in self._listeners:
                        listener(container.service)
                return
            await asyncio.sleep(pause)
            pause = min(pause * self._settings.growth, self._settings.most)

    async def _listens(self, container: ContainerObservation) -> bool:
        if container.networks:
            # Refused where it just ended, or is hidden from us.
            with suppress(OSError):
                return _ports(container) <= await _reachable(container.pid)
        return all([await self._accepts(port) for port in sorted(_ports(container))])

    async def _accepts(self, port: int) -> bool:
        writer = None
        try:
            async with asyncio.timeout(self._settings.connect):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except (OSError, TimeoutError):
            return False
        try:
            async with asyncio.timeout(self._settings.closed_within):
                return await reader.read(1) != b""
        except TimeoutError:
            return True
        except OSError:
            return False
        finally:
            writer.transport.abort()


def _ports(container: ContainerObservation) -> set[int]:
    return {served.port for served in container.routes}


def _listens_already(container: ContainerObservation) -> bool:
    """What can be told at once; False where only a closer look can say."""
    if not container.networks:
        return False
    try:
        return _ports(container) <= reachable_ports(container.pid)
    except OSError:
        return False


async def _reachable(pid: int) -> set[int]:
    try:
        return reachable_ports(pid)
    except OSError:
        return await asyncio.to_thread(reachable_ports_by_table, pid)
