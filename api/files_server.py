"""The agent's API about files, over gRPC: as thin as api.server."""

import hashlib
from collections.abc import AsyncIterator

from pydantic import ValidationError

from api.complaints import complaints
from api.errors import InvalidSpec, Refused
from api.files import Files, FileTarget
from api.gen.mcp.v1 import files_pb2 as pb
from api.gen.mcp.v1.files_pb2_grpc import FilesServiceServicer
from api.server import Context, actor
from api.wire import from_wire, to_wire


class FilesServicer(FilesServiceServicer):
    """Serves files; see files.proto for what each call means."""

    def __init__(self, files: Files) -> None:
        self._files = files

    async def PushFile(self, requests: AsyncIterator[pb.PushFileRequest], context: Context) -> pb.PushFileResponse:
        """Keeps a file."""
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "target":
            raise InvalidSpec("target", "the first message does not say where the file shall lie")
        file = await self._files.push(_target(first.target), _pieces(requests), actor=actor(context))
        return pb.PushFileResponse(file=to_wire(file, pb.ServiceFile()))

    async def RemoveFile(self, request: pb.RemoveFileRequest, context: Context) -> pb.RemoveFileResponse:
        """Takes a push back."""
        removal = await self._files.remove(
            request.service,
            request.path,
            actor=actor(context),
            delete=request.delete,
            forget=request.forget,
            dry_run=request.dry_run,
        )
        return pb.RemoveFileResponse(file=to_wire(removal.file, pb.ServiceFile()), planned=removal.planned)

    async def PullFile(self, request: pb.PullFileRequest, context: Context) -> AsyncIterator[pb.PullFileResponse]:
        """What lies on the disk."""
        found, pieces = await self._files.pull(request.service, request.path)
        yield pb.PullFileResponse(found=to_wire(found, pb.FoundFile()))
        async for piece in pieces:
            yield pb.PullFileResponse(piece=piece)

    async def ListFiles(self, request: pb.ListFilesRequest, context: Context) -> pb.ListFilesResponse:
        """The files of a service."""
        files = await self._files.files(request.service, history=request.history)
        return pb.ListFilesResponse(files=[to_wire(file, pb.ServiceFile()) for file in files])


def _target(message: pb.FileTarget) -> FileTarget:
    try:
        return from_wire(message, FileTarget)
    except ValidationError as error:
        first = complaints(error)[0]
        raise InvalidSpec(first.field, first.message) from error


async def _pieces(requests: AsyncIterator[pb.PushFileRequest]) -> AsyncIterator[bytes]:
    """Raises Refused unless all came: of a caller who is killed nothing is heard but an end."""
    found, whole = hashlib.sha256(), ""
    async for request in requests:
        if request.WhichOneof("part") == "sha256":
            whole = request.sha256
            break
        found.update(request.piece)
        yield request.piece
    if found.hexdigest() != whole:
        raise Refused("the file did not come whole, and is not kept: push it again")
