"""Empties the backends that routes no longer lead to, so that whoever stops one sees its connections go to zero.

What is under way goes on until it ends. Whoever looked up the old backend a moment ago is led to the new one. HAProxy
would keep idle connections for a while, but drops all of a server's at once when the server's address changes, be it
only there and back.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass

from mcproxy.model import Entry, Mode, RouteKey, State, split_backend
from mcproxy.render import SERVER

_SOON, _LATER = 0.2, 2.0
_SOON_LOOKS = 50

Tell = Callable[[str], Awaitable[str]]
"""One command to the worker, and its answer. Raises OSError when it answers no more."""


@dataclass(frozen=True)
class Address:
    """Where a server leads."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"addr {self.host} port {self.port}"


@dataclass(frozen=True)
class Left:
    """A backend that its route has left: `old` is where it led, `new` where the route leads now, if both can be one."""

    backend: str
    old: Address
    new: Address | None
    pooled: bool
    """Whether HAProxy keeps idle connections to it."""

    def purge(self) -> Iterator[str]:
        """What ends its idle connections, and leaves it leading to the new backend."""
        # Whoever meets the moment between is led to the old backend, or tries again.
        away, there = (self.old, self.new) if self.new else (Address(self.old.host, 1), self.old)
        yield from (f"set server {self.backend}/{SERVER} {address}" for address in (away, there))


def left(before: State, after: State, backends: Mapping[RouteKey, str]) -> list[Left]:
    """Those of a worker's backends, given by route, whose routes lead elsewhere or are gone."""
    places = []
    for key, backend in backends.items():
        entry, now = before.entries[key], after.entries.get(key)
        old, new = _address(entry), _address(now) if now else None
        if old is not None and old != new:
            alike = now is not None and _spoken(now) == _spoken(entry)
            places.append(Left(backend, old, new if alike else None, entry.route.mode is Mode.L7))
    return places


def _address(entry: Entry) -> Address | None:
    if entry.upstream.address is None:
        return None
    return Address(entry.upstream.address, split_backend(entry.route.backend)[1])


def _spoken(entry: Entry) -> object:
    route = entry.route
    return route.mode, route.backend_tls, route.send_proxy_protocol, entry.upstream.h2c


def connections(answer: str) -> tuple[int, int]:
    """Connections in use and idle, from the answer to `show servers conn` (HAProxy management guide, 9.3)."""
    header, *lines = answer.strip().removeprefix("# ").splitlines() or [""]
    columns = header.partition(" idle_per_thr")[0].split()
    rows = [dict(zip(columns, line.split(), strict=False)) for line in lines if line]
    return sum(int(row["used_cur"]) for row in rows), sum(int(row["idle_cur"]) for row in rows)


class Drain:
    """Looks after the backends that were left until nothing leads there any more."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self, place: Left, tell: Tell) -> None:
        """Ends idle connections now and as they come about, until there are none and none is in use. Raises OSError."""
        for command in place.purge():
            await tell(command)
        if place.pooled:
            task = asyncio.create_task(self._empty(place, tell))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stops looking."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _empty(self, place: Left, tell: Tell) -> None:
        looks = 0
        try:
            while True:
                answer = await tell(f"show servers conn {place.backend}")
                used, idle = connections(answer)
                if idle:
                    for command in place.purge():
                        await tell(command)
                elif not used:
                    return
                await asyncio.sleep(_SOON if looks < _SOON_LOOKS else _LATER)
                looks += 1
        except OSError:
            # The worker accepts nothing more since a reload: HAProxy itself has idle connections end now.
            return
