"""Starting, stopping, dying: what survives, and that nothing is left behind."""

import asyncio
import contextlib
import os
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

import pytest

from api.gen.mc_proxy.v1 import admin_pb2 as pb
from tests.system.mcproxy.authority import Authority
from tests.system.mcproxy.backends import http1, tls_echo
from tests.system.mcproxy.clients import connect, get
from tests.system.mcproxy.daemon import PROGRAM, Daemon, until


async def _fill(daemon: Daemon, authority: Authority, web: int, raw: int) -> None:
    await daemon.l7("web.test", web, authority.issue("web.test"))
    await daemon.l4("raw.test", raw, listener=1)
    rule = pb.FirewallRule(type=pb.FIREWALL_RULE_TYPE_IP, value="203.0.113.7")
    await daemon.admin.AddFirewallRule(pb.AddFirewallRuleRequest(rule=rule))
    limit = pb.SetListenerMaxConnectionsRequest(listener_addr=daemon.addr, max_connections=50)
    await daemon.admin.SetListenerMaxConnections(limit)


async def _serves(daemon: Daemon, authority: Authority) -> None:
    assert (await get(daemon.ports[0], "web.test", authority.client())).status == 200
    connection = await connect(daemon.ports[1], "raw.test", authority.client())
    assert await connection.line() == {"backend": "raw"}
    connection.close()
    rules = await daemon.admin.GetFirewallRules(pb.GetFirewallRulesRequest())
    assert [rule.value for rule in rules.rules] == ["203.0.113.7"]
    status = await daemon.admin.GetStatus(pb.GetStatusRequest())
    assert [listener.max_connections for listener in status.listeners] == [50, 0]


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_a_restart_brings_everything_back(daemon: Daemon, authority: Authority, sign: signal.Signals) -> None:
    """After every kind of end, also one that mcproxyd does not notice."""
    async with http1("web") as web, tls_echo("raw", authority.server("raw.test")) as raw:
        await _fill(daemon, authority, web, raw)
        await _serves(daemon, authority)
        code = await daemon.end(sign)
        assert code == (-signal.SIGKILL if sign == signal.SIGKILL else 0)
        await daemon.start()
        await _serves(daemon, authority)


async def test_killed_mcproxyd_takes_haproxy_with_it(daemon: Daemon, authority: Authority) -> None:
    """Also the old workers, whose connections are still open."""
    async with tls_echo("raw", authority.server("raw.test")) as port:
        await daemon.l4("raw.test", port)
        kept = await connect(daemon.port, "raw.test", authority.client())
        assert await kept.line() == {"backend": "raw"}
        await daemon.l4("other.test", port)
        await daemon.change()
        assert len(daemon.haproxy_pids()) == 3
        await daemon.end(signal.SIGKILL)

        async def all_gone() -> bool:
            return daemon.haproxy_pids() == []

        await until(all_gone, 5)
        kept.close()
        await daemon.start()
        assert [route.hostname for route in await daemon.routes()] == ["other.test", "raw.test"]


@pytest.mark.parametrize("whom", ["master", "worker"])
async def test_killed_haproxy_is_started_again_at_once(daemon: Daemon, authority: Authority, whom: str) -> None:
    async with http1("web") as web, tls_echo("raw", authority.server("raw.test")) as raw:
        await _fill(daemon, authority, web, raw)
        for _ in range(3):
            before = daemon.haproxy_pids()
            os.kill(before[0 if whom == "master" else -1], signal.SIGKILL)
            killed = time.monotonic()

            async def answers() -> bool:
                try:
                    return (await get(daemon.port, "web.test", authority.client())).status == 200
                except OSError:
                    return False

            await until(answers)
            assert time.monotonic() - killed < 2
            await until(daemon.serving)
            await _serves(daemon, authority)
            assert not set(before) & set(daemon.haproxy_pids())
            await daemon.l4("more.test", raw)


async def test_open_connections_may_finish_after_sigterm(folder: Path, authority: Authority) -> None:
    """mcproxyd leaves with the last of them, well before its timeout; new ones are refused meanwhile."""
    daemon = Daemon(folder, head="shutdown_timeout = 20.0")
    await daemon.start()
    async with tls_echo("raw", authority.server("raw.test")) as port:
        await daemon.l4("raw.test", port)
        kept = await connect(daemon.port, "raw.test", authority.client())
        assert await kept.line() == {"backend": "raw"}
        ending = asyncio.create_task(daemon.end())

        async def refuses() -> bool:
            try:
                (await connect(daemon.port, "raw.test", authority.client())).close()
            except OSError:
                return True
            return False

        await until(refuses)
        assert await kept.echo(b"still here") == b"still here"
        assert not ending.done()
        kept.close()
        started = time.monotonic()
        assert await ending == 0
        assert time.monotonic() - started < 5
    assert daemon.haproxy_pids() == []


async def test_the_timeout_ends_what_does_not_finish(folder: Path, authority: Authority) -> None:
    daemon = Daemon(folder, head="shutdown_timeout = 0.5")
    await daemon.start()
    async with tls_echo("raw", authority.server("raw.test")) as port:
        await daemon.l4("raw.test", port)
        kept = await connect(daemon.port, "raw.test", authority.client())
        assert await kept.line() == {"backend": "raw"}
        started = time.monotonic()
        assert await daemon.end() == 0
        assert 0.5 <= time.monotonic() - started < 5
        assert await kept.reader.read() == b""
        kept.close()
    assert daemon.haproxy_pids() == []


