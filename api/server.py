"""The agent's API over gRPC: messages become models, errors become status codes.

Nothing is decided here. A handler calls one method of the control plane; the
interceptor is the only place that knows how an error travels.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio
import structlog
from google.protobuf.message import Message
from pydantic import ValidationError

from api import metadata
from api.complaints import complaints
from api.control_plane import DEFAULT_EVENTS, ControlPlane
from api.errors import InvalidSpec, McpError
from api.gen.mcp.v1 import control_plane_pb2 as pb
from api.gen.mcp.v1 import service_pb2
from api.gen.mcp.v1.control_plane_pb2_grpc import ControlPlaneServiceServicer
from api.spec import ServiceSpec
from api.wire import from_wire, to_wire

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

log = structlog.get_logger("api")


class ControlPlaneServicer(ControlPlaneServiceServicer):
    """Serves a control plane; see control_plane.proto for what each call means."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._plane = control_plane

    async def ApplyService(self, request: pb.ApplyServiceRequest, context: Context) -> pb.ApplyServiceResponse:
        """Stores a definition, or says what that would change."""
        applied = await self._plane.apply(
            _spec(request),
            actor=_actor(context),
            dry_run=request.dry_run,
            expected_generation=request.expected_generation if request.HasField("expected_generation") else None,
        )
        return pb.ApplyServiceResponse(
            service=to_wire(applied.service, service_pb2.Service()),
            change=applied.change,
            fields=[to_wire(field, service_pb2.FieldChange()) for field in applied.fields],
            actions=[to_wire(action, service_pb2.PlannedAction()) for action in applied.actions],
        )

    async def DeleteService(self, request: pb.DeleteServiceRequest, context: Context) -> pb.DeleteServiceResponse:
        """Marks a service for deletion, or says what that would take away."""
        deleted = await self._plane.delete(
            request.name,
            actor=_actor(context),
            dry_run=request.dry_run,
            expected_generation=request.expected_generation if request.HasField("expected_generation") else None,
        )
        return pb.DeleteServiceResponse(
            service=to_wire(deleted.service, service_pb2.Service()),
            actions=[to_wire(action, service_pb2.PlannedAction()) for action in deleted.actions],
        )

    async def GetService(self, request: pb.GetServiceRequest, context: Context) -> pb.GetServiceResponse:
        """One service."""
        service = await self._plane.get(request.name)
        return pb.GetServiceResponse(service=to_wire(service, service_pb2.Service()))

    async def ListServices(self, request: pb.ListServicesRequest, context: Context) -> pb.ListServicesResponse:
        """All services."""
        services = await self._plane.services()
        return pb.ListServicesResponse(services=[to_wire(service, service_pb2.Service()) for service in services])

    async def WatchServices(
        self,
        request: pb.WatchServicesRequest,
        context: Context,
    ) -> AsyncIterator[pb.WatchServicesResponse]:
        """A snapshot, then changes."""
        async for watched in self._plane.watch(frozenset(request.names)):
            if watched.service is not None:
                yield pb.WatchServicesResponse(service=to_wire(watched.service, service_pb2.Service()))
            elif watched.deleted:
                yield pb.WatchServicesResponse(deleted=watched.deleted)
            else:
                yield pb.WatchServicesResponse(synced=True)

    async def ListEvents(self, request: pb.ListEventsRequest, context: Context) -> pb.ListEventsResponse:
        """The newest events."""
        events = await self._plane.events(request.service, limit=request.limit or DEFAULT_EVENTS)
        return pb.ListEventsResponse(events=[to_wire(event, service_pb2.Event()) for event in events])

    async def WatchEvents(
        self,
        request: pb.WatchEventsRequest,
        context: Context,
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        """Events as they come."""
        async for event in self._plane.watch_events(request.service, after_id=request.after_id):
            yield pb.WatchEventsResponse(event=to_wire(event, service_pb2.Event()))

    async def ListContainers(self, request: pb.ListContainersRequest, context: Context) -> pb.ListContainersResponse:
        """Every container on the node."""
        containers = await self._plane.containers()
        return pb.ListContainersResponse(
            containers=[to_wire(container, service_pb2.Container()) for container in containers]
        )

    async def GetNodeStatus(self, request: pb.GetNodeStatusRequest, context: Context) -> pb.GetNodeStatusResponse:
        """The agent and its parts."""
        status = await self._plane.node_status()
        return pb.GetNodeStatusResponse(node=to_wire(status, service_pb2.NodeStatus()))


def _spec(request: pb.ApplyServiceRequest) -> ServiceSpec:
    if not request.HasField("spec"):
        raise InvalidSpec("", "the request carries no definition")
    try:
        return from_wire(request.spec, ServiceSpec)
    except ValidationError as error:
        first = complaints(error)[0]
        raise InvalidSpec(first.field, first.message) from error


def _actor(context: Context) -> str:
    return metadata.read(context.invocation_metadata(), metadata.ACTOR) or "unknown"


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Translates what a handler raises; a defect of ours is logged, and only its kind travels."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["grpc.RpcMethodHandler[Any, Any]"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """Wraps the handler of either kind of call that this API has."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith("/mcp."):
            return handler
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                _guard_stream(method, handler.unary_stream),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            _guard_unary(method, handler.unary_unary),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _guard_unary(method: str, behavior: Any) -> Callable[[Message, Context], Awaitable[Message]]:
    async def guarded(request: Message, context: Context) -> Message:
        try:
            answer: Message = await behavior(request, context)
        except Exception as error:  # every error must reach the caller as a status
            await _abort(method, context, error)
            raise
        return answer

    return guarded


def _guard_stream(method: str, behavior: Any) -> Callable[[Message, Context], AsyncIterator[Message]]:
    async def guarded(request: Message, context: Context) -> AsyncIterator[Message]:
        try:
            async for answer in behavior(request, context):
                yield answer
        except Exception as error:  # every error must reach the caller as a status
            await _abort(method, context, error)
            raise

    return guarded


async def _abort(method: str, context: Context, error: Exception) -> None:
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, McpError):
        log.error("call_failed", method=method, exc_info=error)
        await context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}; the agent's log says more")
    trailer: list[tuple[str, str | bytes]] = [(metadata.ERROR, type(error).__name__)]
    if isinstance(error, InvalidSpec):
        trailer.append((metadata.FIELD, error.field.encode()))
    await context.abort(error.code, error.message, tuple(trailer))
