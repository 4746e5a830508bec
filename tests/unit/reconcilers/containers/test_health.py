"""The checks themselves, against servers of our own: who counts as well, and in what words the rest is told."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from api.resolve import Defaults, ResolvedHealth, resolve
from controller.registry import utc_now
from reconcilers.certs.ca import EmbeddedCa, private_pem
from reconcilers.containers.engine.podman import ExecState
from reconcilers.containers.engine.transport import EngineError, Failure
from reconcilers.containers.model import ROUTES, ContainerObservation
from reconcilers.containers.watching.commands import Commands, Ended
from reconcilers.containers.watching.health import Checks, Unwell, listens_already
from stack.web import free_port
from tests.unit.reconcilers.containers.test_probe import health, running
from tests.unit.reconcilers.containers.worlds import spec, web

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class MemoryEngine:
    """What Commands asks of the engine: each command's words are its exit code, or `hang`, and what it prints."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.most = 0
        self.refuses = False
        self.kills = True

    async def create_exec(self, container_id: str, command: Sequence[str]) -> str:
        if self.refuses:
            raise EngineError(Failure.REFUSED, "container state improper")
        return " ".join(command)

    async def exec_output(self, exec_id: str) -> str:
        code, _, words = exec_id.partition(" ")
        self.running.add(exec_id)
        self.most = max(self.most, len(self.running))
        try:
            await asyncio.sleep(1000 if code == "hang" else 0)
        finally:
            self.running.discard(exec_id)
        return words.replace("|", "\n")

    async def exec_state(self, exec_id: str) -> ExecState:
        runs = exec_id in self.running
        return ExecState(1 << 30 if runs else 0, 0 if runs else int(exec_id.partition(" ")[0]))


@pytest.fixture
def engine() -> MemoryEngine:
    return MemoryEngine()


@pytest.fixture
async def checks(engine: MemoryEngine) -> AsyncIterator[Checks]:
    checks = Checks(engine)  # type: ignore[arg-type]
    yield checks
    await checks.close()


