"""The typed client of the inspection service; part of api.client."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from api.errors import Unreachable
from api.gen.mcp.v1 import inspection_pb2 as pb
from api.inspection import DEFAULT_INTERVAL, Exported, ExportFormat, Finding, LogLine, LogQuery, NodeUsage
from api.wire import from_wire, to_wire

if TYPE_CHECKING:
    from api.gen.mcp.v1.inspection_pb2_grpc import InspectionServiceAsyncStub

_DIAGNOSIS = 30.0
"""Seconds that a node has to look at itself."""


class InspectionClient:
    """Asks what only the node can see. `translated` turns what gRPC raises into errors of ours."""

    def __init__(
        self,
        stub: "InspectionServiceAsyncStub",
        metadata: tuple[tuple[str, str | bytes], ...],
        translated: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._stub = stub
        self._how: dict[str, Any] = {"metadata": metadata}
        self._translated = translated

    async def logs(self, query: LogQuery) -> AsyncGenerator[tuple[LogLine, ...], None]:
        """Lines as they are there, oldest first; ends with them, or with the service. Raises NotFound."""
        request = pb.StreamLogsRequest(query=to_wire(query, pb.LogQuery()))
        with self._translated():
            async for message in self._stub.StreamLogs(request, **self._how):
                yield tuple(from_wire(line, LogLine) for line in message.lines)

    async def usage(self, interval: float = DEFAULT_INTERVAL) -> AsyncGenerator[NodeUsage, None]:
        """What containers use, each `interval` seconds. Raises Unreachable when the agent goes away."""
        request = pb.WatchUsageRequest(interval_seconds=interval)
        with self._translated():
            async for message in self._stub.WatchUsage(request, **self._how):
                yield from_wire(message.usage, NodeUsage)
        raise Unreachable("the agent ended the stream: it is stopping")

    async def diagnose(self) -> tuple[Finding, ...]:
        """All that the node's agent checked."""
        with self._translated():
            answer = await self._stub.Diagnose(pb.DiagnoseRequest(), timeout=_DIAGNOSIS, **self._how)
        return tuple(from_wire(finding, Finding) for finding in answer.findings)

    async def export(self, name: str, form: ExportFormat) -> Exported:
        """Files that run a service without us. Raises NotFound, Refused."""
        request = pb.ExportServiceRequest(name=name, format=form)
        with self._translated():
            answer = await self._stub.ExportService(request, timeout=_DIAGNOSIS, **self._how)
        return from_wire(answer.exported, Exported)
