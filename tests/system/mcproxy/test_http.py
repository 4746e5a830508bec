"""What an l7 route does to HTTP."""

import ssl
from collections.abc import AsyncIterator

import grpc
import pytest

from tests.system.mcproxy.authority import Authority
from tests.system.mcproxy.backends import grpc_echo, http1, http2, http_both
from tests.system.mcproxy.clients import connect, curl, get
from tests.system.mcproxy.daemon import Daemon


@pytest.fixture
async def web(daemon: Daemon, authority: Authority) -> AsyncIterator[str]:
    """The hostname of an l7 route to an HTTP/1.1 server."""
    async with http1("web") as port:
        await daemon.l7("web.test", port, authority.issue("web.test"))
        yield "web.test"


async def test_the_client_is_named_and_forgeries_are_replaced(daemon: Daemon, authority: Authority, web: str) -> None:
    forged = [("X-Forwarded-For", "6.6.6.6"), ("x-forwarded-for", "7.7.7.7")]
    forged += [("X-Forwarded-Proto", "gopher"), ("X-Real-IP", "6.6.6.6"), ("X-Other", "kept")]
    answer = await get(daemon.port, web, authority.client(), forged)
    assert answer.header("x-forwarded-for") == ["127.0.0.1"]
    assert answer.header("x-forwarded-proto") == ["https"]
    assert answer.header("x-real-ip") == ["127.0.0.1"]
    assert answer.header("x-other") == ["kept"]
    assert answer.header("host") == [web]


async def test_http2_clients_reach_an_http1_backend(daemon: Daemon, authority: Authority, web: str) -> None:
    version, answer = await curl(daemon.port, web, authority.pem, "--http2")
    assert (version, answer["protocol"]) == ("2", "http/1.1")
    version, answer = await curl(daemon.port, web, authority.pem, "--http1.1")
    assert (version, answer["protocol"]) == ("1.1", "http/1.1")


async def test_clients_of_both_versions_reach_an_h2c_backend(daemon: Daemon, authority: Authority) -> None:
    async with http2("two") as port:
        await daemon.l7("two.test", port, authority.issue("two.test"))
        for option, version in (("--http2", "2"), ("--http1.1", "1.1")):
            spoken, answer = await curl(daemon.port, "two.test", authority.pem, option)
            assert (spoken, answer["protocol"]) == (version, "h2")
            headers = dict(answer["headers"])
            assert (headers["x-forwarded-for"], headers["x-forwarded-proto"]) == ("127.0.0.1", "https")


@pytest.mark.parametrize(("server", "alpn", "protocol"), [(http2, "h2", "h2"), (http1, "http/1.1", "http/1.1")])
async def test_a_tls_backend_is_spoken_to_as_it_likes(
    daemon: Daemon, authority: Authority, server: object, alpn: str, protocol: str
) -> None:
    """By ALPN, and whatever name its certificate carries."""
    tls = authority.server("someone-else.test", alpn)
    async with server("tls", tls=tls) as port:  # type: ignore[operator]  # one of two backends
        await daemon.l7("tls.test", port, authority.issue("tls.test"), backend_tls=True)
        answer = await get(daemon.port, "tls.test", authority.client())
        assert (answer.json["protocol"], answer.json["alpn"]) == (protocol, alpn)


async def test_a_tls_backend_without_alpn_is_spoken_to_in_http1(daemon: Daemon, authority: Authority) -> None:
    async with http1("tls", tls=authority.server("backend.test")) as port:
        await daemon.l7("tls.test", port, authority.issue("tls.test"), backend_tls=True)
        assert (await get(daemon.port, "tls.test", authority.client())).status == 200


async def test_bodies_pass_whole(daemon: Daemon, authority: Authority, web: str) -> None:
    connection = await connect(daemon.port, web, authority.client())
    answer = await connection.request(web, body=bytes(3_000_000))
    connection.close()
    assert answer.json["received"] == 3_000_000


