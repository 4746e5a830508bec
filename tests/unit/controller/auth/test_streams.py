"""Every stream, of answers and of requests, ends once whoever began it would not be let in any more."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_reflection.v1alpha import reflection_pb2

from api.access import Role
from api.control_plane import Watched
from api.files import FileTarget, FoundFile, ServiceFile
from api.gen.mcp.v1 import access_pb2, control_plane_pb2, files_pb2, inspection_pb2
from api.inspection import NodeUsage
from controller.auth.methods import METHODS
from controller.registry import utc_now
from tests.unit.api.test_server import SERVICE
from tests.unit.cli.inspection import AT
from tests.unit.controller.auth.served import Served, serving

OURS = {
    f"/{service.full_name}/{method.name}"
    for file in (access_pb2, control_plane_pb2, files_pb2, inspection_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if method.client_streaming or method.server_streaming
}
PUSH = "/mcp.v1.FilesService/PushFile"
REQUESTS: dict[str, bytes] = {
    "/mcp.v1.ControlPlaneService/WatchServices": b"",
    "/mcp.v1.ControlPlaneService/WatchEvents": b"",
    "/mcp.v1.InspectionService/StreamLogs": inspection_pb2.StreamLogsRequest(
        query=inspection_pb2.LogQuery(service="hello", follow=True)
    ).SerializeToString(),
    "/mcp.v1.InspectionService/WatchUsage": b"",
    "/mcp.v1.FilesService/PullFile": b"",
    PUSH: files_pb2.PushFileRequest(target=files_pb2.FileTarget(service="hello", path="a")).SerializeToString(),
    "/grpc.health.v1.Health/Watch": b"",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": reflection_pb2.ServerReflectionRequest(
        list_services=""
    ).SerializeToString(),
}
"""What begins each stream."""


def test_no_stream_is_forgotten_here() -> None:
    assert {method for method in REQUESTS if method.startswith("/mcp.v1.")} == OURS
    assert set(REQUESTS) <= set(METHODS)


@pytest.fixture
async def endless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    """All streams there go on for ever."""

    def forever(first: Any) -> Callable[..., AsyncIterator[Any]]:
        async def stream(*args: Any, **more: Any) -> AsyncIterator[Any]:
            yield first
            await asyncio.Event().wait()

        return stream

    async def pull(service: str, path: str) -> tuple[FoundFile, AsyncIterator[bytes]]:
        return FoundFile(size=9, mode=0o644, owner="0:0"), forever(b"a")()

    async def push(target: FileTarget, pieces: AsyncIterator[bytes], *, actor: str) -> ServiceFile:
        async for _ in pieces:
            pass
        raise AssertionError("it ended as if all of it had come")

    async with serving(tmp_path) as served:
        monkeypatch.setattr(served.plane, "watch", forever(Watched(service=SERVICE)))
        monkeypatch.setattr(served.plane, "watch_events", forever((await served.plane.events())[0]))
        monkeypatch.setattr(served.seen, "usage", forever(NodeUsage(at=AT)))
        monkeypatch.setattr(served.files, "pull", pull)
        monkeypatch.setattr(served.files, "push", push)
        yield served


class Stream:
    """One call that its client does not end."""

    def __init__(self, channel: grpc.aio.Channel, method: str, token: str) -> None:
        self._begun = asyncio.Event()
        self._over = asyncio.Event()
        self._silent = method == PUSH
        metadata = (("authorization", f"Bearer {token}"),)
        self._call = channel.stream_stream(method)(self._requests(REQUESTS[method]), metadata=metadata)

    async def _requests(self, first: bytes) -> AsyncIterator[bytes]:
        yield first
        self._begun.set()
        await self._over.wait()

    async def begun(self) -> None:
        """It goes on: it was answered, or what it began with was sent."""
        await (self._begun.wait() if self._silent else self._call.read())

    async def end(self) -> tuple[grpc.StatusCode, str]:
        """How it ends, which it has to do soon."""
        async with asyncio.timeout(5):
            with suppress(grpc.aio.AioRpcError):
                while await self._call.read() is not grpc.aio.EOF:
                    pass
            ended = await self._call.code(), str(await self._call.details())
        self._over.set()
        return ended

    def goes_on(self) -> bool:
        return not self._call.done()

    def cancel(self) -> None:
        self._over.set()
        self._call.cancel()


@pytest.mark.parametrize("method", REQUESTS)
async def test_it_ends_soon_after_its_token_is_revoked(endless: Served, method: str) -> None:
    async with endless.channel() as channel:
        stream = Stream(channel, method, await endless.token())
        await stream.begun()
        await endless.registry.doors.revoke_token("ci")
        code, said = await stream.end()
    assert (code, "was revoked" in said) == (grpc.StatusCode.UNAUTHENTICATED, True)
    assert [record.outcome for record in await endless.audit()] == ["UNAUTHENTICATED"]


@pytest.mark.parametrize("method", REQUESTS)
async def test_it_ends_when_its_token_expires(endless: Served, method: str) -> None:
    async with endless.channel() as channel:
        stream = Stream(channel, method, await endless.token(expires_at=utc_now() + timedelta(seconds=0.5)))
        await stream.begun()
        code, said = await stream.end()
    assert (code, "expired" in said) == (grpc.StatusCode.UNAUTHENTICATED, True)
    assert [record.outcome for record in await endless.audit()] == ["UNAUTHENTICATED"]


async def test_they_go_on_with_a_token_that_holds_and_through_the_socket(endless: Served) -> None:
    token = await endless.token(role=Role.ADMIN)
    async with endless.channel() as remote, grpc.aio.insecure_channel(f"unix://{endless.folder}/agent.sock") as local:
        streams = [Stream(channel, method, token) for channel in (remote, local) for method in REQUESTS]
        for stream in streams:
            await stream.begun()
        # Five times as long as it takes to look whether their callers are let in.
        await asyncio.sleep(0.5)
        assert [stream.goes_on() for stream in streams] == [True] * len(streams)
        for stream in streams:
            stream.cancel()
