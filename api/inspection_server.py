"""What the node can see, over gRPC: messages become models, and nothing is decided here."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc
import grpc.aio
from pydantic import ValidationError

from api.complaints import complaints
from api.errors import InvalidSpec, Refused
from api.gen.mcp.v1 import inspection_pb2 as pb
from api.gen.mcp.v1.inspection_pb2_grpc import InspectionServiceServicer
from api.inspection import DEFAULT_INTERVAL, ExportFormat, Inspection, LogQuery
from api.wire import from_wire, to_wire

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class InspectionServicer(InspectionServiceServicer):
    """Serves what can be looked at; see inspection.proto for what each call means."""

    def __init__(self, inspection: Inspection) -> None:
        self._inspection = inspection

    async def StreamLogs(self, request: pb.StreamLogsRequest, context: Context) -> AsyncIterator[pb.StreamLogsResponse]:
        """Lines as they come."""
        async with aclosing(self._inspection.logs(_query(request))) as batches:
            async for batch in batches:
                yield pb.StreamLogsResponse(lines=[to_wire(line, pb.LogLine()) for line in batch])

    async def WatchUsage(self, request: pb.WatchUsageRequest, context: Context) -> AsyncIterator[pb.WatchUsageResponse]:
        """What containers use, again and again."""
        interval = max(request.interval_seconds or DEFAULT_INTERVAL, 0.5)
        async with aclosing(self._inspection.usage(interval)) as usages:
            async for usage in usages:
                yield pb.WatchUsageResponse(usage=to_wire(usage, pb.NodeUsage()))

    async def Diagnose(self, request: pb.DiagnoseRequest, context: Context) -> pb.DiagnoseResponse:
        """All that was checked."""
        findings = await self._inspection.diagnose()
        return pb.DiagnoseResponse(findings=[to_wire(finding, pb.Finding()) for finding in findings])

    async def ExportService(self, request: pb.ExportServiceRequest, context: Context) -> pb.ExportServiceResponse:
        """Files that run a service without us."""
        if request.format not in ExportFormat.__members__.values():
            raise Refused(f'nothing can be exported as "{request.format}": say {" or ".join(ExportFormat)}')
        exported = await self._inspection.export(request.name, ExportFormat(request.format))
        return pb.ExportServiceResponse(exported=to_wire(exported, pb.Exported()))


def _query(request: pb.StreamLogsRequest) -> LogQuery:
    try:
        return from_wire(request.query, LogQuery)
    except ValidationError as error:
        first = complaints(error)[0]
        raise InvalidSpec(first.field, first.message) from error
