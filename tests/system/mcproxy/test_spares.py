"""New routes that HAProxy takes on without a reload: they are routes like any other."""

import os
import signal
from collections.abc import Callable

import grpc
import pytest

from mcproxy.render import SPARES
from tests.system.mcproxy.authority import Authority
from tests.system.mcproxy.backends import grpc_echo, http1, http2, tls_echo
from tests.system.mcproxy.clients import connect, get
from tests.system.mcproxy.daemon import Daemon, free_port, until


async def test_plain_routes_of_every_kind_cost_no_reload(daemon: Daemon, authority: Authority) -> None:
    """On either listener, over IPv4 or a name, with certificates new, shared or of many lines."""
    before = daemon.reloads()
    shared = authority.issue("one.test")
    shared.cert.write_text(shared.cert.read_text().replace("-----BEGIN", "\n\n-----BEGIN"))
    async with http1("one") as one, http2("two") as two, tls_echo("raw", authority.server("raw.test")) as raw:
        for listener in (0, 1):
            await daemon.l7("one.test", one, shared, listener=listener)
            await daemon.l7("two.test", f"localhost:{two}", authority.issue("two.test"), listener=listener)
            await daemon.l4("raw.test", raw, listener=listener)
        await daemon.l7("wild.test", one, shared)
        assert daemon.reloads() == before
        for port in daemon.ports:
            assert (await get(port, "one.test", authority.client())).json["protocol"] == "http/1.1"
            assert (await get(port, "two.test", authority.client())).json["protocol"] == "h2"
            connection = await connect(port, "raw.test", authority.client())
            assert await connection.line() == {"backend": "raw"}
            connection.close()
            with pytest.raises(ConnectionError):
                await connect(port, "other.test", authority.client())


async def test_spares_are_renewed_when_they_are_used_up(daemon: Daemon, authority: Authority) -> None:
    before = daemon.reloads()
    async with http1("web") as port:
        names = [f"n{number}.test" for number in range(2 * SPARES)]
        for name in names:
            await daemon.l7(name, port, authority.issue(name))
        assert daemon.reloads() - before == 1
        for name in names:
            assert (await get(daemon.port, name, authority.client())).status == 200


async def _after_nothing(_daemon: Daemon) -> None:
    """As it was added."""


async def _after_a_reload(daemon: Daemon) -> None:
    await daemon.change()


async def _after_a_crash(daemon: Daemon) -> None:
    os.kill(daemon.haproxy_pids()[0], signal.SIGKILL)

    async def again() -> bool:
        return "haproxy started again" in daemon.log.read_text()

    await until(again)


async def _after_a_restart(daemon: Daemon) -> None:
    await daemon.end(signal.SIGKILL)
    await daemon.start()


@pytest.mark.parametrize("event", [_after_nothing, _after_a_reload, _after_a_crash, _after_a_restart])
async def test_they_last_and_change_and_go(
    daemon: Daemon, authority: Authority, event: Callable[[Daemon], object]
) -> None:
    files = authority.issue("web.test")
    async with http1("one") as one, http1("two") as two:
        await daemon.l7("web.test", one, files)
        await daemon.l7("other.test", one, authority.issue("other.test"))
        await event(daemon)  # type: ignore[misc]  # a coroutine
        assert (await get(daemon.port, "web.test", authority.client())).json["backend"] == "one"
        await daemon.l7("web.test", two, files)
        assert (await get(daemon.port, "web.test", authority.client())).json["backend"] == "two"
        assert (await get(daemon.port, "other.test", authority.client())).json["backend"] == "one"
        await daemon.remove("web.test")
        with pytest.raises(ConnectionError):
            await connect(daemon.port, "web.test", authority.client())
        await daemon.l7("web.test", one, files)
        assert (await get(daemon.port, "web.test", authority.client())).json["backend"] == "one"


async def test_their_backends_are_watched(daemon: Daemon, authority: Authority) -> None:
    """A fault in a spare backend leads to the route that is in it."""
    before = daemon.reloads()
    async with http1("web") as port:
        await daemon.l7("web.test", port, authority.issue("web.test"))
        assert (await get(daemon.port, "web.test", authority.client())).status == 200
    async with http2("web", port=port):

        async def answered() -> bool:
            return (await get(daemon.port, "web.test", authority.client())).status == 200

        await until(answered)
        assert daemon.reloads() == before


async def test_grpc_flows_through_them(daemon: Daemon, authority: Authority) -> None:
    async with grpc_echo() as port:
        await daemon.l7("grpc.test", port, authority.issue("grpc.test"))
        credentials = grpc.ssl_channel_credentials(authority.pem.encode())
        options = [("grpc.ssl_target_name_override", "grpc.test"), ("grpc.default_authority", "grpc.test")]
        async with grpc.aio.secure_channel(f"127.0.0.1:{daemon.port}", credentials, options) as channel:
            assert await channel.unary_unary("/test.Echo/Say")(b"hello", timeout=10) == b"hello"


async def test_an_open_connection_of_an_earlier_backend_is_no_obstacle(daemon: Daemon, authority: Authority) -> None:
    """One name is added, removed under an open connection, and added to another backend."""
    async with (
        tls_echo("one", authority.server("raw.test")) as one,
        tls_echo("two", authority.server("raw.test")) as two,
    ):
        await daemon.l4("raw.test", one)
        first = await connect(daemon.port, "raw.test", authority.client())
        await daemon.remove("raw.test")
        await daemon.l4("raw.test", two)
        second = await connect(daemon.port, "raw.test", authority.client())
        assert await first.line() == {"backend": "one"}
        assert await second.line() == {"backend": "two"}
        assert await first.echo(b"still here") == b"still here"
        first.close()
        second.close()


async def test_a_backend_of_no_address_waits_for_one(daemon: Daemon, authority: Authority) -> None:
    before = daemon.reloads()
    await daemon.l7("lost.test", f"nowhere.invalid:{free_port()}", authority.issue("lost.test"))
    assert daemon.reloads() - before == 1
    assert (await get(daemon.port, "lost.test", authority.client())).status == 503