async def test_a_second_mcproxyd_leaves_the_first_alone(daemon: Daemon, authority: Authority) -> None:
    async with http1("web") as port:
        await daemon.l7("web.test", port, authority.issue("web.test"))
        second = await asyncio.create_subprocess_exec(
            PROGRAM, "server", "-c", daemon.config, stdout=DEVNULL, stderr=PIPE
        )
        _, output = await second.communicate()
        assert second.returncode == 1
        assert output.decode() == f"Error: another mcproxyd uses {daemon.runtime}\n"
        assert (await get(daemon.port, "web.test", authority.client())).status == 200
        await daemon.l7("more.test", port, authority.issue("more.test"))


async def test_a_port_that_is_taken_is_named(daemon: Daemon, folder: Path) -> None:
    (folder / "other").mkdir()
    other = Daemon(folder / "other")
    other.ports = daemon.ports[:1]
    other.configure([""])
    process = await asyncio.create_subprocess_exec(PROGRAM, "server", "-c", other.config, stdout=DEVNULL, stderr=PIPE)
    _, output = await process.communicate()
    assert process.returncode == 1
    assert "Address already in use" in output.decode()
    assert str(daemon.port) in output.decode().splitlines()[-1]


async def test_an_emptied_table_is_empty(daemon: Daemon, authority: Authority) -> None:
    """Stopped, its database deleted, started: no route, and AddRoute brings them back."""
    async with http1("web") as port:
        files = authority.issue("web.test")
        await daemon.l7("web.test", port, files)
        await daemon.end()
        daemon.forget_routes()
        await daemon.start()
        assert await daemon.routes() == []
        with pytest.raises(ConnectionError):
            await connect(daemon.port, "web.test", authority.client())
        await daemon.l7("web.test", port, files)
        assert (await get(daemon.port, "web.test", authority.client())).status == 200


async def test_the_file_seeds_only_a_new_database(folder: Path, authority: Authority) -> None:
    async with tls_echo("raw", authority.server("raw.test")) as port, http1("web") as web:
        daemon = Daemon(folder, ("", ""), head="shutdown_timeout = 1.0")
        files = authority.issue("web.test")
        seeds = (
            f'[[routes]]\nlistener = "{daemon.addr}"\nhostname = "raw.test"\nbackend = "127.0.0.1:{port}"\n'
            f'[[routes]]\nlistener = "{daemon.addr}"\nhostname = "web.test"\nbackend = "127.0.0.1:{web}"\nmode = "l7"\n'
            f'tls_cert = "{files.cert}"\ntls_key = "{files.key}"\n'
            '[[firewall]]\ntype = "ip"\nvalue = "203.0.113.7"\n'
        )
        daemon.configure(("max_connections = 50", ""), seeds)
        await daemon.start()
        assert (await get(daemon.port, "web.test", authority.client())).status == 200
        await daemon.l4("raw.test", port, listener=1)
        await _serves(daemon, authority)
        await daemon.remove("raw.test")
        await daemon.end()
        await daemon.start()
        assert [route.hostname for route in await daemon.routes()] == ["web.test"]
        await daemon.end()


async def test_a_listener_taken_from_the_file_loses_its_routes_only_meanwhile(
    folder: Path, authority: Authority
) -> None:
    daemon = Daemon(folder, ("", ""), head="shutdown_timeout = 1.0")
    await daemon.start()
    await daemon.l4("a.test", 9, listener=0)
    await daemon.l4("b.test", 9, listener=1)
    await daemon.end()
    ports, daemon.ports = daemon.ports, daemon.ports[:1]
    daemon.configure([""])
    await daemon.start()
    assert [route.hostname for route in await daemon.routes()] == ["a.test"]
    await daemon.end()
    daemon.ports = ports
    daemon.configure(["", ""])
    await daemon.start()
    assert [route.hostname for route in await daemon.routes(listener=1)] == ["b.test"]
    await daemon.end()


async def test_all_addresses_are_listened_on_by_default(folder: Path, authority: Authority) -> None:
    daemon = Daemon(folder, head="shutdown_timeout = 1.0")
    daemon.config.write_text(daemon.config.read_text().replace('bind = "127.0.0.1"\n', ""))
    await daemon.start()
    async with http1("web") as port:
        await daemon.l7("web.test", port, authority.issue("web.test"))
        for address in ("127.0.0.1", "127.0.0.2", "::1"):
            reader, writer = await asyncio.open_connection(
                address, daemon.port, ssl=authority.client(), server_hostname="web.test"
            )
            writer.write(b"GET / HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n")
            seen = "::1" if address == "::1" else "127.0.0.1"
            assert f'["x-forwarded-for", "{seen}"]' in (await reader.read()).decode()
            writer.close()
    await daemon.end()


async def test_haproxy_that_cannot_start_is_tried_again(daemon: Daemon) -> None:
    """Its port is stolen in the moment of its death; once that is free, everything is as before."""
    assert daemon.process is not None
    thieves: list[asyncio.Server] = []

    async def stolen() -> bool:
        # A dying process keeps its sockets for a moment after its command line is gone.
        with contextlib.suppress(OSError):
            thieves.append(await asyncio.start_server(lambda *_: None, "127.0.0.1", daemon.port))
        return bool(thieves)

    async def told() -> bool:
        return "haproxy does not start" in daemon.log.read_text()

    daemon.process.send_signal(signal.SIGSTOP)
    try:
        os.kill(daemon.haproxy_pids()[0], signal.SIGKILL)
        await until(stolen)
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    await until(told)
    assert not await daemon.serving()
    thieves[0].close()
    await thieves[0].wait_closed()
    await until(daemon.serving)
    await daemon.l4("raw.test", 9)
