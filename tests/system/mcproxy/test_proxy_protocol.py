"""PROXY protocol, in by listener and out by route."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.system.mcproxy.authority import Authority
from tests.system.mcproxy.backends import http1, http2, tls_echo
from tests.system.mcproxy.clients import connect, get, proxy_v1, proxy_v2
from tests.system.mcproxy.daemon import Daemon


@pytest.fixture
async def proxied(folder: Path) -> AsyncIterator[Daemon]:
    """A mcproxyd whose one listener takes PROXY protocol."""
    daemon = Daemon(folder, ("proxy_protocol = true",), head="shutdown_timeout = 1.0")
    await daemon.start()
    yield daemon
    await daemon.end()


@pytest.mark.parametrize("header", [proxy_v1, proxy_v2])
async def test_the_client_is_whom_the_header_names(proxied: Daemon, authority: Authority, header: object) -> None:
    async with http1("web") as port:
        await proxied.l7("web.test", port, authority.issue("web.test"))
        preamble = header("203.0.113.7", 4711)  # type: ignore[operator]  # one of two functions
        answer = await get(proxied.port, "web.test", authority.client(), preamble=preamble)
        assert answer.header("x-forwarded-for") == answer.header("x-real-ip") == ["203.0.113.7"]


async def test_a_connection_without_the_header_is_refused(proxied: Daemon, authority: Authority) -> None:
    async with http1("web") as port:
        await proxied.l7("web.test", port, authority.issue("web.test"))
        with pytest.raises(ConnectionError):
            await connect(proxied.port, "web.test", authority.client())


async def test_the_header_passes_through_l4(proxied: Daemon, authority: Authority) -> None:
    async with tls_echo("raw", authority.server("raw.test"), proxied=True) as port:
        await proxied.l4("raw.test", port, send_proxy_protocol=True)
        connection = await connect(proxied.port, "raw.test", authority.client(), preamble=proxy_v2("203.0.113.7", 4711))
        assert await connection.line() == {"backend": "raw", "client": "203.0.113.7:4711"}
        connection.close()


@pytest.mark.parametrize(("server", "protocol"), [(http1, "http/1.1"), (http2, "h2")])
async def test_l7_backends_get_the_header(daemon: Daemon, authority: Authority, server: object, protocol: str) -> None:
    """Each client its own, though connections to backends are otherwise shared; being asked its protocol is local."""
    async with server("web", proxied=True) as port:  # type: ignore[operator]  # one of two backends
        await daemon.l7("web.test", port, authority.issue("web.test"), send_proxy_protocol=True)
        connection = await connect(daemon.port, "web.test", authority.client())
        own = connection.writer.get_extra_info("sockname")[1]
        answer = await connection.request("web.test")
        assert (answer.json["protocol"], answer.json["client"]) == (protocol, f"127.0.0.1:{own}")
        connection.close()


async def test_the_firewall_looks_at_the_header(proxied: Daemon, authority: Authority) -> None:
    from api.gen.mc_proxy.v1 import admin_pb2 as pb

    async with http1("web") as port:
        await proxied.l7("web.test", port, authority.issue("web.test"))
        rule = pb.FirewallRule(type=pb.FIREWALL_RULE_TYPE_CIDR, value="203.0.113.0/24")
        await proxied.admin.AddFirewallRule(pb.AddFirewallRuleRequest(rule=rule))
        client = authority.client()
        with pytest.raises(ConnectionError):
            await connect(proxied.port, "web.test", client, preamble=proxy_v2("203.0.113.7", 4711))
        assert (await get(proxied.port, "web.test", client, preamble=proxy_v1("203.0.114.7", 4711))).status == 200
