"""Which backend a connection reaches, by listener and name."""

import asyncio
import ssl

import pytest

from tests.system.mcproxy.authority import Authority
from tests.system.mcproxy.backends import http1, tls_echo
from tests.system.mcproxy.clients import connect, get
from tests.system.mcproxy.daemon import Daemon


async def test_l4_and_l7_share_a_listener(daemon: Daemon, authority: Authority) -> None:
    """One port passes TLS through for one name and ends it for another."""
    async with tls_echo("raw", authority.server("raw.test")) as raw, http1("web") as web:
        await daemon.l4("raw.test", raw)
        await daemon.l7("web.test", web, authority.issue("web.test"))
        connection = await connect(daemon.port, "raw.test", authority.client())
        assert await connection.line() == {"backend": "raw"}
        assert await connection.echo(b"x" * 100_000) == b"x" * 100_000
        connection.close()
        assert (await get(daemon.port, "web.test", authority.client())).json["backend"] == "web"


async def test_names_match_whatever_their_case(daemon: Daemon, authority: Authority) -> None:
    async with http1("web") as web, tls_echo("raw", authority.server("raw.test")) as raw:
        await daemon.l7("WEB.test", web, authority.issue("web.test"))
        await daemon.l4("RAW.test", raw)
        assert [route.hostname for route in await daemon.routes()] == ["raw.test", "web.test"]
        assert (await get(daemon.port, "wEb.TEST", authority.client())).status == 200
        (await connect(daemon.port, "RaW.test", authority.client())).close()


async def test_the_longest_name_works(daemon: Daemon, authority: Authority) -> None:
    labels = ".".join(["x" * 63] * 3)
    hostname = f"{labels}.{'y' * 61}"
    async with tls_echo("raw", authority.server(hostname)) as raw:
        await daemon.l4(hostname, raw)
        (await connect(daemon.port, hostname, authority.client())).close()


@pytest.mark.parametrize("hostname", ["other.test", "sub.web.test", "test", "eb.test"])
async def test_unknown_names_are_hung_up_on(daemon: Daemon, authority: Authority, hostname: str) -> None:
    """At once and without a word of TLS."""
    async with http1("web") as web:
        await daemon.l7("web.test", web, authority.issue("web.test"))
        with pytest.raises(ConnectionError):
            await connect(daemon.port, hostname, authority.client())


async def test_what_is_not_tls_is_hung_up_on(daemon: Daemon) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: web.test\r\n\r\n")
    assert await asyncio.wait_for(reader.read(), 5) == b""
    writer.close()


async def test_no_server_name_is_hung_up_on(daemon: Daemon, authority: Authority) -> None:
    nameless = ssl.create_default_context()
    nameless.check_hostname = False
    with pytest.raises(ConnectionError):
        await connect(daemon.port, "127.0.0.1", nameless)


async def test_only_tls_13_is_terminated(daemon: Daemon, authority: Authority) -> None:
    """l7 refuses TLS 1.2; l4 leaves that to the backend."""
    old = authority.client()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    async with http1("web") as web, tls_echo("raw", authority.server("raw.test")) as raw:
        await daemon.l7("web.test", web, authority.issue("web.test"))
        await daemon.l4("raw.test", raw)
        with pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|protocol version"):
            await connect(daemon.port, "web.test", old)
        (await connect(daemon.port, "raw.test", old)).close()


async def test_one_name_on_two_listeners_with_two_modes(daemon: Daemon, authority: Authority) -> None:
    async with tls_echo("raw", authority.server("same.test")) as raw, http1("web") as web:
        await daemon.l4("same.test", raw, listener=0)
        await daemon.l7("same.test", web, authority.issue("same.test"), listener=1)
        first = await connect(daemon.ports[0], "same.test", authority.client())
        assert await first.line() == {"backend": "raw"}
        first.close()
        assert (await get(daemon.ports[1], "same.test", authority.client())).json["backend"] == "web"
        await daemon.remove("same.test", listener=0)
        assert (await get(daemon.ports[1], "same.test", authority.client())).json["backend"] == "web"
        with pytest.raises(ConnectionError):
            await connect(daemon.ports[0], "same.test", authority.client())


async def test_a_route_changes_backend_and_mode(daemon: Daemon, authority: Authority) -> None:
    async with http1("one") as one, http1("two") as two, tls_echo("raw", authority.server("web.test")) as raw:
        files = authority.issue("web.test")
        await daemon.l7("web.test", one, files)
        assert (await get(daemon.port, "web.test", authority.client())).json["backend"] == "one"
        await daemon.l7("web.test", two, files)
        assert (await get(daemon.port, "web.test", authority.client())).json["backend"] == "two"
        await daemon.l4("web.test", raw)
        connection = await connect(daemon.port, "web.test", authority.client())
        assert await connection.line() == {"backend": "raw"}
        connection.close()


async def test_a_certificate_that_names_another_host_is_served_all_the_same(
    daemon: Daemon, authority: Authority
) -> None:
    """The route says which certificate a name gets; clients judge it."""
    async with http1("web") as web:
        await daemon.l7("web.test", web, authority.issue("other.test"))
        with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
            await connect(daemon.port, "web.test", authority.client())


async def test_the_whole_chain_is_shown(daemon: Daemon, authority: Authority) -> None:
    async with http1("web") as web:
        await daemon.l7("web.test", web, authority.issue("web.test"))
        process = await asyncio.create_subprocess_exec(
            *("openssl", "s_client", "-connect", f"127.0.0.1:{daemon.port}", "-servername", "web.test", "-showcerts"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        output, _ = await process.communicate()
        assert output.count(b"BEGIN CERTIFICATE") == 2
