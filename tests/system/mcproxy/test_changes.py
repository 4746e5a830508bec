"""Changes under traffic: none is lost, few are the reloads, and what HAProxy refuses leaves no trace."""

import asyncio
import ssl
import statistics
import time

import grpc
import pytest
from cryptography import x509

from tests.system.mcproxy.authority import Authority, Files
from tests.system.mcproxy.backends import http1, tls_echo
from tests.system.mcproxy.clients import Connection, connect, get
from tests.system.mcproxy.daemon import Daemon, until


def _serial(connection: Connection) -> int:
    return x509.load_der_x509_certificate(connection.certificate).serial_number


async def _serial_of(files: Files) -> int:
    return x509.load_pem_x509_certificates(files.cert.read_bytes())[0].serial_number


async def test_no_request_fails_while_routes_change(daemon: Daemon, authority: Authority) -> None:
    """Four busy clients, each request on a connection of its own, over twenty changes."""
    async with http1("web") as port, tls_echo("raw", authority.server("raw.test")) as raw:
        await daemon.l7("web.test", port, authority.issue("web.test"))
        await daemon.l4("raw.test", raw)
        client = authority.client("http/1.1")
        done = asyncio.Event()
        answered = [0, 0]

        async def ask_http() -> None:
            while not done.is_set():
                assert (await get(daemon.port, "web.test", client)).status == 200
                answered[0] += 1

        async def ask_raw() -> None:
            while not done.is_set():
                connection = await connect(daemon.port, "raw.test", client)
                assert await connection.line() == {"backend": "raw"}
                connection.close()
                answered[1] += 1

        async with asyncio.TaskGroup() as group:
            for ask in (ask_http, ask_http, ask_raw, ask_raw):
                group.create_task(ask())
            for number in range(20):
                await daemon.change()
                await daemon.l4(f"n{number}.test", 9)
            done.set()
        assert min(answered) > 20


async def test_open_connections_outlive_changes(daemon: Daemon, authority: Authority) -> None:
    """Even those of a route that is removed."""
    async with http1("web") as port, tls_echo("raw", authority.server("raw.test")) as raw:
        await daemon.l7("web.test", port, authority.issue("web.test"))
        await daemon.l4("raw.test", raw)
        web = await connect(daemon.port, "web.test", authority.client("http/1.1"))
        through = await connect(daemon.port, "raw.test", authority.client())
        assert await through.line() == {"backend": "raw"}
        web.writer.write(b"POST / HTTP/1.1\r\nHost: web.test\r\nContent-Length: 4\r\n\r\n12")
        for _ in range(5):
            await daemon.change()
        await daemon.remove("raw.test")
        await daemon.remove("web.test")
        assert await through.echo(b"still here") == b"still here"
        web.writer.write(b"34")
        assert (await asyncio.wait_for(web.reader.readuntil(b"\r\n"), 5)).startswith(b"HTTP/1.1 200")
        through.close()
        web.close()
        await until(lambda: _old_worker_left(daemon))


async def _old_worker_left(daemon: Daemon) -> bool:
    return len(daemon.haproxy_pids()) == 2


async def test_an_idle_connection_is_answered_once_more_before_it_ends(daemon: Daemon, authority: Authority) -> None:
    """Closed at a reload, it would race with its next request; and that is led to where its route leads by then."""
    async with http1("one") as one, http1("two") as two:
        files = authority.issue("web.test")
        await daemon.l7("web.test", one, files)
        idle = await connect(daemon.port, "web.test", authority.client("http/1.1"))
        assert (await idle.request("web.test")).json["backend"] == "one"
        await daemon.change()
        await daemon.l7("web.test", two, files)
        assert len(daemon.haproxy_pids()) == 3
        assert (await idle.request("web.test")).json["backend"] == "two"
        assert await asyncio.wait_for(idle.reader.read(), 5) == b""
        idle.close()
        await until(lambda: _old_worker_left(daemon))


async def test_an_http2_client_is_told_to_come_again(daemon: Daemon, authority: Authority) -> None:
    """By GOAWAY, which leaves it to finish what it has begun."""
    async with http1("web") as port:
        await daemon.l7("web.test", port, authority.issue("web.test"))
        client = await connect(daemon.port, "web.test", authority.client("h2"))
        client.writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000"))
        await daemon.change()
        async with asyncio.timeout(5):
            kind = None
            while kind != 7:
                head = await client.reader.readexactly(9)
                kind = head[3]
                await client.reader.readexactly(int.from_bytes(head[:3], "big"))
        client.close()
        await until(lambda: _old_worker_left(daemon))


