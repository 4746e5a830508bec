"""Containers of this node that nobody defines: offered to a person, and never taken away.

They are what a lost registry leaves behind. Every reconciler acts on behalf of
a service that the registry knows, so nothing happens to them; what is missing
is somebody who says that they are there.
"""

import asyncio
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from typing import Protocol

import structlog

from api.errors import RegistryUnavailable
from api.service import Service, UndefinedService
from reconcilers.base import Transient
from reconcilers.containers.model import Observation
from reconcilers.containers.watching.picture import Listener

log = structlog.get_logger("undefined")


class Picture(Protocol):
    """What runs on the node; see reconcilers.containers.watching.picture."""

    def current(self) -> Observation:
        """As it is known now. Raises Transient."""
        ...

    def listen(self, listener: Listener) -> None:
        """Has `listener` called after each change."""
        ...


class Registry(Protocol):
    """Where services are read."""

    async def service(self, name: str) -> Service | None:
        """The service, or None."""
        ...


class Undefined:
    """Compares what runs with what is defined."""

    def __init__(self, node: str, registry: Registry, picture: Picture) -> None:
        self._node = node
        self._registry = registry
        self._picture = picture
        self._seen: set[str] = set()
        self._news = asyncio.Event()
        picture.listen(self._changed)

    def beside(self, services: Collection[Service]) -> tuple[UndefinedService, ...]:
        """The services that containers of this node belong to and that are not among these; none while it is blind."""
        try:
            observation = self._picture.current()
        except Transient:
            return ()
        counts = Counter(container.service for container in observation if container.owned_by(self._node))
        for service in services:
            counts.pop(service.name, None)
        return tuple(UndefinedService(name=name, containers=counts[name]) for name in sorted(counts))

    async def run(self) -> None:
        """Logs each such service when it is first seen, until it is cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            seen, self._seen = self._seen, set()
            with suppress(RegistryUnavailable):  # mcp status still says it
                unknown = [name for name in sorted(seen) if await self._registry.service(name) is None]
                if unknown:
                    log.warning(
                        "containers_without_definition",
                        services=unknown,
                        hint=f"they are left alone; mcp adopt {unknown[0]} takes them over",
                    )

    def _changed(self, before: Observation | None, after: Observation | None) -> None:
        if after is None:
            return
        known = before.containers.keys() if before is not None else ()
        new = (after.containers[one] for one in after.containers.keys() - known)
        if names := {container.service for container in new if container.owned_by(self._node)}:
            self._seen |= names
            self._news.set()
