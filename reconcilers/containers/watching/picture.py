"""The node's containers, in memory: fed by the engine's events and by relisting, never by asking for each.

Subscribe first, then list. An event only says where to look; what is the case,
a listing says. One listing runs at a time, and all that is asked for meanwhile
is one more. A listing that failed makes the picture unknown, never empty.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential

from api.conditions import Reason
from api.service import ContainerState
from reconcilers.base import Transient
from reconcilers.containers.engine.podman import Engine, EngineEvent
from reconcilers.containers.engine.transport import EngineError
from reconcilers.containers.model import Observation
from reconcilers.containers.watching.deaths import Deaths

log = structlog.get_logger("picture")

Listener = Callable[[Observation | None, Observation | None], None]
"""Is given the picture before and after a change; None is an unknown one."""

_LAGGING_LOOKS = 10
"""So many looks, each after twice the pause of the one before, make a second."""


@dataclass(frozen=True, slots=True)
class PictureSettings:
    """How the picture is kept true. Times are in seconds."""

    relist: float = 30.0
    """Everything is listed at least so often: the safety net below the events."""
    reconnect: float = 5.0
    """The longest pause between two attempts to reach an engine that is gone."""


@dataclass(frozen=True, slots=True)
class _Death:
    """A process that ended, while the engine still shows its container with it."""

    pid: int
    certain: bool
    looks: int = 0


class Picture:
    """What containers there are. `run` keeps it true; everything else may be called at any time."""

    def __init__(self, engine: Engine, node: str, settings: PictureSettings) -> None:
        self._engine = engine
        self._node = node
        self._settings = settings
        self._observation: Observation | None = None
        self._failure = Transient(Reason.ENGINE_UNREACHABLE, "podman has not been asked yet")
        self._looked = False
        self._listeners: list[Listener] = []
        self._image_listeners: list[Callable[[], None]] = []
        self._asked = asyncio.Event()
        self._ids: set[str] | None = set()
        self._flight: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lost = asyncio.Event()
        self._deaths = Deaths(self._died)
        self._lagging: dict[str, _Death] = {}
        self._forsaken: dict[str, int] = {}

    def listen(self, listener: Listener) -> None:
        """Has `listener` called after each change, in the event loop; it must not block."""
        self._listeners.append(listener)

    def forget(self, listener: Listener) -> None:
        """Has `listener` called no more."""
        self._listeners.remove(listener)

    def listen_to_images(self, listener: Callable[[], None]) -> None:
        """Has `listener` called when something happened to an image, or may have happened unseen."""
        self._image_listeners.append(listener)

    def current(self) -> Observation:
        """The picture as it is known now. Raises Transient where it is unknown."""
        if self._observation is None:
            raise Transient(self._failure.reason, self._failure.message)
        return self._observation

    async def known(self) -> Observation:
        """The picture as it is known now, or after the first look where nobody looked yet. Raises Transient."""
        if not self._looked:
            await self.refresh()
        return self.current()

    async def refresh(self, *ids: str) -> Observation:
        """The picture after a listing, begun from now on, of these containers; of all where none is named.

        Raises Transient where that failed.
        """
        await asyncio.shield(self._ask(ids))
        return self.current()

    async def run(self) -> None:
        """Keeps the picture true until it is cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._list_when_asked(), name="picture-list")
                tasks.create_task(self._stay_connected(), name="picture-events")
        finally:
            self._deaths.close()

    def _ask(self, ids: tuple[str, ...]) -> asyncio.Future[None]:
        if not ids:
            self._ids = None
        elif self._ids is not None:
            self._ids.update(ids)
        self._asked.set()
        return self._flight

    async def _list_when_asked(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            flight, self._flight = self._flight, asyncio.get_running_loop().create_future()
            ids, self._ids = self._ids, set()
            try:
                await self._look(None if ids is None or self._observation is None else frozenset(ids))
            finally:
                flight.set_result(None)

    async def _look(self, ids: frozenset[str] | None) -> None:
        try:
            found = await self._engine.list(ids)
        except EngineError as error:
            self._lose(Transient(Reason.ENGINE_ERROR, error.message))
        except Transient as failure:
            self._lose(failure)
        else:
            self._show(found if self._observation is None else self._observation.merged(found, ids))
        self._looked = True

    def _lose(self, failure: Transient) -> None:
        self._failure = failure
        self._lost.set()
        before, self._observation = self._observation, None
        if before is not None:
            log.warning("engine_lost", reason=failure.reason, error=failure.message)
            self._tell(before, None)

    def _show(self, listed: Observation) -> None:
        self._look_again_at_lagging(listed)
        before, self._observation = self._observation, self._corrected(listed)
        if before != self._observation:
            self._end_forgotten(before, self._observation)
            ours = (c for c in self._observation if c.owned_by(self._node) and c.running)
            self._deaths.follow({container.id: container.pid for container in ours})
            self._tell(before, self._observation)

    def _end_forgotten(self, before: Observation | None, after: Observation) -> None:
        """Ends what still runs of a container of ours that the engine forgot: it holds the port, and nobody would."""
        for container in before or ():
            gone = container.id not in after.containers and container.owned_by(self._node)
            if gone and self._deaths.end(container.id):
                log.warning("left_behind_ended", container=container.name, id=container.id)

    def _tell(self, before: Observation | None, after: Observation | None) -> None:
        for listener in tuple(self._listeners):
            listener(before, after)

    def _tell_of_images(self) -> None:
        for listener in self._image_listeners:
            listener()

    def _died(self, container_id: str, certain: bool) -> None:
        """Its process ended, which the engine itself learns within some milliseconds."""
        container = self._observation.get(container_id) if self._observation else None
        if container is not None:
            self._lagging[container_id] = _Death(container.pid, certain)
        self._ask((container_id,))

    def _look_again_at_lagging(self, listed: Observation) -> None:
        for container_id, death in list(self._lagging.items()):
            container = listed.get(container_id)
            if container is not None and container.pid == death.pid and death.looks < _LAGGING_LOOKS:
                self._lagging[container_id] = replace(death, looks=death.looks + 1)
                asyncio.get_running_loop().call_later(0.001 * (1 << death.looks), self._ask, (container_id,))
                continue
            del self._lagging[container_id]
            if death.certain and death.looks == _LAGGING_LOOKS:
                self._forsaken[container_id] = death.pid

    def _corrected(self, listed: Observation) -> Observation:
        """The listing without the lives that it only claims."""
        lost = [c for c in listed if self._forsaken.get(c.id) == c.pid]
        self._forsaken = {container.id: container.pid for container in lost}
        if not lost:
            return listed
        marked = {c.id: replace(c, state=ContainerState.UNKNOWN, forsaken=True) for c in lost}
        return Observation({**listed.containers, **marked})

    async def _stay_connected(self) -> None:
        pauses = wait_exponential(multiplier=0.1, max=self._settings.reconnect)
        while True:
            async for attempt in AsyncRetrying(wait=pauses, retry=retry_if_exception_type(Transient)):
                with attempt:
                    try:
                        await self._connect()
                    except Transient:
                        # Required: without events nothing else would notice that an engine is gone.
                        self._ask(())
                        raise

    async def _connect(self) -> None:
        """Follows the engine for as long as it goes well; raises Transient where that was not long."""
        began = asyncio.get_running_loop().time()
        async with self._engine.events() as events:
            self._lost.clear()
            self._tell_of_images()
            await self.refresh()
            try:
                await self._follow(events)
            except Transient:
                if asyncio.get_running_loop().time() - began < self._settings.reconnect:
                    raise

    async def _follow(self, events: AsyncIterator[EngineEvent]) -> None:
        failure: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                relisting = tasks.create_task(self._relist(), name="picture-relist")
                async for event in events:
                    if event.of_image:
                        self._tell_of_images()
                    else:
                        self._ask((event.id,))
                relisting.cancel()
        except* Transient as group:
            failure = group.exceptions[0]
        if failure is not None:
            # Not raised in the clause above: there Python wraps whatever is raised into another group.
            raise failure

    async def _relist(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.relist):
                    await self._lost.wait()
            self._lost.clear()
            await self.refresh()
