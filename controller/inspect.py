"""Asks the agent's parts how they are: for `mcp status`, and for whoever asks whether the agent is ready."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import Future
from importlib.metadata import version
from threading import Thread
from typing import TypeVar

from api.conditions import ConditionType, Status
from api.errors import RegistryUnavailable
from api.service import NodeStatus, PartStatus, Service, SnapshotStatus, UndefinedService
from controller.registry import Registry
from reconcilers.base import Clock, Terminal, Transient

T = TypeVar("T")

Look = Callable[[], Awaitable[str]]
"""Says in a few words what a part is; raises Transient, Terminal or RegistryUnavailable where it does not answer."""

_PATIENCE = 2.0
"""Seconds that a part has to answer."""


class Inspector:
    """Looks at the registry and at each named part, side by side."""

    def __init__(
        self,
        node: str,
        registry: Registry,
        parts: Mapping[str, Look],
        undefined: Callable[[Collection[Service]], tuple[UndefinedService, ...]],
        snapshots: Callable[[], SnapshotStatus],
        clock: Clock,
    ) -> None:
        """`undefined` says which services run that are not among those it is given; `snapshots` may block."""
        self._node = node
        self._registry = registry
        self._parts: Mapping[str, Look] = {"registry": self._ping_registry, **parts}
        self._undefined = undefined
        self._snapshots = snapshots
        self._looking: asyncio.Future[SnapshotStatus] | None = None
        self._clock = clock
        self._started_at = clock()

    async def status(self) -> NodeStatus:
        """The agent and what it depends on. Raises RegistryUnavailable."""
        services = await self._registry.services()
        parts = await asyncio.gather(*(look_at(name, look) for name, look in self._parts.items()))
        return NodeStatus(
            node=self._node,
            version=version("metacircular-mcp"),
            started_at=self._started_at,
            services=len(services),
            ready=sum(_is_ready(service) for service in services),
            suspended=sum(service.suspended is not None for service in services),
            drained=await self._registry.drained(),
            parts=tuple(parts),
            undefined=self._undefined(services),
            snapshots=await self.snapshots(),
            at=self._clock(),
        )

    async def snapshots(self) -> SnapshotStatus:
        """How it stands with snapshots, within two seconds: their folder may be another machine's, and hang."""
        if self._looking is None or self._looking.done():
            self._looking = _beside(self._snapshots)
        try:
            async with asyncio.timeout(_PATIENCE):
                return await asyncio.shield(self._looking)
        except TimeoutError:
            return SnapshotStatus(problem=f"the folder of snapshots does not answer within {_PATIENCE:g} s")

    async def problem(self) -> str | None:
        """What keeps the agent from its work, in one sentence; None: nothing."""
        parts = await asyncio.gather(*(look_at(name, look) for name, look in self._parts.items()))
        return next((f"{part.name}: {part.detail}" for part in parts if not part.reachable), None)

    async def _ping_registry(self) -> str:
        await self._registry.ping()
        return "answers"


def _beside(look: Callable[[], T]) -> asyncio.Future[T]:
    """Looks in a thread of its own, which nobody has to wait for, not even who ends the agent."""
    found: Future[T] = Future()

    def run() -> None:
        try:
            found.set_result(look())
        except BaseException as error:
            found.set_exception(error)

    Thread(target=run, name="snapshots", daemon=True).start()
    return asyncio.wrap_future(found)


async def look_at(name: str, look: Look) -> PartStatus:
    """How one part is, within two seconds."""
    try:
        async with asyncio.timeout(_PATIENCE):
            return PartStatus(name=name, reachable=True, detail=await look())
    except TimeoutError:
        return PartStatus(name=name, reachable=False, detail=f"does not answer within {_PATIENCE:g} s")
    except (Transient, Terminal, RegistryUnavailable) as failure:
        return PartStatus(name=name, reachable=False, detail=failure.message)


def _is_ready(service: Service) -> bool:
    ready = service.condition(ConditionType.READY)
    return ready is not None and ready.status is Status.TRUE
