"""Watches the open connections of containers that shall end, so that each ends as soon as it has none.

Nobody tells of a connection that closes: the kernel is asked, at first often,
and only while something drains.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from reconcilers.base import Clock
from reconcilers.containers.model import ContainerObservation, Observation
from reconcilers.containers.watching.listening import open_connections

_FIRST: Final = 0.02
_MOST: Final = 0.5
_GROWTH: Final = 1.3
"""Seconds between two looks, and how they grow."""


class Drains:
    """The containers that drain, since when, and whether anybody is still connected to them."""

    def __init__(self, clock: Clock, wake: Callable[[str], None]) -> None:
        """`wake` is called with the service's name when the last connection of its container has ended."""
        self._clock = clock
        self._wake = wake
        self._since: dict[str, datetime] = {}
        self._busy: set[str] = set()
        self._begun: asyncio.Queue[ContainerObservation] = asyncio.Queue()

    @property
    def since(self) -> Mapping[str, datetime]:
        """When each began, by the container's id."""
        return dict(self._since)

    @property
    def busy(self) -> frozenset[str]:
        """Those that have open connections, or of which that cannot be told."""
        return frozenset(self._busy)

    async def begin(self, container: ContainerObservation) -> None:
        """Watches the container from now on; it was looked at once when this returns."""
        if container.id in self._since:
            return
        self._since[container.id] = self._clock()
        if await is_busy(container):
            self._busy.add(container.id)
            self._begun.put_nowait(container)

    def follow(self, _: Observation | None, observation: Observation | None) -> None:
        """Forgets what does not run any more; an unknown picture changes nothing."""
        if observation is None:
            return
        running = {container.id for container in observation if container.running}
        for container_id in self._since.keys() - running:
            del self._since[container_id]
        self._busy &= running

    async def run(self) -> None:
        """Watches until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                container = await self._begun.get()
                tasks.create_task(self._watch(container), name=f"drain-{container.name}")

    async def _watch(self, container: ContainerObservation) -> None:
        pause = _FIRST
        while container.id in self._busy:
            await asyncio.sleep(pause)
            pause = min(pause * _GROWTH, _MOST)
            if not await is_busy(container):
                self._busy.discard(container.id)
                self._wake(container.service)


async def is_busy(container: ContainerObservation) -> bool:
    """Whether anybody is connected to a route of the container, or that cannot be told."""
    try:
        return await asyncio.to_thread(open_connections, container.pid, frozenset(container.listens_on)) > 0
    except OSError:
        # What cannot be seen may be there: the drain time ends it.
        return True
