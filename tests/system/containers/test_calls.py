"""What each step costs the engine, and that no answer of its is taken for the truth."""

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from api.conditions import Reason
from stack.podman import PodmanHost
from tests.system import faults
from tests.system.containers.node import Node, answer, kill, running_node, web
from tests.system.faults import FaultySocket

pytestmark = pytest.mark.system


@pytest.fixture
def engine(podman: PodmanHost, folder: Path) -> Iterator[FaultySocket]:
    """A socket in front of podman's that notes each request."""
    front = FaultySocket(folder / "podman.sock", podman.socket)
    front.start()
    yield front
    front.stop()


@pytest.fixture
async def behind(podman: PodmanHost, engine: FaultySocket, folder: Path) -> AsyncIterator[Node]:
    """A node that reaches podman through it; a call may take two seconds."""
    async with running_node(podman, folder, socket=engine.path, timeout=2.0) as running:
        yield running
        await running.delete_all()


def changes(engine: FaultySocket) -> list[str]:
    """The calls that change something, without the ids."""
    lines = [line.split() for line in engine.requests if not line.startswith("GET")]
    return [f"{method} {path.partition('?')[0].rpartition('/')[2]}" for method, path, _ in lines]


async def test_a_container_costs_two_calls_and_listings_of_itself_alone(behind: Node, engine: FaultySocket) -> None:
    await behind.apply(web("first"))
    await behind.until_ready("first")
    engine.requests.clear()
    await behind.apply(web("alpha"))
    await behind.until_ready("alpha")
    assert changes(engine) == ["POST create", "POST start"]
    looks = [line for line in engine.requests if line.startswith("GET")]
    assert [line for line in looks if "/containers/json" not in line or "filters=" not in line] == []
    assert len(looks) <= 4


async def test_a_restart_costs_one_call(behind: Node, engine: FaultySocket) -> None:
    await behind.apply(web("alpha"))
    await behind.until_ready("alpha")
    engine.requests.clear()
    kill(behind, "alpha-web")
    await behind.until("alpha", lambda s: s.components[0].restarts == 1 and s.components[0].ready)
    assert changes(engine) == ["POST start"]


async def test_when_nothing_happens_the_engine_is_left_alone(behind: Node, engine: FaultySocket) -> None:
    spec = web("alpha")
    await behind.apply(spec)
    await behind.until_ready("alpha")
    engine.requests.clear()
    await behind.apply(spec.model_copy(update={"path": "elsewhere"}))
    await behind.until_ready("alpha")
    assert changes(engine) == []


@pytest.mark.parametrize("call", ["POST .*/containers/create", "POST .*/start", "DELETE .*/containers/"])
async def test_a_call_that_hangs_is_given_up_and_made_again(behind: Node, engine: FaultySocket, call: str) -> None:
    with engine.misbehaving(call, faults.hangs, times=1) as hits:
        await behind.apply(web("alpha"))
        await behind.until_ready("alpha")
        await behind.apply(web("alpha", env=["A=1"]))
        assert "A=1" in answer(await behind.until_ready("alpha"), "/cgi-bin/env")
        await behind.until_event("alpha", "removed")
        assert hits() == 1
    assert behind.names("alpha") == ["alpha-web"]


def refuses(client: socket.socket, ask: Callable[[], bytes]) -> None:
    """The engine does nothing, and says so."""
    body = b'{"cause":"bad day","message":"it broke: bad day","response":500}'
    client.sendall(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


async def test_a_refusal_of_the_engines_is_told_in_its_words_once_it_was_looked_at(
    behind: Node, engine: FaultySocket
) -> None:
    with engine.misbehaving("POST .*/containers/create", refuses):
        await behind.apply(web("alpha"))
        condition = await behind.until_reason("alpha", Reason.CONTAINER_REFUSED)
        assert condition.message == "alpha-web: it broke: bad day"
        assert behind.names("alpha") == []
    await behind.until_ready("alpha")
