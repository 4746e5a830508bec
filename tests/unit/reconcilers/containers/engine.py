"""An engine in memory: it lists what it has, and tells events in whatever order and number the test wants."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from api.conditions import Reason
from reconcilers.base import Transient
from reconcilers.containers.engine.podman import EngineEvent
from reconcilers.containers.model import ContainerObservation, Observation

GONE = Transient(Reason.ENGINE_UNREACHABLE, "podman cannot be asked: no such file or directory")


class MemoryEngine:
    """What the picture asks of reconcilers.containers.engine.podman.Engine."""

    def __init__(self, *containers: ContainerObservation) -> None:
        self.containers = {container.id: container for container in containers}
        self.lists: list[frozenset[str] | None] = []
        self.at_once = 0
        self.most_at_once = 0
        self.failure: Exception | None = None
        self.after_listings: dict[int, ContainerObservation] = {}
        """What changes, without a word, after so many listings."""
        self._streams: list[asyncio.Queue[EngineEvent | None]] = []

    def put(self, container: ContainerObservation) -> None:
        """Makes or changes a container, without a word."""
        self.containers[container.id] = container

    def tell(self, container_id: str, action: str = "start", *, of_image: bool = False) -> None:
        """Sends an event to whoever is subscribed."""
        for stream in self._streams:
            stream.put_nowait(EngineEvent(container_id, action, of_image))

    def break_off(self) -> None:
        """Ends all event streams."""
        for stream in self._streams:
            stream.put_nowait(None)

    async def list(self, ids: Collection[str] | None = None) -> Observation:
        self.lists.append(None if ids is None else frozenset(ids))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        found = dict(self.containers)
        await asyncio.sleep(0.001)
        self.at_once -= 1
        if changed := self.after_listings.get(len(self.lists)):
            self.put(changed)
        if self.failure is not None:
            raise self.failure
        return Observation({key: value for key, value in found.items() if ids is None or key in ids})

    @asynccontextmanager
    async def events(self) -> AsyncIterator[AsyncIterator[EngineEvent]]:
        if self.failure is not None:
            raise self.failure
        stream: asyncio.Queue[EngineEvent | None] = asyncio.Queue()
        self._streams.append(stream)
        try:
            yield self._told(stream)
        finally:
            self._streams.remove(stream)

    async def _told(self, stream: asyncio.Queue[EngineEvent | None]) -> AsyncIterator[EngineEvent]:
        while (event := await stream.get()) is not None:
            yield event
        raise GONE
