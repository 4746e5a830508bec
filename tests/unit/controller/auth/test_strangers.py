"""What somebody without a token may cost the agent: no request is taken from them, no connection kept for nothing."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import grpc
import grpc.aio
import h2.config
import h2.connection
import h2.events
import pytest

from api.access import Role
from api.errors import McpError
from controller.auth import throttle
from controller.auth.methods import METHODS
from controller.auth.throttle import Throttle
from tests.unit.controller.auth.served import Served, serving

UNAUTHENTICATED, RESOURCE_EXHAUSTED = "16", "8"


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as served:
        yield served


def silent(served: Served) -> socket.socket:
    """Somebody who connects, and says nothing."""
    return socket.create_connection(("127.0.0.1", served.port), timeout=15)


def greeted(served: Served) -> ssl.SSLSocket:
    """Somebody who gets as far as TLS."""
    context = ssl.create_default_context(cafile=str(served.ca_file))
    context.set_alpn_protocols(["h2"])
    return context.wrap_socket(silent(served), server_hostname="localhost")


class Http2:
    """Somebody who speaks HTTP/2."""

    def __init__(self, served: Served) -> None:
        self._socket = greeted(served)
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._h2.initiate_connection()
        self._send()

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def _send(self) -> None:
        self._socket.sendall(self._h2.data_to_send())

    def recv(self, size: int) -> bytes:
        """What comes; answered as HTTP/2 wants it."""
        data = self._socket.recv(size)
        self._h2.receive_data(data)
        self._send()
        return data

    def begin(self, method: str) -> int:
        """The headers of a call, and nothing of what they announce."""
        stream = self._h2.get_next_available_stream_id()
        headers = {":method": "POST", ":scheme": "https", ":authority": "localhost", ":path": method, "te": "trailers"}
        self._h2.send_headers(stream, [*headers.items(), ("content-type", "application/grpc")])
        self._send()
        return stream

    def statuses(self, count: int) -> list[str]:
        """The gRPC statuses of the next calls that end."""
        found: list[str] = []
        while len(found) < count:
            for event in self._h2.receive_data(self._socket.recv(65536)):
                status = dict(list(getattr(event, "headers", None) or [])).get("grpc-status")
                found += [status] if status else []
            self._send()
        return found


def closed_after(open_it: Callable[[Served], socket.socket | Http2], served: Served) -> float:
    """Seconds until the agent closes such a connection."""
    with closing(open_it(served)) as connection:
        begun = time.monotonic()
        try:
            while connection.recv(65536):
                pass
        except ConnectionError:
            pass
        return time.monotonic() - begun


@pytest.mark.parametrize("open_it", [silent, greeted, Http2])
async def test_who_connects_and_asks_nothing_is_sent_away(
    tmp_path: Path, open_it: Callable[[Served], socket.socket | Http2]
) -> None:
    async with serving(tmp_path, patience=1) as served:
        assert 0.5 < await asyncio.to_thread(closed_after, open_it, served) < 10


async def test_no_method_waits_for_the_request_of_whoever_is_not_known(served: Served) -> None:
    def refused() -> list[str]:
        with closing(Http2(served)) as stranger:
            for method in METHODS:
                stranger.begin(method)
            return stranger.statuses(len(METHODS))

    found = await asyncio.to_thread(refused)
    assert found.count(UNAUTHENTICATED) == throttle._FREE
    assert found.count(RESOURCE_EXHAUSTED) == len(METHODS) - throttle._FREE


async def test_a_call_without_a_request_is_refused_though_its_caller_is_known(served: Served) -> None:
    metadata = (("authorization", f"Bearer {await served.token(role=Role.VIEWER)}"),)
    async with served.channel() as channel:
        call = channel.stream_unary("/mcp.v1.ControlPlaneService/GetService")(iter(()), metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError, match="carries no request") as caught:
            await call
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_there_are_so_many_connections_and_the_socket_has_its_own(tmp_path: Path) -> None:
    async with serving(tmp_path, api={"max_connections": 3}) as served:
        strangers = [silent(served) for _ in range(3)]
        assert await asyncio.to_thread(closed_after, silent, served) < 5
        async with served.local() as client:
            assert await client.services()
        for stranger in strangers:
            stranger.close()
        async with served.client(await served.token()) as client, asyncio.timeout(10):
            while True:
                try:
                    assert await client.services()
                    break
                except McpError:
                    await asyncio.sleep(0.1)


def test_one_asks_about_so_many_of_one_address_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "_AT_ONCE", 2)
    slow = Throttle()
    with slow.asking("192.0.2.1") as first, slow.asking("192.0.2.1") as second:
        assert first
        assert second
        with slow.asking("192.0.2.1") as third, slow.asking("192.0.2.2") as neighbour:
            assert (third, neighbour) == (False, True)
    with slow.asking("192.0.2.1") as again:
        assert again
