"""Files over the wire: pushed in pieces, kept, laid down by the reconciler, pulled from the disk."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest

from api.client import Client
from api.errors import InvalidSpec, NotFound, Refused
from api.files import FileTarget
from api.files_server import FilesServicer
from api.gen.mcp.v1 import files_pb2 as pb
from api.gen.mcp.v1.files_pb2_grpc import FilesServiceStub, add_FilesServiceServicer_to_server
from api.server import ErrorInterceptor
from api.wire import to_wire
from controller.files import LocalFiles
from controller.preview import Preview
from controller.registry import Registry
from controller.settings import FileSettings
from reconcilers.files.model import Site
from reconcilers.files.reconciler import Files
from tests.unit.controller.registry.samples import spec

MOST = 200_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "srv"
    (folder / "hello").mkdir(parents=True)
    (tmp_path / "secret").write_text("key")
    return folder


@pytest.fixture
async def client(lite: Registry, root: Path, tmp_path: Path) -> AsyncIterator[Client]:
    """A client of an agent's files, over a real socket; service `hello` is there."""
    await lite.apply(spec(), actor="ann")
    site = Site(str(root), (str(root / "hello/private"),))
    local = LocalFiles(lite, Preview((Files(lite.files, site, MOST),)), site, FileSettings(max_bytes=MOST, keep=2))
    async with served(local, f"unix://{tmp_path}/s") as client:
        yield client


@asynccontextmanager
async def served(files: LocalFiles, address: str) -> AsyncIterator[Client]:
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    add_FilesServiceServicer_to_server(FilesServicer(files), server)
    server.add_insecure_port(address)
    await server.start()
    async with Client(address, actor="ann") as client:
        yield client
    await server.stop(None)


async def pieces(*content: bytes) -> AsyncIterator[bytes]:
    for piece in content:
        yield piece


def target(path: str = "app.toml", **fields: object) -> FileTarget:
    return FileTarget.model_validate({"service": "hello", "path": path, **fields})


async def pulled(client: Client, path: str, service: str = "hello") -> bytes:
    _, content = await client.files.pull(service, path)
    return b"".join([piece async for piece in content])


async def reconcile(registry: Registry, root: Path) -> None:
    files = Files(registry.files, Site(str(root)), MOST)
    service = await registry.service("hello")
    assert service is not None
    for action in (await files.plan(service)).actions:
        await files.execute(service, action)


async def test_a_file_goes_to_the_disk_by_way_of_the_registry_and_comes_back(
    client: Client, lite: Registry, root: Path
) -> None:
    content = os.urandom(150_000)
    pushed = await client.files.push(target(mode=0o600), pieces(content[:65536], b"", content[65536:]))
    assert (pushed.size, pushed.actor, pushed.laid) == (150_000, "ann", False)
    assert list((root / "hello").iterdir()) == []
    await reconcile(lite, root)
    found, _ = await client.files.pull("hello", "app.toml")
    assert (found.size, found.mode) == (150_000, 0o600)
    assert await pulled(client, "app.toml") == content
    (listed,) = await client.files.files("hello")
    assert listed == pushed.model_copy(update={"laid": True})
    await client.files.push(target(), pieces())
    assert [file.size for file in await client.files.files("hello", history=True)] == [150_000, 0]
    await reconcile(lite, root)
    assert await pulled(client, "app.toml") == b""
    assert stat.S_IMODE((root / "hello/app.toml").stat().st_mode) == 0o644


async def test_what_does_not_come_whole_is_not_kept(client: Client, lite: Registry) -> None:
    stub = FilesServiceStub(client._channel)
    about = pb.PushFileRequest(target=to_wire(target(), pb.FileTarget()))
    for sent in (
        [pb.PushFileRequest(piece=b"half")],
        [pb.PushFileRequest(piece=b"x"), pb.PushFileRequest(sha256="no")],
    ):
        with pytest.raises(grpc.aio.AioRpcError, match="did not come whole"):
            await stub.PushFile(iter([about, *sent]))  # type: ignore[misc]  # the stubs know of no asynchronous ones here

    async def broken() -> AsyncIterator[bytes]:
        yield b"half"
        raise Refused("it changed")

    with pytest.raises(Refused, match="it changed"):
        await client.files.push(target(), broken())
    assert await lite.files.history("hello") == ()


