"""What is made of an engine's answers, good and bad."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from api.conditions import Reason
from reconcilers.base import Transient
from reconcilers.containers.engine.podman import Engine
from reconcilers.containers.engine.transport import EngineError, EngineSettings, Failure
from reconcilers.containers.images.credentials import Access
from reconcilers.containers.images.references import LocalImage
from tests.unit.reconcilers.containers.test_listing import entry

OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"
EVENT = b'{"Action": "start", "Actor": {"ID": "abc"}}\n'
STREAM = b"HTTP/1.0 200 OK\r\n\r\n"


@pytest.fixture
def socket() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mcp-e") as folder:
        yield Path(folder) / "podman.sock"


@asynccontextmanager
async def engine(socket: Path, answer: bytes | None = None, *, then: str = "close") -> AsyncIterator[Engine]:
    """An engine whose every answer is `answer`; None: nobody listens. `then` it closes, resets or keeps silent."""
    asked: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer or b"")
        await writer.drain()
        if then == "close":
            writer.close()
        if then == "reset":
            writer.transport.abort()

    client = Engine(EngineSettings(str(socket), timeout=0.3, pull_timeout=0.3, event_timeout=0.3))
    if answer is None:
        yield client
        client.close()
        return
    server = await asyncio.start_unix_server(serve, socket)
    yield client
    client.close()
    server.close()
    for writer in asked:
        writer.close()


def answered(body: bytes, status: str = "200 OK") -> bytes:
    return (OK % (len(body), body)).replace(b"200 OK", status.encode(), 1)


def refused(message: str) -> bytes:
    return answered(json.dumps({"cause": "x", "message": message, "response": 500}).encode(), "500 Oh")


async def test_an_engine_that_is_not_there_is_unreachable(socket: Path) -> None:
    async with engine(socket) as client:
        for call in (client.list(), client.ping(), client.create("{}"), client.pull("i:1", Access())):
            with pytest.raises(Transient) as failure:
                await call
            assert failure.value.reason is Reason.ENGINE_UNREACHABLE
        with pytest.raises(Transient):
            async with client.events():
                pass


async def test_an_engine_that_never_answers_is_unreachable_after_its_time(socket: Path) -> None:
    async with engine(socket, b"", then="silence") as client:
        with pytest.raises(Transient) as failure:
            await client.list()
        assert "timed out" in failure.value.message.lower()
        with pytest.raises(Transient):
            async with client.events():
                pass


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[{}]", b"[", b'{"cause": "?"}', json.dumps([entry(Names=[])]).encode()]
)
async def test_an_incomplete_listing_is_none(socket: Path, body: bytes) -> None:
    async with engine(socket, answered(body)) as client:
        with pytest.raises(Transient) as failure:
            await client.list()
        assert failure.value.reason is Reason.ENGINE_UNREACHABLE


async def test_a_listing_that_breaks_off_is_none(socket: Path) -> None:
    async with engine(socket, OK % (1000, b"[]")) as client:
        with pytest.raises(Transient):
            await client.list()


async def test_all_containers_are_shown_ours_and_others(socket: Path) -> None:
    ours = {"net.metacircular.mcp.managed-by": "mcp-agent", "net.metacircular.mcp.node": "rift"}
    listing = [entry(), entry(Id="2", Names=["a"], Labels={**ours, "net.metacircular.mcp.service": "shop"})]
    async with engine(socket, answered(json.dumps(listing).encode())) as client:
        shown = await client.containers("rift")
    assert [(c.name, c.owned, c.service, c.state) for c in shown] == [
        ("a", True, "shop", "running"),
        ("x7", False, "", "running"),
    ]


@pytest.mark.parametrize(
    ("message", "failure"),
    [
        ("localhost/nope:v1: image not known", Failure.NO_SUCH_IMAGE),
        ("unable to find network with name or ID n: network not found", Failure.NO_SUCH_NETWORK),
        ("creating container storage: the container name \"x\" is already in use by 4: that name is already in use",
         Failure.NAME_IN_USE),
        ("cannot listen on the TCP port: listen tcp4 127.0.0.1:80: bind: address already in use",
         Failure.ADDRESS_IN_USE),
        ("runc: exec: \"/nope\": no such file or directory", Failure.REFUSED),
    ],
)  # fmt: skip
async def test_a_refusal_is_told_apart_by_podmans_own_words(socket: Path, message: str, failure: Failure) -> None:
    async with engine(socket, refused(message)) as client:
        with pytest.raises(EngineError) as error:
            await client.create("{}")
    assert (error.value.failure, error.value.message) == (failure, message)


@pytest.mark.parametrize("answer", [answered(b"<html>", "502 Bad Gateway"), answered(b"{}"), answered(b"[]")])
async def test_an_answer_that_is_not_podmans_leaves_open_what_happened(socket: Path, answer: bytes) -> None:
    async with engine(socket, answer) as client:
        with pytest.raises(EngineError) as error:
            await client.create("{}")
    assert error.value.failure is Failure.GARBLED


PULLED = b'{"stream":"Trying to pull i:1...\\n"}\n{"stream":"Copying blob sha256:1\\n"}\n'


async def test_a_pull_tells_what_podman_says_and_ends_in_the_images_id(socket: Path) -> None:
    said: list[str] = []
    async with engine(socket, answered(PULLED + b'{"images":["abc"],"id":"abc"}\n')) as client:
        assert await client.pull("i:1", Access(), said.append) == "abc"
    assert said == ["Trying to pull i:1...", "Copying blob sha256:1"]


@pytest.mark.parametrize(
    ("problem", "failure", "message"),
    [
        ("manifest unknown", Failure.DENIED, "manifest unknown"),
        ("dial tcp: connection refused", Failure.REFUSED, "dial tcp: connection refused"),
        (
            "unauthorized",
            Failure.DENIED,
            'reg:5000 does not let user "ann" in with the password of registries."reg:5000".password_file',
        ),
    ],
)
async def test_a_pull_fails_in_the_words_of_whoever_refused_it(
    socket: Path, problem: str, failure: Failure, message: str
) -> None:
    access = Access("reg:5000", "ann", "sesame", 'registries."reg:5000".password_file')
    async with engine(socket, answered(PULLED + json.dumps({"error": problem}).encode())) as client:
        with pytest.raises(EngineError) as error:
            await client.pull("reg:5000/i:1", access)
    assert (error.value.failure, error.value.message) == (failure, message)


@pytest.mark.parametrize("end", [b"", b"[]", b'{"stream"', b"x" * 2_000_000])
async def test_the_end_of_a_pull_that_is_none_leaves_open_what_happened(socket: Path, end: bytes) -> None:
    async with engine(socket, STREAM + PULLED + end) as client:
        with pytest.raises(EngineError) as error:
            await client.pull("i:1", Access())
    assert error.value.failure is Failure.GARBLED


async def test_a_pull_that_falls_silent_is_given_up_after_its_time(socket: Path) -> None:
    async with engine(socket, STREAM + PULLED, then="silence") as client:
        with pytest.raises(Transient) as failure:
            await client.pull("i:1", Access())
    assert failure.value.message == "podman cannot be asked: it says nothing"


async def test_a_container_that_is_gone_is_removed_already(socket: Path) -> None:
    async with engine(socket, refused('no container with name or ID "x" found: no such container')) as client:
        await client.remove("x")
        with pytest.raises(EngineError):
            await client.start("x")


async def heard(client: Engine) -> list[str]:
    async with client.events() as events:
        return [event.id async for event in events]


@pytest.mark.parametrize(
    ("stream", "then"),
    [
        (EVENT, "close"),
        (EVENT, "reset"),
        (b"no event\n", "silence"),
        (b"{}\n", "silence"),
        (b"x" * 2_000_000, "silence"),
    ],
)
async def test_events_that_end_or_cannot_be_read_are_a_lost_engine(socket: Path, stream: bytes, then: str) -> None:
    async with engine(socket, STREAM + stream, then=then) as client:
        with pytest.raises(Transient):
            await heard(client)


async def test_events_that_fall_silent_end_and_those_inside_a_container_are_not_told(socket: Path) -> None:
    inside = EVENT.replace(b"start", b"exec_died").replace(b"abc", b"inside")
    async with engine(socket, STREAM + EVENT + inside + EVENT, then="silence") as client:
        assert await heard(client) == ["abc", "abc"]


async def test_events_of_images_are_told_apart(socket: Path) -> None:
    of_image = EVENT.replace(b"{", b'{"Type": "image", ', 1)
    async with engine(socket, STREAM + EVENT + of_image, then="silence") as client, client.events() as events:
        assert [event.of_image async for event in events] == [False, True]


async def test_images_are_read_as_far_as_they_are_told(socket: Path) -> None:
    writing = {"Id": "1", "RepoTags": None}
    whole = {"Id": "2", "RepoTags": ["r.x/a:1"], "RepoDigests": ["r.x/a@sha256:0"], "Digest": "sha256:0"}
    async with engine(socket, answered(json.dumps([writing, whole]).encode())) as client:
        assert await client.images() == (
            LocalImage("1"),
            LocalImage("2", ("r.x/a:1",), ("r.x/a@sha256:0",), "sha256:0"),
        )
    async with engine(socket, answered(b"no such image", "404 Not Found")) as client:
        assert await client.image("r.x/a:1") is None


@pytest.mark.parametrize("body", [b"[{}]", b"[7]", b"{", b"[null]"])
async def test_images_that_cannot_be_read_are_an_error(socket: Path, body: bytes) -> None:
    async with engine(socket, answered(body)) as client:
        with pytest.raises(EngineError) as error:
            await client.images()
    assert error.value.failure is Failure.GARBLED


async def test_an_engine_that_refuses_events_is_unreachable(socket: Path) -> None:
    async with engine(socket, b"HTTP/1.0 404 Not Found\r\n\r\n") as client:
        with pytest.raises(Transient):
            await heard(client)