async def test_traffic_flows_when_add_route_returns(daemon: Daemon, authority: Authority) -> None:
    """Each change is asked about at once, many times over: no connection may still meet the old state."""
    async with http1("one") as one, http1("two") as two:
        files = authority.issue("web.test")
        for round_ in range(15):
            backend, name = ((one, "one"), (two, "two"))[round_ % 2]
            await daemon.l7("web.test", backend, files)
            answers = await asyncio.gather(*(get(daemon.port, "web.test", authority.client()) for _ in range(5)))
            assert {answer.json["backend"] for answer in answers} == {name}


async def test_nothing_meets_a_removed_route(daemon: Daemon, authority: Authority) -> None:
    async with tls_echo("raw", authority.server("raw.test")) as port:
        for _ in range(10):
            await daemon.l4("raw.test", port)
            (await connect(daemon.port, "raw.test", authority.client())).close()
            await daemon.remove("raw.test")
            with pytest.raises(ConnectionError):
                await connect(daemon.port, "raw.test", authority.client())


async def test_a_burst_is_applied_together(daemon: Daemon, authority: Authority) -> None:
    """Fifty routes at once cost a few reloads, and all of them serve."""
    async with http1("web") as port:
        names = [f"n{number}.test" for number in range(50)]
        certificates = {name: authority.issue(name) for name in names}
        before = daemon.reloads()
        await asyncio.gather(*(daemon.l7(name, port, certificates[name]) for name in names))
        assert daemon.reloads() - before <= 5
        answers = await asyncio.gather(*(get(daemon.port, name, authority.client()) for name in names))
        assert {answer.status for answer in answers} == {200}


async def test_the_same_route_again_costs_nothing(daemon: Daemon, authority: Authority) -> None:
    async with http1("web") as port:
        files = authority.issue("web.test")
        await daemon.l7("web.test", port, files)
        await daemon.l4("raw.test", 9)
        before = daemon.reloads()
        started = time.perf_counter()
        for _ in range(20):
            await daemon.l7("web.test", port, files)
            await daemon.l4("RAW.test", 9)
        assert (time.perf_counter() - started) / 40 < 0.02
        assert daemon.reloads() == before


async def test_a_new_route_answers_soon(daemon: Daemon, authority: Authority) -> None:
    """It is a part of every apply; the bound leaves room for a busy machine."""
    async with http1("web") as port:
        took = []
        for number in range(9):
            files = authority.issue(f"n{number}.test")
            started = time.perf_counter()
            await daemon.l7(f"n{number}.test", port, files)
            took.append(time.perf_counter() - started)
        assert statistics.median(took) < 0.15


async def test_a_renewed_certificate_is_applied_by_adding_the_route_again(daemon: Daemon, authority: Authority) -> None:
    async with http1("web") as port:
        files = authority.issue("web.test")
        await daemon.l7("web.test", port, files)
        old = await _serial_of(files)
        authority.issue("web.test")
        connection = await connect(daemon.port, "web.test", authority.client())
        assert _serial(connection) == old
        connection.close()
        await daemon.l7("web.test", port, files)
        connection = await connect(daemon.port, "web.test", authority.client())
        assert _serial(connection) == await _serial_of(files) != old
        connection.close()
        assert len(list(daemon.runtime.glob("*.pem"))) == 1


async def test_vanished_certificates_hold_up_nobody(daemon: Daemon, authority: Authority) -> None:
    """The last good copy serves on, over changes and over a restart."""
    async with http1("web") as port:
        files = authority.issue("web.test")
        await daemon.l7("web.test", port, files)
        files.cert.unlink()
        files.key.unlink()
        await daemon.l7("other.test", port, authority.issue("other.test"))
        await daemon.change()
        for _ in range(2):
            for name in ("web.test", "other.test"):
                assert (await get(daemon.port, name, authority.client())).status == 200
            await daemon.end()
            await daemon.start()


