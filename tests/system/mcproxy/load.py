"""A steady load whose every request is judged: was it answered, by whom, and how long after the one before."""

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events

from tests.system.mcproxy.authority import Authority
from tests.system.mcproxy.clients import Connection, connect

_ESTABLISHED = "01"

Ask = Callable[[], Awaitable[str]]
"""One request; gives the name of the backend that answered."""


def established(port: int) -> int:
    """Connections that somebody has to this port of 127.0.0.1 at this moment, as the kernel counts them."""
    remote = f"0100007F:{port:04X}"
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(row[2] == remote and row[3] == _ESTABLISHED for row in rows)


class Load:
    """Clients of one route. Whoever begins a request after `expect` must be answered by that backend."""

    def __init__(self, backend: str) -> None:
        self.answered: Counter[str] = Counter()
        self.failures: list[str] = []
        self.longest_gap = 0.0
        """Between the ends of two requests of one client, in seconds."""
        self._allowed = {backend}
        self._done = asyncio.Event()

    def allow(self, backend: str) -> None:
        """From now on this one may answer, too."""
        self._allowed = {*self._allowed, backend}

    def expect(self, backend: str) -> None:
        """From now on only this one may answer."""
        self._allowed = {backend}

    async def run(self, ask: Ask) -> None:
        """One request after another, until the load ends."""
        last = time.monotonic()
        while not self._done.is_set():
            allowed = self._allowed
            try:
                name = await asyncio.wait_for(ask(), 10)
            except (OSError, EOFError, AssertionError, grpc.RpcError) as error:
                self.failures.append(repr(error))
                return
            if name not in allowed | self._allowed:
                self.failures.append(f"answered by {name}, not {allowed}")
            self.answered[name] += 1
            now = time.monotonic()
            self.longest_gap, last = max(self.longest_gap, now - last), now

    @asynccontextmanager
    async def of(self, *clients: Ask) -> AsyncIterator[None]:
        """All of them at once, as long as this lasts."""
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(self.run(client))
            try:
                yield
            finally:
                self._done.set()


class KeepAlive:
    """An HTTP/1.1 client that makes another connection only when it was told that this one ends."""

    def __init__(self, port: int, hostname: str, tls: ssl.SSLContext) -> None:
        self._target = (port, hostname, tls)
        self._connection: Connection | None = None
        self.connections = 0

    async def __call__(self) -> str:
        if self._connection is None:
            self._connection = await connect(*self._target)
            self.connections += 1
        answer = await self._connection.request(self._target[1], body=b"x" * 100)
        assert answer.status == 200, answer
        if answer.last:
            self.close()
        return str(answer.json["backend"])

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Http2:
    """One HTTP/2 connection for any number of requests at once."""

    def __init__(self, connection: Connection, hostname: str, path: str = "/") -> None:
        self._connection, self._hostname, self._path = connection, hostname, path
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._h2.initiate_connection()
        self._answers: dict[int, tuple[bytearray, asyncio.Future[bytes]]] = {}
        self._flush()
        self._reading = asyncio.create_task(self._read())

    async def __call__(self) -> str:
        stream = self._h2.get_next_available_stream_id()
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[stream] = bytearray(), answer
        fields = [(":method", "GET"), (":scheme", "https"), (":authority", self._hostname), (":path", self._path)]
        self._h2.send_headers(stream, fields, end_stream=True)
        self._flush()
        # JSON keeps the order of its keys: the backend's name is first.
        return (await answer).decode().split('"')[3]

    def _flush(self) -> None:
        self._connection.writer.write(self._h2.data_to_send())

    async def _read(self) -> None:
        try:
            while data := await self._connection.reader.read(65536):
                for event in self._h2.receive_data(data):
                    self._take(event)
                self._flush()
            raise ConnectionError("the connection ended")
        except OSError as error:
            for _, answer in self._answers.values():
                if not answer.done():
                    answer.set_exception(error)

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived() if dict(event.headers or ())[":status"] != "200":
                self._answers[event.stream_id][1].set_exception(ConnectionError(repr(event)))
            case h2.events.DataReceived():
                self._answers[event.stream_id][0].extend(event.data)
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                raise ConnectionError(repr(event))
            case h2.events.StreamEnded():
                content, answer = self._answers.pop(event.stream_id)
                if not answer.done():
                    answer.set_result(bytes(content))

    async def close(self) -> None:
        self._reading.cancel()
        self._connection.close()
        await asyncio.gather(self._reading, return_exceptions=True)


@asynccontextmanager
async def http2(port: int, hostname: str, tls: ssl.SSLContext, path: str = "/") -> AsyncIterator[Http2]:
    """An HTTP/2 client."""
    client = Http2(await connect(port, hostname, tls), hostname, path)
    try:
        yield client
    finally:
        await client.close()


def grpc_channel(port: int, hostname: str, authority: Authority) -> grpc.aio.Channel:
    """A channel that does not try again by itself."""
    options: list[tuple[str, Any]] = [
        ("grpc.ssl_target_name_override", hostname),
        ("grpc.default_authority", hostname),
        ("grpc.enable_retries", 0),
    ]
    credentials = grpc.ssl_channel_credentials(authority.pem.encode())
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options)


async def web_socket(port: int, hostname: str, tls: ssl.SSLContext) -> Connection:
    """An upgraded connection to a backend that echoes."""
    connection = await connect(port, hostname, tls)
    connection.writer.write(
        f"GET / HTTP/1.1\r\nHost: {hostname}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    head = await asyncio.wait_for(connection.reader.readuntil(b"\r\n\r\n"), 10)
    assert head.startswith(b"HTTP/1.1 101"), head
    return connection