def at(port: int, **fields: object) -> ContainerObservation:
    """A container in the host's network with its route at that port."""
    labels = {**running().labels, ROUTES: f"default={port}"}
    return running(labels=labels, **fields)


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """The port of a server that treats each connection so."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1]


def saying(answer: bytes, heard: list[bytes] | None = None) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if heard is not None:
            heard.append(request)
        writer.write(answer)
        await writer.drain()

    return handle


async def greeting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 ready\r\n")
    await writer.drain()


async def staying(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def leaving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    pass


async def wrong(checks: Checks, container: ContainerObservation, check: ResolvedHealth) -> str:
    """What is wrong with it."""
    with pytest.raises(Unwell) as caught:
        await checks.ask(container, check)
    return str(caught.value)


async def test_a_get_names_the_route_and_its_answer_is_well(checks: Checks) -> None:
    heard: list[bytes] = []
    async with serving(saying(OK, heard)) as port:
        await checks.ask(at(port), health())
        await checks.ask(running(), health(host="127.0.0.1", port=port, route="", hostname=""))
    by_name, by_port = heard
    assert by_name.startswith(b"GET /healthz HTTP/1.1\r\nHost: shop.svc.example.test\r\n")
    assert b"Host: 127.0.0.1:%d\r\n" % port in by_port


@pytest.mark.parametrize(
    ("answered", "wanted", "well"),
    [(204, None, True), (302, None, True), (400, None, False), (503, None, False), (503, 503, True), (200, 204, False)],
)
async def test_the_status_decides_and_a_redirect_is_its_status(
    checks: Checks, answered: int, wanted: int | None, well: bool
) -> None:
    answer = b"HTTP/1.1 %d Whatever\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n" % answered
    async with serving(saying(answer)) as port:
        if well:
            await checks.ask(at(port), health(status=wanted))
        else:
            assert await wrong(checks, at(port), health(status=wanted)) == f"GET /healthz answered {answered}"


async def test_an_answer_of_hints_without_length_or_without_end_is_an_answer(checks: Checks) -> None:
    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x" * 4096)
            await writer.drain()

    async with serving(saying(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.0 200 OK\r\n\r\nfine")) as port:
        await checks.ask(at(port), health())
    async with serving(endless) as port:
        await checks.ask(at(port), health())


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "the connection was closed without an answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "GET /healthz was not answered in HTTP: illegal status line"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "GET /healthz was not answered in HTTP: peer closed"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 99999, "the first 64 KiB of the answer hold no end of its head"),
    ],
)
async def test_what_is_no_answer(checks: Checks, answer: bytes, words: str) -> None:
    async with serving(saying(answer)) as port:
        assert (await wrong(checks, at(port), health())).startswith(words)


@pytest.mark.parametrize("check", [health(), health(http="")])
async def test_nobody_at_the_port(checks: Checks, check: ResolvedHealth) -> None:
    assert await wrong(checks, at(free_port()), check) == "connection refused"


async def test_a_route_that_came_later_than_the_container(checks: Checks) -> None:
    assert await wrong(checks, at(1), health(route="rest")) == "it was made without the route rest"


async def test_a_server_that_says_nothing_is_given_up_in_time(checks: Checks) -> None:
    async with serving(staying) as port, asyncio.timeout(2):
        assert await wrong(checks, at(port), health(timeout=0.2)) == "no answer within 0.2 s"


async def test_over_tls_any_certificate_will_do_and_its_name_is_asked_for(checks: Checks, tmp_path: Path) -> None:
    ca = EmbeddedCa.open(tmp_path / "ca", "rift", utc_now)
    issued = await ca.issue("elsewhere.example.test", timedelta(days=1))
    chain = [link.public_bytes(serialization.Encoding.PEM) for link in issued.chain]
    (tmp_path / "pem").write_bytes(b"".join([*chain, private_pem(issued.key)]))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "pem")
    asked: list[str | None] = []
    server.sni_callback = lambda _socket, name, _context: asked.append(name)
    async with serving(saying(OK), server) as port:
        await checks.ask(at(port), health(tls=True))
        await checks.ask(running(), health(tls=True, host="127.0.0.1", port=port, hostname=""))
        assert (await wrong(checks, at(port), health())).startswith("the connection was closed")
    assert asked == ["shop.svc.example.test", None]
    async with serving(greeting) as port:
        assert (await wrong(checks, at(port), health(tls=True))).startswith("no TLS: ")


async def test_a_connection_that_is_closed_at_once_is_no_connection(checks: Checks) -> None:
    async with serving(staying) as port:
        await checks.ask(at(port), health(http=""))
        assert await checks.listens(at(port))
    async with serving(leaving) as port:
        assert await wrong(checks, at(port), health(http="")) == "the connection was closed at once"
        assert not await checks.listens(at(port))
    assert not await checks.listens(at(free_port()))


async def test_in_a_namespace_of_its_own_the_kernel_says_who_listens(checks: Checks) -> None:
    """The host's port is rootlessport's, which accepts for everybody; ours closes at once, and yet somebody listens."""
    inside = await asyncio.start_server(leaving, "0.0.0.0", 0)
    async with inside, serving(leaving) as port:
        number = inside.sockets[0].getsockname()[1]
        here = {"pid": os.getpid(), "networks": ("mcpnet",)}
        well = at(port, ports=(f"127.0.0.1:{port - 1}-{port}->{number - 1}-{number}/tcp",), **here)
        await checks.ask(well, health(http=""))
        nobody = at(port, ports=(f"127.0.0.1:{port}->{free_port()}/tcp",), **here)
        assert await wrong(checks, nobody, health(http="")) == "connection refused"
        labels = {**running().labels, ROUTES: f"default={port}:{number}"}
        assert await checks.listens(running(labels=labels, **here))
        labels = {**running().labels, ROUTES: f"default={number}:{free_port()}"}
        assert not await checks.listens(running(labels=labels, **here))
        assert not listens_already(running(labels=labels, **here))


async def test_a_command_that_exits_0_is_well_and_another_is_told_with_its_last_line(checks: Checks) -> None:
    await checks.ask(running(), health(http="", exec=("0", "fine")))
    words = await wrong(checks, running(), health(http="", exec=("2", "trying|no response|")))
    assert words == "`2 trying|no response|` exited with 2: no response"
    assert await wrong(checks, running(), health(http="", exec=("1",))) == "`1` exited with 1"
    assert await wrong(checks, running(), health(http="", exec=("127", "no such|further"))) == (
        "`127 no such|further` exited with 127: no such"
    )


async def test_a_refused_command_is_told_in_the_engines_words(checks: Checks, engine: MemoryEngine) -> None:
    engine.refuses = True
    assert await wrong(checks, running(), health(http="", exec=("0",))) == "container state improper"


@pytest.mark.looptime
async def test_no_command_is_run_beside_one_that_hangs_and_cannot_be_killed(engine: MemoryEngine) -> None:
    commands = Commands(engine)  # type: ignore[arg-type]
    assert await commands.run("a", ("hang",), 3.0) is None
    assert await commands.run("b", ("0",), 3.0) == Ended(0, "")
    assert await commands.run("a", ("0",), 3.0) is None
    assert engine.running == {"hang"}
    await asyncio.sleep(1000)
    assert await commands.run("a", ("0", "again"), 3.0) == Ended(0, "again")
    assert await commands.run("a", ("hang",), 3.0) is None
    await commands.close()
    assert not engine.running


@pytest.mark.parametrize(
    ("check", "name"),
    [
        ({"http": "/"}, "shop.svc.example.test"),
        ({"tcp": True, "route": "rest"}, "rest.example.test"),
        ({"tcp": True, "port": 8080}, ""),
        ({"exec": ["true"]}, ""),
    ],
)
def test_a_check_asks_by_the_name_of_its_route(check: dict[str, object], name: str) -> None:
    routes = [{"port": 443}, {"name": "rest", "port": 8443, "hostname": "rest.example.test"}]
    service = spec(web(routes=routes, ports=["8080"], health=check))
    (component,) = resolve(service, Defaults(zone="example.test")).components
    assert component.health is not None
    assert component.health.hostname == name