async def test_connections_are_kept_alive(daemon: Daemon, authority: Authority, web: str) -> None:
    connection = await connect(daemon.port, web, authority.client("http/1.1"))
    for _ in range(3):
        assert (await connection.request(web)).status == 200
    connection.close()


@pytest.mark.parametrize(("server", "protocol"), [(http1, "http/1.1"), (http_both, "h2")])
async def test_websockets_pass(daemon: Daemon, authority: Authority, server: object, protocol: str) -> None:
    """Also for a backend that was found to speak HTTP/2, since their upgrade is HTTP/1.1's."""
    async with server("web") as port:  # type: ignore[operator]  # one of two backends
        await daemon.l7("web.test", port, authority.issue("web.test"))
        assert (await get(daemon.port, "web.test", authority.client())).json["protocol"] == protocol
        connection = await connect(daemon.port, "web.test", authority.client("http/1.1"))
        connection.writer.write(
            b"GET / HTTP/1.1\r\nHost: web.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        head = await connection.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert await connection.echo(b"frames") == b"frames"
        assert await connection.echo(b"more frames") == b"more frames"
        connection.close()


async def test_grpc_keeps_its_trailers_and_streams(daemon: Daemon, authority: Authority) -> None:
    async with grpc_echo() as port:
        await daemon.l7("grpc.test", port, authority.issue("grpc.test"))
        credentials = grpc.ssl_channel_credentials(authority.pem.encode())
        options = [("grpc.ssl_target_name_override", "grpc.test"), ("grpc.default_authority", "grpc.test")]
        async with grpc.aio.secure_channel(f"127.0.0.1:{daemon.port}", credentials, options) as channel:
            call = channel.unary_unary("/test.Echo/Say")(b"hello", timeout=10)
            assert await call == b"hello"
            assert ("seen", "yes") in tuple(await call.trailing_metadata())
            with pytest.raises(grpc.aio.AioRpcError, match="as asked") as failed:
                await channel.unary_unary("/test.Echo/Say")(b"fail", timeout=10)
            assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            chat = channel.stream_stream("/test.Echo/Chat")(timeout=10)
            for word in (b"one", b"two", b"three"):
                await chat.write(word)
                assert await chat.read() == word
            await chat.done_writing()
            assert await chat.code() is grpc.StatusCode.OK


async def test_policies_answer_403(daemon: Daemon, authority: Authority) -> None:
    agent = 'Bad\'Bot\\ "1.0" (KHTML, like Gecko) %[src] #x'
    policies = [
        {"type": "block_user_agent", "value": agent},
        {"type": "block_user_agent", "value": "-f"},
        {"type": "require_header", "value": "X-Token"},
    ]
    async with http1("web") as port:
        await daemon.l7("web.test", port, authority.issue("web.test"), l7_policies=policies)

        async def ask(*headers: tuple[str, str]) -> int:
            return (await get(daemon.port, "web.test", authority.client(), headers)).status

        assert await ask(("User-Agent", "curl"), ("x-token", "t")) == 200
        assert await ask(("x-token", "t")) == 200
        assert await ask(("User-Agent", "curl")) == 403
        assert await ask(("User-Agent", "curl"), ("x-token", "")) == 403
        assert await ask(("User-Agent", f"Mozilla/5.0 {agent} more"), ("x-token", "t")) == 403
        assert await ask(("User-Agent", "rm -f"), ("x-token", "t")) == 403
        assert await ask(("User-Agent", agent.lower()), ("x-token", "t")) == 200


async def test_sessions_resume(daemon: Daemon, authority: Authority, web: str) -> None:
    """By ticket, as the shared cache is off."""
    client = authority.client("http/1.1")
    first = await connect(daemon.port, web, client)
    await first.request(web)
    session: ssl.SSLSession = first.writer.get_extra_info("ssl_object").session
    assert session.has_ticket
    first.close()