async def test_what_is_too_large_is_refused_as_soon_as_that_is_known(client: Client, lite: Registry) -> None:
    asked = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            yield bytes(10_000)

    with pytest.raises(Refused, match=r"larger than the 200000 bytes that files\.max_bytes"):
        async with asyncio.timeout(10):
            await client.files.push(target(), endless())
    assert await lite.files.history("hello") == ()


async def test_a_push_is_taken_back_and_it_is_said_before_what_that_does(
    client: Client, lite: Registry, root: Path
) -> None:
    await client.files.push(target(managed=True), pieces(b"one"))
    await client.files.push(target("once"), pieces(b"two"))
    await reconcile(lite, root)
    planned = await client.files.remove("hello", "app.toml", dry_run=True)
    assert planned.planned == "remove app.toml (unpushed by ann)"
    stays = await client.files.remove("hello", "once", dry_run=True)
    assert stays.planned == "forget once (unpushed by ann, it is not managed: what lies there stays)"
    assert (await client.files.remove("hello", "once", delete=True, dry_run=True)).planned.startswith("remove once")
    assert not any(file.removed for file in await client.files.files("hello", history=True))
    done = await client.files.remove("hello", "app.toml")
    assert (done.file.removed, done.file.actor, done.planned) == (True, "ann", "")
    await client.files.remove("hello", "once", delete=True, forget=True)
    await reconcile(lite, root)
    assert list((root / "hello").iterdir()) == []
    assert await client.files.files("hello") == ()
    assert [file.path for file in await client.files.files("hello", history=True)] == ["app.toml", "app.toml"]
    with pytest.raises(NotFound, match='no service "nobody"'):
        await client.files.remove("nobody", "x", dry_run=True)
    with pytest.raises(NotFound, match="nothing of hello is kept at once: mcp files hello lists what is"):
        await client.files.remove("hello", "once")


async def test_what_cannot_be_pushed_is_one_sentence(client: Client) -> None:
    with pytest.raises(NotFound, match='no service "nobody"'):
        await client.files.push(FileTarget(service="nobody", path="x"), pieces(b""))
    with pytest.raises(Refused, match="belongs to the agent itself"):
        await client.files.push(target("private/key"), pieces(b""))
    with pytest.raises(InvalidSpec, match='has no "db", only web') as refusal:
        await client.files.push(target(restart=True, component="db"), pieces(b""))
    assert refusal.value.field == "component"
    for path in ("../x", "/etc/passwd", "a//b", ""):
        with pytest.raises(InvalidSpec) as refusal:
            await client.files.push(target().model_copy(update={"path": path}), pieces(b""))
        assert refusal.value.field == "path"


async def test_a_stream_without_a_beginning_is_refused(client: Client) -> None:
    stub = FilesServiceStub(client._channel)
    for first in ([], [pb.PushFileRequest(piece=b"x")]):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await stub.PushFile(iter(first))  # type: ignore[misc]  # the stubs know of no asynchronous ones here
        assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_only_what_is_a_file_of_the_service_is_pulled(client: Client, root: Path) -> None:
    (root / "hello/link").symlink_to("../../secret")
    (root / "hello/hard").hardlink_to(root.parent / "secret")
    (root / "hello/folder").mkdir()
    (root / "hello/private").mkdir()
    (root / "hello/private/key").write_text("key")
    os.mkfifo(root / "hello/pipe")
    (root / "other").mkdir()
    (root / "other/x").write_text("x")
    for path in ("link", "hard", "folder", "pipe", "private/key"):
        with pytest.raises(Refused):
            await pulled(client, path)
    for path in ("../other/x", "/etc/passwd", "folder/../link", ""):
        with pytest.raises(InvalidSpec):
            await pulled(client, path)
    for path in ("nothing", "folder/nothing", "no/folder"):
        with pytest.raises(NotFound):
            await pulled(client, path)
    # A folder beside the services' is nobody's service.
    with pytest.raises(NotFound, match='no service "other"'):
        await pulled(client, "x", service="other")
    with pytest.raises(NotFound):
        await client.files.files("other")


async def test_a_file_that_grows_is_pulled_as_it_was(client: Client, root: Path) -> None:
    file = root / "hello/log"
    file.write_bytes(bytes(100_000))
    found, content = await client.files.pull("hello", "log")
    with file.open("ab") as log:
        log.write(b"more")
    assert sum([len(piece) async for piece in content]) == found.size == 100_000
