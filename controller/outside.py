"""What an agent acts on: the container engine and the proxy, as its settings name them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from controller.inspect import Look, look_at
from controller.settings import Settings
from reconcilers.containers.engine.podman import Engine
from reconcilers.containers.engine.transport import EngineSettings
from reconcilers.routes.mcproxy import McProxy


@dataclass(frozen=True, slots=True)
class Outside:
    """What the agent acts on."""

    engine: Engine
    proxy: McProxy | None

    @property
    def parts(self) -> Mapping[str, Look]:
        """How each is looked at."""
        parts: dict[str, Look] = {"podman": self._look_at_engine}
        if self.proxy is not None:
            parts["mc-proxy"] = partial(_look_at_proxy, self.proxy)
        return parts

    async def _look_at_engine(self) -> str:
        return f"version {await self.engine.ping()}"


async def _look_at_proxy(proxy: McProxy) -> str:
    listeners = (await proxy.listing()).listeners
    return f"listens on {', '.join(sorted(listeners)) or 'nothing'}"


@asynccontextmanager
async def open_outside(settings: Settings) -> AsyncIterator[Outside]:
    """The connections that these settings name, closed again at the end; nothing is asked yet."""
    engine = Engine(
        EngineSettings(
            settings.podman.socket,
            timeout=settings.podman.timeout_seconds,
            pull_timeout=settings.images.silence_seconds,
        )
    )
    patience = timedelta(seconds=settings.mcproxy.timeout_seconds)
    proxy = McProxy(settings.mcproxy.socket, patience) if settings.mcproxy.socket else None
    try:
        yield Outside(engine, proxy)
    finally:
        engine.close()
        if proxy is not None:
            await proxy.close()


async def unreachable(settings: Settings) -> tuple[str, ...]:
    """What does not answer now, each in one sentence: no error, as it may be started after the agent."""
    async with open_outside(settings) as outside:
        parts = await asyncio.gather(*(look_at(name, look) for name, look in outside.parts.items()))
    return tuple(f"{part.name}: {part.detail}" for part in parts if not part.reachable)
