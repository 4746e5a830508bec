"""The part of the typed client that is about files."""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from api.files import FileTarget, FoundFile, Removal, ServiceFile
from api.gen.mcp.v1 import files_pb2 as pb
from api.wire import from_wire, to_wire

if TYPE_CHECKING:
    from api.gen.mcp.v1.files_pb2_grpc import FilesServiceAsyncStub


class FilesClient:
    """Pushes files to an agent and pulls them.

    `call` sends a request as the whole client does, `metadata` is what it shows
    for a stream, within `translated` errors are those of api.errors.
    """

    def __init__(
        self,
        stub: "FilesServiceAsyncStub",
        call: Callable[[Any, Any], Awaitable[Any]],
        metadata: Any,
        translated: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._stub = stub
        self._call = call
        self._metadata = metadata
        self._translated = translated

    async def push(self, target: FileTarget, pieces: AsyncIterable[bytes]) -> ServiceFile:
        """Has a file kept and laid down. Raises NotFound, Refused, InvalidSpec; and what `pieces` raises."""

        failures: list[Exception] = []

        async def requests() -> AsyncIterator[pb.PushFileRequest]:
            yield pb.PushFileRequest(target=to_wire(target, pb.FileTarget()), service=target.service)
            whole = hashlib.sha256()
            try:
                async for piece in pieces:
                    whole.update(piece)
                    yield pb.PushFileRequest(piece=piece)
                yield pb.PushFileRequest(sha256=whole.hexdigest())
            except Exception as failure:
                failures.append(failure)
                raise

        try:
            with self._translated():
                answer = await self._stub.PushFile(requests(), metadata=self._metadata)
        except Exception:
            # gRPC cancels the call, and knows nothing of why.
            if failures:
                raise failures[0] from None
            raise
        return from_wire(answer.file, ServiceFile)

    async def remove(
        self, service: str, path: str, *, delete: bool = False, forget: bool = False, dry_run: bool = False
    ) -> Removal:
        """Takes a push back. Raises NotFound, Refused."""
        request = pb.RemoveFileRequest(service=service, path=path, delete=delete, forget=forget, dry_run=dry_run)
        answer = await self._call(self._stub.RemoveFile, request)
        return Removal(file=from_wire(answer.file, ServiceFile), planned=answer.planned)

    async def pull(self, service: str, path: str) -> tuple[FoundFile, AsyncIterator[bytes]]:
        """What lies on the node's disk now, and its content. Raises NotFound, Refused, InvalidSpec."""
        call = self._stub.PullFile(pb.PullFileRequest(service=service, path=path), metadata=self._metadata)
        answers = aiter(call)
        with self._translated():
            first = await anext(answers)
        return from_wire(first.found, FoundFile), self._pieces(answers)

    async def files(self, service: str, *, history: bool = False) -> tuple[ServiceFile, ...]:
        """The files of a service, by path; with `history` the earlier ones too, oldest first. Raises NotFound."""
        answer = await self._call(self._stub.ListFiles, pb.ListFilesRequest(service=service, history=history))
        return tuple(from_wire(file, ServiceFile) for file in answer.files)

    async def _pieces(self, answers: AsyncIterator[pb.PullFileResponse]) -> AsyncIterator[bytes]:
        with self._translated():
            async for answer in answers:
                yield answer.piece