async def test_a_certificate_lost_in_every_copy_costs_only_its_own_route(daemon: Daemon, authority: Authority) -> None:
    """That route is not listed, as it does not serve, until it is added again; or it is removed."""
    async with http1("web") as port:
        await daemon.l7("other.test", port, authority.issue("other.test"))
        for name in ("web.test", "gone.test"):
            files = authority.issue(name)
            await daemon.l7(name, port, files)
            files.cert.unlink()
        await daemon.end()
        for copy in daemon.runtime.glob("*.pem"):
            copy.unlink()
        await daemon.start()
        assert [route.hostname for route in await daemon.routes()] == ["other.test"]
        assert (await get(daemon.port, "other.test", authority.client())).status == 200
        await daemon.l7("web.test", port, authority.issue("web.test"))
        await daemon.remove("gone.test")
        assert [route.hostname for route in await daemon.routes()] == ["other.test", "web.test"]
        assert (await get(daemon.port, "web.test", authority.client())).status == 200


async def _weak(authority: Authority) -> Files:
    """A certificate that parses and fits its key, and that OpenSSL yet refuses to serve."""
    files = Files(*(authority.issue("weak.test").cert.with_name(name) for name in ("weak.pem", "weak.key")))
    process = await asyncio.create_subprocess_exec(
        *("openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-days", "1", "-subj", "/CN=weak.test"),
        *("-keyout", files.key, "-out", files.cert),
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await process.wait() == 0
    return files


async def test_what_haproxy_refuses_leaves_no_trace(daemon: Daemon, authority: Authority) -> None:
    """The caller gets HAProxy's reason, everything else serves on, and neither memory nor database keeps it."""
    async with http1("web") as port:
        weak = await _weak(authority)
        await daemon.l7("web.test", port, authority.issue("web.test"))
        with pytest.raises(grpc.aio.AioRpcError, match="unable to load SSL certificate") as refusal:
            await daemon.l7("weak.test", port, weak)
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError, match="unable to load SSL certificate"):
            await daemon.l7("web.test", port, weak)
        for _ in range(2):
            assert [route.hostname for route in await daemon.routes()] == ["web.test"]
            assert (await get(daemon.port, "web.test", authority.client())).status == 200
            await daemon.end()
            await daemon.start()


async def test_a_certificate_that_went_bad_on_disk_costs_only_its_own_route(
    daemon: Daemon, authority: Authority
) -> None:
    """Found out by a restart, as until then the one that was added is served."""
    async with http1("web") as port:
        weak, files = await _weak(authority), authority.issue("web.test")
        await daemon.l7("web.test", port, files)
        await daemon.l7("other.test", port, authority.issue("other.test"))
        for good, bad in zip(files, weak, strict=True):
            bad.replace(good)
        await daemon.change()
        assert (await get(daemon.port, "web.test", authority.client())).status == 200
        await daemon.end()
        await daemon.start()
        assert [route.hostname for route in await daemon.routes()] == ["other.test"]
        assert (await get(daemon.port, "other.test", authority.client())).status == 200
        await daemon.l7("web.test", port, authority.issue("web.test"))
        assert (await get(daemon.port, "web.test", authority.client())).status == 200


async def test_one_bad_route_of_a_burst_fails_alone(daemon: Daemon, authority: Authority) -> None:
    async with http1("web") as port:
        weak = await _weak(authority)
        names = [f"n{number}.test" for number in range(10)]
        adding = [daemon.l7(name, port, authority.issue(name)) for name in names]
        adding[5:5] = [daemon.l7("weak.test", port, weak)]
        outcomes = await asyncio.gather(*adding, return_exceptions=True)
        assert [type(each) for each in outcomes if each] == [grpc.aio.AioRpcError]
        assert sorted(route.hostname for route in await daemon.routes()) == names
        answers = await asyncio.gather(*(get(daemon.port, name, authority.client()) for name in names))
        assert {answer.status for answer in answers} == {200}


async def test_certificates_differ_by_listener(daemon: Daemon, authority: Authority) -> None:
    async with http1("web") as port:
        serials = []
        for listener in (0, 1):
            files = authority.issue("web.test")
            await daemon.l7("web.test", port, files, listener=listener)
            serials.append(await _serial_of(files))
        shown = []
        for listener in (0, 1):
            connection = await connect(daemon.ports[listener], "web.test", authority.client())
            shown.append(_serial(connection))
            connection.close()
        assert shown == serials
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await connect(daemon.port, "other.test", authority.client())
