"""A request that meets the restart of its backend is held and answered; none is sent twice, none waits for ever."""

import asyncio
import socket
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest

from tests.system.mcproxy.authority import Authority
from tests.system.mcproxy.backends import tls_echo
from tests.system.mcproxy.clients import connect, get
from tests.system.mcproxy.daemon import Daemon, free_port, until

_AWAY = 0.7
_SOON = 1.5
_PATIENCE = 3.0
_CURL_TIMED_OUT = 28


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@asynccontextmanager
async def _web_process(folder: Path, port: int) -> AsyncIterator[None]:
    """A real web server, killed as a container's is."""
    (folder / "index.html").write_text("hello")
    process = await asyncio.create_subprocess_exec(
        "busybox", "httpd", "-f", "-p", f"127.0.0.1:{port}", "-h", folder, stdout=DEVNULL, stderr=DEVNULL
    )
    try:
        await until(lambda: _listens(port))
        yield
    finally:
        process.kill()
        await process.wait()


def _led_nowhere(port: int) -> list[socket.socket]:
    """A port on which connecting is neither taken nor refused: what a container's is like while its network goes."""
    listener = socket.create_server(("127.0.0.1", port), backlog=0)
    waiting = []
    for _ in range(8):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", port))
        waiting.append(client)
    return [listener, *waiting]


async def _get(daemon: Daemon, authority: Authority) -> tuple[int, float]:
    """The status of an answer and when it came."""
    connection = await connect(daemon.port, "web.test", authority.client("http/1.1"))
    with closing(connection):
        connection.writer.write(b"GET /index.html HTTP/1.1\r\nHost: web.test\r\n\r\n")
        head = await asyncio.wait_for(connection.reader.readuntil(b"\r\n"), 10)
        return int(head.split()[1]), time.monotonic()


@pytest.mark.parametrize("refuses", [True, False], ids=["refused", "led nowhere"])
async def test_requests_are_held_until_the_backend_is_back(
    daemon: Daemon, authority: Authority, folder: Path, refuses: bool
) -> None:
    port = free_port()
    async with _web_process(folder, port):
        await daemon.l7("web.test", port, authority.issue("web.test"))
        assert (await _get(daemon, authority))[0] == 200
    away = [] if refuses else _led_nowhere(port)
    requests = [asyncio.create_task(_get(daemon, authority)) for _ in range(10)]
    await asyncio.wait(requests, timeout=_AWAY)
    for each in away:
        each.close()
    async with _web_process(folder, port):
        back = time.monotonic()
        answers = await asyncio.gather(*requests)
    assert {status for status, _ in answers} == {200}
    assert max(at for _, at in answers) - back < _SOON


async def test_a_passed_through_connection_is_held_as_well(daemon: Daemon, authority: Authority) -> None:
    async with tls_echo("raw", authority.server("raw.test")) as port:
        await daemon.l4("raw.test", port)
    connecting = asyncio.create_task(connect(daemon.port, "raw.test", authority.client()))
    await asyncio.wait([connecting], timeout=_AWAY)
    async with tls_echo("raw", authority.server("raw.test"), port=port):
        connection = await asyncio.wait_for(connecting, _SOON)
        assert await connection.line() == {"backend": "raw"}
        connection.close()


async def test_held_requests_follow_their_route_to_another_backend(
    daemon: Daemon, authority: Authority, folder: Path
) -> None:
    """As when a container comes back on another port."""
    files, other = authority.issue("web.test"), free_port()
    await daemon.l7("web.test", free_port(), files)
    requests = [asyncio.create_task(_get(daemon, authority)) for _ in range(10)]
    await asyncio.wait(requests, timeout=_AWAY)
    async with _web_process(folder, other):
        await daemon.l7("web.test", other, files)
        answers = await asyncio.wait_for(asyncio.gather(*requests), _SOON)
    assert {status for status, _ in answers} == {200}


@pytest.mark.parametrize("refuses", [True, False], ids=["refused", "led nowhere"])
async def test_patience_ends(daemon: Daemon, authority: Authority, refuses: bool) -> None:
    port = free_port()
    away = [] if refuses else _led_nowhere(port)
    await daemon.l7("web.test", port, authority.issue("web.test"))
    started = time.monotonic()
    assert (await get(daemon.port, "web.test", authority.client())).status == 503
    assert _PATIENCE - 0.5 < time.monotonic() - started < _PATIENCE + 2
    for each in away:
        each.close()


async def test_a_request_whose_client_gave_up_is_not_sent_any_more(daemon: Daemon, authority: Authority) -> None:
    """The client may have sent it once more by then."""
    port = free_port()
    seen: list[bytes] = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            seen.append((await reader.readuntil(b"\r\n")).split()[1])
            writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        writer.close()

    async def post(path: str, patience: str) -> int | None:
        target = ["--resolve", f"web.test:{daemon.port}:127.0.0.1", f"https://web.test:{daemon.port}{path}"]
        curl = ["curl", "-sS", "--http1.1", "--max-time", patience, "--cacert", "/dev/stdin", "-d", "x", *target]
        process = await asyncio.create_subprocess_exec(*curl, stdin=PIPE, stderr=DEVNULL)
        await process.communicate(authority.pem.encode())
        return process.returncode

    await daemon.l7("web.test", port, authority.issue("web.test"))
    kept = asyncio.create_task(post("/kept", "10"))
    assert await post("/given-up", "0.5") == _CURL_TIMED_OUT
    async with await asyncio.start_server(note, "127.0.0.1", port):
        assert await kept == 0
        await asyncio.wait_for(post("/later", "10"), 10)
    assert [path for path in seen if path.startswith(b"/")] == [b"/kept", b"/later"]


async def test_a_request_that_was_sent_is_never_sent_again(daemon: Daemon, authority: Authority) -> None:
    """Its backend may have acted on it before it died."""
    seen = 0

    async def take_and_die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        head = await reader.readuntil(b"\r\n\r\n")
        seen += head.startswith(b"POST")
        writer.close()

    async with await asyncio.start_server(take_and_die, "127.0.0.1", 0) as server:
        await daemon.l7("web.test", server.sockets[0].getsockname()[1], authority.issue("web.test"))
        assert (await get(daemon.port, "web.test", authority.client())).status == 502
    assert seen == 1
