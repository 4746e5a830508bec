"""Finds out how a backend wants to be spoken to, because HAProxy 2.6 must be told: HTTP/2 without TLS has no ALPN.

A backend is asked when its route is added, until it answers for the first time, and again whenever HAProxy blames it
for a fault; so one that comes up later, or comes back as something else, is served within moments.
"""

import asyncio
import ipaddress
import socket
import struct
from dataclasses import dataclass, replace

import structlog

from mcproxy.errors import Refused
from mcproxy.model import Entry, Mode, Route, RouteKey, State, Upstream, split_backend
from mcproxy.table import Table

log = structlog.get_logger()

_CONNECT_TIMEOUT = 1.0
# The preface reads as a complete HTTP/1.1 request, so that both kinds of server answer it at once.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")  # RFC 9113, 3.4; empty SETTINGS
_SETTINGS_FRAME = 4
# PROXY protocol, version 2, command LOCAL: this connection is the proxy's own.
_LOCAL_HEADER = b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x20, 0, 0)
_ANSWER_TIMEOUT = 0.5
_COOLDOWN = 1.0
_FIRST_DELAY, _LAST_DELAY = 0.05, 5.0


@dataclass(frozen=True)
class Finding:
    """What a backend said. `certain` is False when nobody answered."""

    upstream: Upstream
    certain: bool


def needs_asking(route: Route) -> bool:
    """Whether anything about the route's backend cannot be read from the route itself."""
    host, _ = split_backend(route.backend)
    return not _is_literal(host) or (route.mode is Mode.L7 and not route.backend_tls)


def assumed(route: Route) -> Upstream:
    """What is taken for true before the backend was asked."""
    host, _ = split_backend(route.backend)
    return Upstream(host if _is_literal(host) else None)


async def find_out(route: Route, known: Upstream) -> Finding:
    """Asks the route's backend; `known` is kept where there is no answer. Never raises for what a backend does."""
    if not needs_asking(route):
        return Finding(assumed(route), certain=True)
    host, port = split_backend(route.backend)
    try:
        address = host if _is_literal(host) else await _resolve(host, port)
    except OSError:
        return Finding(known, certain=False)
    if route.mode is Mode.L4 or route.backend_tls:
        return Finding(Upstream(address), certain=True)
    try:
        h2c = await _speaks_h2c(address, port, proxied=route.send_proxy_protocol)
    except OSError:
        return Finding(replace(known, address=address), certain=False)
    return Finding(Upstream(address, h2c), certain=True)


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _resolve(host: str, port: int) -> str:
    found = await asyncio.wait_for(
        asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM), _CONNECT_TIMEOUT
    )
    # IPv4 first: a name like localhost has both, and most backends listen on that one only.
    return str(min(found, key=lambda entry: entry[0] != socket.AF_INET)[4][0])


async def _speaks_h2c(address: str, port: int, *, proxied: bool) -> bool:
    """Whether the backend answers an HTTP/2 preface with a SETTINGS frame. Raises OSError when it says nothing."""
    reader, writer = await asyncio.wait_for(asyncio.open_connection(address, port), _CONNECT_TIMEOUT)
    try:
        writer.write((_LOCAL_HEADER if proxied else b"") + _PREFACE)
        header = await asyncio.wait_for(reader.readexactly(9), _ANSWER_TIMEOUT)
    except asyncio.IncompleteReadError as error:
        # What accepts and hangs up without a word may be a forwarder whose backend is not up yet.
        raise ConnectionError("closed without an answer") from error
    finally:
        writer.close()
    return header[3] == _SETTINGS_FRAME and header[5:] == bytes(4)


class UpstreamWatch:
    """Asks again those backends of the table that are in doubt, each by one task at a time."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._doubts: dict[RouteKey, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def doubt(self, key: RouteKey) -> None:
        """Has the backend of this route asked soon, and again until it answers."""
        if key in self._doubts:
            self._doubts[key].set()
            return
        entry = self._table.state.entries.get(key)
        if entry is None or not needs_asking(entry.route):
            return
        self._doubts[key] = again = asyncio.Event()
        task = asyncio.create_task(self._settle(key, again))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run(self, faults: asyncio.Queue[RouteKey]) -> None:
        """Doubts every backend that HAProxy finds at fault, until cancelled."""
        while True:
            self.doubt(await faults.get())

    async def close(self) -> None:
        """Stops asking."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _settle(self, key: RouteKey, again: asyncio.Event) -> None:
        delay = _FIRST_DELAY
        try:
            while (entry := self._table.state.entries.get(key)) is not None:
                again.clear()
                if await self._revise(key, entry):
                    # One that answers and yet keeps failing is asked once in a while, not for every request.
                    await asyncio.sleep(_COOLDOWN)
                    if not again.is_set():
                        return
                else:
                    await asyncio.sleep(delay)
                    delay = min(2 * delay, _LAST_DELAY)
        finally:
            del self._doubts[key]

    async def _revise(self, key: RouteKey, entry: Entry) -> bool:
        """Asks once and programs the answer; whether that settled the doubt."""
        finding = await find_out(entry.route, entry.upstream)
        if finding.upstream == entry.upstream:
            return finding.certain

        def revised(state: State) -> State:
            # The route may have been replaced while its backend was being asked.
            if state.entries.get(key) != entry:
                return state
            return state.with_entry(key.listener, replace(entry, upstream=finding.upstream))

        log.info("backend changed", listener=key.listener, hostname=key.hostname, h2c=finding.upstream.h2c)
        try:
            await self._table.apply(revised)
        except Refused as error:
            log.warning("backend's change not applied", hostname=key.hostname, reason=str(error))
            return False
        return finding.certain
