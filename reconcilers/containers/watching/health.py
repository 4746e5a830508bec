"""Asks one container once whether it is well: over HTTP, with a connection, by a command inside it, or by the kernel.

What the kernel says of the sockets in the container's own network namespace is
exact and costs the container nothing: no connection is made, and rootlessport,
which accepts connections for containers that do not listen yet, is not in the
way. Where it cannot be asked, or the namespace is the host's, a connection
decides that is not closed at once.
"""

import asyncio
import os
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from errno import ECONNREFUSED
from typing import Final

import h11

from api.resolve import ResolvedHealth
from reconcilers.containers.engine.podman import Engine
from reconcilers.containers.engine.transport import EngineError
from reconcilers.containers.model import ContainerObservation
from reconcilers.containers.watching.commands import Commands
from reconcilers.containers.watching.listening import reachable_ports, reachable_ports_by_table

_CONNECT: Final = 1.0
"""Seconds. The longest wait for an answer of a container that has no check."""
_CLOSED_WITHIN: Final = 0.05
"""Seconds. A connection that lasts so long has somebody at its other end."""
_MOST_BYTES: Final = 1 << 16
_PUBLISHED: Final = re.compile(r":(?P<first>\d+)(?:-(?P<last>\d+))?->(?P<inside>\d+)(?:-\d+)?/tcp$")

# Whose certificate a container shows is its clients' business.
_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_TLS.check_hostname = False
_TLS.verify_mode = ssl.CERT_NONE


class Unwell(Exception):
    """The check failed; the message says how, in a few words for a person."""


class Checks:
    """Every way to ask a container."""

    def __init__(self, engine: Engine) -> None:
        self._commands = Commands(engine)

    async def ask(self, container: ContainerObservation, health: ResolvedHealth) -> None:
        """Returns where it is well. Raises Unwell, and Transient where the engine cannot say."""
        if health.exec:
            await self._run(container, health)
            return
        try:
            async with asyncio.timeout(health.timeout):
                await (_get(container, health) if health.http else _connect(container, health))
        except TimeoutError:
            raise Unwell(_silent(health)) from None
        except OSError as error:
            raise Unwell(_words(error)) from error

    async def close(self) -> None:
        """Waits for no command any more."""
        await self._commands.close()

    async def listens(self, container: ContainerObservation) -> bool:
        """Whether it can be reached at the port of each of its routes."""
        if (inside := await _listened_to(container)) is not None:
            return set(container.listens_on) <= inside
        return all([await _accepts(served.port) for served in container.routes])

    async def _run(self, container: ContainerObservation, health: ResolvedHealth) -> None:
        try:
            ended = await self._commands.run(container.id, health.exec, health.timeout)
        except EngineError as error:
            raise Unwell(error.message) from error
        if ended is None:
            raise Unwell(_silent(health))
        if ended.code != 0:
            said = f": {ended.last_line}" if ended.last_line else ""
            raise Unwell(f"`{' '.join(health.exec)}` exited with {ended.code}{said}")


def listens_already(container: ContainerObservation) -> bool:
    """What can be told at once; False where only a closer look can say."""
    if not container.routes:
        return True
    if container.networks:
        with suppress(OSError):
            return set(container.listens_on) <= reachable_ports(container.pid)
    return False


async def _listened_to(container: ContainerObservation) -> set[int] | None:
    """The ports listened to in its own namespace; None where it has none, or just ended, or is hidden from us."""
    if not container.networks:
        return None
    with suppress(OSError):
        return reachable_ports(container.pid)
    with suppress(OSError):
        return await asyncio.to_thread(reachable_ports_by_table, container.pid)
    return None


async def _get(container: ContainerObservation, health: ResolvedHealth) -> None:
    host, port = _address(container, health)
    name = health.hostname or (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    headers = [("Host", name), ("User-Agent", "mcp-agent"), ("Connection", "close")]
    request = h11.Request(method="GET", target=health.http, headers=headers)
    async with _connection(host, port, health) as (reader, writer):
        try:
            status = await _status(reader, writer, request)
        except h11.RemoteProtocolError as error:
            raise Unwell(f"GET {health.http} was not answered in HTTP: {error}") from error
    if status != health.status if health.status else status >= 400:
        raise Unwell(f"GET {health.http} answered {status}")


async def _status(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: h11.Request) -> int:
    """The status of the answer. Its body is read, so that the server is not cut off, but not for ever."""
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MOST_BYTES)
    for sent in (request, h11.EndOfMessage()):
        writer.write(http.send(sent) or b"")
    status, left = 0, _MOST_BYTES
    while (event := http.next_event()) is not h11.NEED_DATA or left > 0:
        if event is h11.NEED_DATA:
            data = await reader.read(left)
            if not data and not status:
                raise Unwell("the connection was closed without an answer")
            left -= len(data)
            http.receive_data(data)
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif not isinstance(event, h11.Data | h11.InformationalResponse):
            break
    if not status:
        raise Unwell(f"the first {_MOST_BYTES >> 10} KiB of the answer hold no end of its head")
    return status


async def _connect(container: ContainerObservation, health: ResolvedHealth) -> None:
    host, port = _address(container, health)
    listened_to, inside = await _listened_to(container), _inside(container, port)
    if listened_to is None or inside is None:
        async with _connection(host, port, health) as (reader, _):
            if await _closed(reader):
                raise Unwell("the connection was closed at once")
    elif inside in listened_to:
        async with _connection(host, port, health):
            return
    else:
        raise ConnectionRefusedError(ECONNREFUSED, f"nobody listens on {inside} in {container.name}")


async def _accepts(port: int) -> bool:
    try:
        async with asyncio.timeout(_CONNECT):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError):
        return False
    try:
        return not await _closed(reader)
    except OSError:
        return False
    finally:
        writer.transport.abort()


async def _closed(reader: asyncio.StreamReader) -> bool:
    try:
        async with asyncio.timeout(_CLOSED_WITHIN):
            return await reader.read(1) == b""
    except TimeoutError:
        return False


@asynccontextmanager
async def _connection(
    host: str, port: int, health: ResolvedHealth
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    tls, name = (_TLS, health.hostname) if health.tls else (None, None)
    reader, writer = await asyncio.open_connection(host, port, ssl=tls, server_hostname=name)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def _address(container: ContainerObservation, health: ResolvedHealth) -> tuple[str, int]:
    if health.port:
        return health.host, health.port
    port = next((served.port for served in container.routes if served.route == health.route), None)
    if port is None:
        raise Unwell(f"it was made without the route {health.route}")
    return "127.0.0.1", port


def _inside(container: ContainerObservation, port: int) -> int | None:
    """Which port in the container is published at that port of the host, where that is known."""
    for entry in container.ports:
        if found := _PUBLISHED.search(entry):
            first = int(found["first"])
            if first <= port <= int(found["last"] or first):
                return int(found["inside"]) + port - first
    return None


def _silent(health: ResolvedHealth) -> str:
    return f"no answer within {health.timeout:g} s"


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"no TLS: {(error.reason or str(error)).lower().replace('_', ' ')}"
    return os.strerror(error.errno).lower() if error.errno else str(error)
