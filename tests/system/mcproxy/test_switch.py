"""A route's backend changes by one AddRoute under load: nothing is lost, and the old backend's connections end."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from mcproxy.render import SPARES
from tests.system.mcproxy.authority import Authority, Files
from tests.system.mcproxy.backends import grpc_echo, http1, http2, tls_echo
from tests.system.mcproxy.clients import connect, get
from tests.system.mcproxy.daemon import Daemon, until
from tests.system.mcproxy.load import Ask, KeepAlive, Load, established, grpc_channel, web_socket
from tests.system.mcproxy.load import http2 as http2_client

_SWITCHES = 6
_NO_LOAD_STOPS_LONGER = 2.0


async def _empties(port: int, *, within: float = 3, but: int = 0) -> float:
    """After how many seconds the backend has no connections, but so many."""
    started = time.monotonic()

    async def empty() -> bool:
        return established(port) == but

    await until(empty, within)
    return time.monotonic() - started


async def _switched_back_and_forth(
    daemon: Daemon, files: Files, load: Load, ports: tuple[int, int], *clients: Ask
) -> None:
    """From "one" to "two" and back, so often; each time the one that was left ends up without a connection."""
    async with load.of(*clients):
        for number in range(1, _SWITCHES + 1):
            new, name = ports[number % 2], ("one", "two")[number % 2]
            answered = load.answered.total()
            await until(lambda before=answered: _more(load, before + 400))  # type: ignore[misc]  # a default
            load.allow(name)
            await daemon.l7("web.test", new, files)
            load.expect(name)
            await _empties(ports[1 - number % 2])
    assert load.failures == []
    assert set(load.answered) == {"one", "two"}
    assert load.longest_gap < _NO_LOAD_STOPS_LONGER


async def _more(load: Load, count: int) -> bool:
    return bool(load.failures) or load.answered.total() >= count


@pytest.mark.parametrize("serve", [http1, http2])
async def test_no_http1_request_is_lost(daemon: Daemon, authority: Authority, serve: Callable[..., object]) -> None:
    """On connections that are kept alive over all switches, as none of them takes a reload."""
    async with serve("one") as one, serve("two") as two:  # type: ignore[attr-defined]  # an async context
        files, load = authority.issue("web.test"), Load("one")
        await daemon.l7("web.test", one, files)
        before = daemon.reloads()
        clients = [KeepAlive(daemon.port, "web.test", authority.client("http/1.1")) for _ in range(4)]
        await _switched_back_and_forth(daemon, files, load, (one, two), *clients)
        assert daemon.reloads() == before
        assert [client.connections for client in clients] == [1] * 4
        for client in clients:
            client.close()


@pytest.mark.parametrize("serve", [http1, http2])
async def test_no_http2_stream_is_lost(daemon: Daemon, authority: Authority, serve: Callable[..., object]) -> None:
    """Sixteen at a time on each of two connections."""
    async with serve("one") as one, serve("two") as two:  # type: ignore[attr-defined]  # an async context
        files, load = authority.issue("web.test"), Load("one")
        await daemon.l7("web.test", one, files)
        tls = authority.client("h2")
        async with (
            http2_client(daemon.port, "web.test", tls) as first,
            http2_client(daemon.port, "web.test", tls) as second,
        ):
            await _switched_back_and_forth(daemon, files, load, (one, two), *[first] * 16, *[second] * 16)


async def test_grpc_calls_go_on_and_new_ones_go_elsewhere(daemon: Daemon, authority: Authority) -> None:
    """A stream that lasts over the switch stays with its backend, whose last connection ends with it."""
    async with grpc_echo(name="one") as one, grpc_echo(name="two") as two:
        files, load = authority.issue("web.test"), Load("one")
        await daemon.l7("web.test", one, files)
        async with grpc_channel(daemon.port, "web.test", authority) as channel:
            say = channel.unary_unary("/test.Echo/Say")

            async def ask() -> str:
                call = say(b"hello", timeout=10)
                assert await call == b"hello"
                return str(dict(await call.initial_metadata())["backend"])

            chat = channel.stream_stream("/test.Echo/Chat")(timeout=60)
            async with load.of(*[ask] * 8):
                await chat.write(b"before")
                assert await chat.read() == b"before"
                await until(lambda: _more(load, 50))
                load.allow("two")
                await daemon.l7("web.test", two, files)
                load.expect("two")
                await _empties(one, but=1)
                for number in range(100):
                    await chat.write(b"%d" % number)
                    assert await chat.read() == b"%d" % number
                await until(lambda: _more(load, load.answered["one"] + 50))
            assert dict(await chat.initial_metadata())["backend"] == "one"
            await chat.done_writing()
            await _empties(one)
    assert load.failures == []
    assert load.longest_gap < _NO_LOAD_STOPS_LONGER


async def test_long_lived_connections_stay_and_new_ones_go_elsewhere(daemon: Daemon, authority: Authority) -> None:
    """Relayed, upgraded, and in the middle of a request; each is answered over a switch, a removal and a reload."""
    async with AsyncExitStack() as stack:
        server = authority.server("raw.test")
        raws = [await stack.enter_async_context(tls_echo(name, server)) for name in ("one", "two")]
        webs = [await stack.enter_async_context(http1(name)) for name in ("one", "two")]
        files, load = authority.issue("web.test"), Load("one")
        tls = authority.client("http/1.1")
        await daemon.l4("raw.test", raws[0])
        await daemon.l7("web.test", webs[0], files)
        through = await connect(daemon.port, "raw.test", tls)
        assert await through.line() == {"backend": "one"}
        upgraded = await web_socket(daemon.port, "web.test", tls)
        sending = await connect(daemon.port, "web.test", tls)
        sending.writer.write(b"POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 8\r\n\r\n1234")

        async def ask() -> str:
            connection = await connect(daemon.port, "raw.test", tls)
            try:
                return str((await connection.line())["backend"])
            finally:
                connection.close()

        async def both_echo() -> None:
            for _ in range(20):
                assert await through.echo(b"still here") == b"still here"
                assert await upgraded.echo(b"still here") == b"still here"

        async with load.of(ask, ask):
            await until(lambda: _more(load, 10))
            load.allow("two")
            await daemon.l4("raw.test", raws[1])
            load.expect("two")
            await daemon.l7("web.test", webs[1], files)
            await both_echo()
            await until(lambda: _more(load, load.answered["one"] + 10))
        await daemon.remove("web.test")
        await daemon.remove("raw.test")
        await both_echo()
        await daemon.change()
        await both_echo()
        sending.writer.write(b"5678")
        assert b'"backend": "one"' in await asyncio.wait_for(sending.reader.readuntil(b"}"), 10)
        assert (established(raws[0]), established(raws[1])) == (1, 0)
        for connection in (through, upgraded, sending):
            connection.close()
        await asyncio.gather(_empties(raws[0]), _empties(webs[0]))
    assert load.failures == []
    assert load.longest_gap < _NO_LOAD_STOPS_LONGER


async def test_a_removed_route_is_refused_at_once_and_its_idle_connections_end(
    daemon: Daemon, authority: Authority
) -> None:
    async with http1("one") as one:
        before = daemon.reloads()
        await daemon.l7("web.test", one, authority.issue("web.test"))
        client = await connect(daemon.port, "web.test", authority.client("http/1.1"))
        assert (await client.request("web.test")).json["backend"] == "one"
        assert established(one) == 1
        await daemon.remove("web.test")
        await _empties(one)
        assert (await client.request("web.test")).status == 503
        client.close()
        with pytest.raises(ConnectionError):
            await get(daemon.port, "web.test", authority.client())
        assert daemon.reloads() == before


async def test_no_request_is_lost_over_reloads(daemon: Daemon, authority: Authority) -> None:
    """Clients that are told when a connection ends; and one that was idle since before everything."""
    async with http1("one") as one, http1("two") as two:
        files, load = authority.issue("web.test"), Load("one")
        tls = authority.client("http/1.1")
        await daemon.l7("web.test", one, files)
        idle = KeepAlive(daemon.port, "web.test", tls)
        assert await idle() == "one"
        before = daemon.reloads()
        clients = [KeepAlive(daemon.port, "web.test", tls) for _ in range(4)]
        async with load.of(*clients):
            for number in range(1, SPARES + 4):
                name = ("one", "two")[number % 2]
                load.allow(name)
                await daemon.l7("web.test", (one, two)[number % 2], files)
                load.expect(name)
                if number % 4 == 0:
                    files = authority.issue("web.test")
                    await daemon.l7("web.test", (one, two)[number % 2], files)
            answered = load.answered.total()
            await until(lambda: _more(load, answered + 50))
        assert load.failures == []
        assert load.longest_gap < _NO_LOAD_STOPS_LONGER
        assert daemon.reloads() - before >= 4
        assert await idle() == "two"
        for client in (*clients, idle):
            client.close()
