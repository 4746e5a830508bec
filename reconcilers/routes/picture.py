"""What mc-proxy holds, looked at for all services together, and who has to look again when it changed.

Its API has no events, so it is asked every so often; one that comes back is
asked at once. A service hears of it only when a route that concerns it is not
what it was when the service last looked.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from reconcilers.base import Terminal, Transient
from reconcilers.routes.mcproxy import McProxy
from reconcilers.routes.model import Key, Listing, ProxyRoute


@dataclass(frozen=True, slots=True)
class _View:
    """The part of a listing that concerns one service."""

    listeners: frozenset[str]
    routes: Mapping[Key, ProxyRoute | None]


class Picture:
    """Shares listings among all who ask, and remembers what each service saw last."""

    def __init__(self, proxy: McProxy, interval: timedelta) -> None:
        self._proxy = proxy
        self._interval = interval.total_seconds()
        self._flight = asyncio.Lock()
        self._flights = 0
        self._latest: Listing | Transient | Terminal | None = None
        self._seen: dict[str, _View] = {}
        self._blind: set[str] = set()

    async def fresh(self) -> Listing:
        """A listing that began after this call, one for all who wait for it. Raises Transient."""
        before = self._flights
        async with self._flight:
            if self._flights == before or self._latest is None:
                self._flights += 1
                self._latest = None
                self._latest = await self._look()
            if isinstance(self._latest, Listing):
                return self._latest
            # One for each who waits: an exception carries the way by which it came.
            raise Transient(self._latest.reason, self._latest.message) from self._latest

    async def look(self, service: str, keys: Iterable[Key]) -> Listing:
        """A fresh listing for a service that these routes concern from now on. Raises Transient."""
        try:
            listing = await self.fresh()
        except Transient:
            self._blind.add(service)
            raise
        self._blind.discard(service)
        self._seen[service] = _view(listing, keys)
        return listing

    def forget(self, service: str) -> None:
        """No route concerns the service any more."""
        self._seen.pop(service, None)
        self._blind.discard(service)

    async def add(self, service: str, route: ProxyRoute) -> None:
        """Inserts or replaces a route of the service. Raises Transient or Terminal."""
        await self._proxy.add(route)
        self._expect(service, route.key, route)

    async def remove(self, service: str, key: Key) -> None:
        """Removes a route of the service, if it is there. Raises Transient or Terminal."""
        await self._proxy.remove(*key)
        self._expect(service, key, None)

    async def watch(self, wake: Callable[[str], None]) -> None:
        """Wakes whom a change concerns; runs until cancelled."""
        connected = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._notice_connections(connected), name="mc-proxy-connections")
            while True:
                await self._compare(wake)
                connected.clear()
                try:
                    await asyncio.wait_for(connected.wait(), self._interval)
                except TimeoutError:
                    continue

    async def _notice_connections(self, connected: asyncio.Event) -> None:
        async for _ in self._proxy.connections():
            connected.set()

    async def _compare(self, wake: Callable[[str], None]) -> None:
        """Wakes once for each change; from then on it is the service's own to see to it."""
        try:
            listing = await self.fresh()
        except Transient:
            for service in self._seen.keys() - self._blind:
                wake(service)
            self._blind |= self._seen.keys()
            return
        for service, seen in self._seen.items():
            now = _view(listing, seen.routes)
            if now != seen or service in self._blind:
                self._seen[service] = now
                wake(service)
        for service in self._blind - self._seen.keys():
            wake(service)
        self._blind.clear()

    def _expect(self, service: str, key: Key, route: ProxyRoute | None) -> None:
        if service in self._seen:
            seen = self._seen[service]
            self._seen[service] = replace(seen, routes={**seen.routes, key: route})

    async def _look(self) -> Listing | Transient | Terminal:
        try:
            return await self._proxy.listing()
        except (Transient, Terminal) as failure:
            return failure


def _view(listing: Listing, keys: Iterable[Key]) -> _View:
    return _View(listing.listeners, {key: listing.routes.get(key) for key in keys})
