"""The agent's API over gRPC: messages become models, errors become status codes.

Nothing is decided here. A handler calls one method of the control plane; the
interceptor is the only place that knows how an error travels.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from inspect import isawaitable
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio
import structlog
from google.protobuf.message import Message
from pydantic import ValidationError

from api import metadata
from api.access import caller
from api.brief import brief
from api.complaints import complaints
from api.control_plane import DEFAULT_EVENTS, DEFAULT_LOOK_SECONDS, Applied, ControlPlane
from api.errors import InvalidSpec, McpError
from api.gen.mcp.v1 import control_plane_pb2 as pb
from api.gen.mcp.v1 import service_pb2
from api.gen.mcp.v1.control_plane_pb2_grpc import ControlPlaneServiceServicer
from api.service import Service
from api.spec import ServiceSpec
from api.wire import from_wire, to_wire

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

log = structlog.get_logger("api")


class ControlPlaneServicer(ControlPlaneServiceServicer):
    """Serves a control plane; see control_plane.proto for what each call means."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self._plane = control_plane
        self._listed: dict[bool, dict[str, tuple[Service, service_pb2.Service]]] = {}

    async def ApplyService(self, request: pb.ApplyServiceRequest, context: Context) -> pb.ApplyServiceResponse:
        """Stores a definition, or says what that would change."""
        applied = await self._plane.apply(
            _spec(request),
            actor=actor(context),
            dry_run=request.dry_run,
            expected_generation=request.expected_generation if request.HasField("expected_generation") else None,
            component=request.component,
        )
        return pb.ApplyServiceResponse(
            service=to_wire(applied.service, service_pb2.Service()),
            change=applied.change,
            fields=_fields(applied),
            actions=_actions(applied),
        )

    async def DeleteService(self, request: pb.DeleteServiceRequest, context: Context) -> pb.DeleteServiceResponse:
        """Marks a service for deletion, or says what that would take away."""
        deleted = await self._plane.delete(
            request.name,
            actor=actor(context),
            dry_run=request.dry_run,
            expected_generation=request.expected_generation if request.HasField("expected_generation") else None,
        )
        return pb.DeleteServiceResponse(
            service=to_wire(deleted.service, service_pb2.Service()),
            actions=[to_wire(action, service_pb2.PlannedAction()) for action in deleted.actions],
        )

    async def SuspendService(self, request: pb.SuspendServiceRequest, context: Context) -> pb.SuspendServiceResponse:
        """Has a service left alone."""
        looked = await self._plane.suspend(request.name, actor=actor(context), reason=request.reason)
        return pb.SuspendServiceResponse(service=to_wire(looked.service, service_pb2.Service()), late=looked.late)

    async def ResumeService(self, request: pb.ResumeServiceRequest, context: Context) -> pb.ResumeServiceResponse:
        """Has a service converged again."""
        service = await self._plane.resume(request.name, actor=actor(context))
        return pb.ResumeServiceResponse(service=to_wire(service, service_pb2.Service()))

    async def ReconcileService(
        self, request: pb.ReconcileServiceRequest, context: Context
    ) -> pb.ReconcileServiceResponse:
        """Has a service looked at now."""
        looked = await self._plane.reconcile(request.name, within=request.within_seconds or DEFAULT_LOOK_SECONDS)
        return pb.ReconcileServiceResponse(service=to_wire(looked.service, service_pb2.Service()), late=looked.late)

    async def SetServiceActive(
        self, request: pb.SetServiceActiveRequest, context: Context
    ) -> pb.SetServiceActiveResponse:
        """Has a service or a component run, or be kept stopped."""
        applied = await self._plane.set_active(
            request.name, request.component, active=request.active, actor=actor(context), note=request.note
        )
        return pb.SetServiceActiveResponse(
            service=to_wire(applied.service, service_pb2.Service()), change=applied.change, fields=_fields(applied)
        )

    async def RestartService(self, request: pb.RestartServiceRequest, context: Context) -> pb.RestartServiceResponse:
        """Has containers made anew."""
        service = await self._plane.restart(request.name, request.component, actor=actor(context))
        return pb.RestartServiceResponse(service=to_wire(service, service_pb2.Service()))

    async def ListRevisions(self, request: pb.ListRevisionsRequest, context: Context) -> pb.ListRevisionsResponse:
        """What a service was to be."""
        revisions = await self._plane.revisions(request.name)
        return pb.ListRevisionsResponse(revisions=[to_wire(one, service_pb2.Revision()) for one in revisions])

    async def RollbackService(self, request: pb.RollbackServiceRequest, context: Context) -> pb.RollbackServiceResponse:
        """Makes an earlier revision the desired state, or says what that would change."""
        applied = await self._plane.rollback(
            request.name, request.generation, actor=actor(context), dry_run=request.dry_run
        )
        return pb.RollbackServiceResponse(
            service=to_wire(applied.service, service_pb2.Service()),
            change=applied.change,
            fields=_fields(applied),
            actions=_actions(applied),
            notes=applied.notes,
        )

    async def AdoptService(self, request: pb.AdoptServiceRequest, context: Context) -> pb.AdoptServiceResponse:
        """Takes over containers that run without a definition, or says how it would be."""
        adopted = await self._plane.adopt(
            request.name,
            dict(request.containers),
            dict(request.routes),
            actor=actor(context),
            dry_run=request.dry_run,
        )
        return pb.AdoptServiceResponse(
            service=to_wire(adopted.service, service_pb2.Service()),
            containers=adopted.containers,
            notes=adopted.notes,
        )

    async def GetService(self, request: pb.GetServiceRequest, context: Context) -> pb.GetServiceResponse:
        """One service."""
        service = await self._plane.get(request.name)
        return pb.GetServiceResponse(service=to_wire(service, service_pb2.Service()))

    async def ListServices(self, request: pb.ListServicesRequest, context: Context) -> pb.ListServicesResponse:
        """All services."""
        known = self._listed.get(request.brief, {})
        listed = {}
        for service in await self._plane.services():
            made = known.get(service.name)
            # The plane gives the same object again for as long as nothing of it changed.
            if made is None or made[0] is not service:
                shown = brief(service) if request.brief else service
                made = (service, to_wire(shown, service_pb2.Service()))
            listed[service.name] = made
        self._listed[request.brief] = listed
        return pb.ListServicesResponse(services=[message for _, message in listed.values()])

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

    async def SetNodeDrained(self, request: pb.SetNodeDrainedRequest, context: Context) -> pb.SetNodeDrainedResponse:
        """Has what is applied stored and not started, or no longer."""
        await self._plane.set_drained(request.drained, actor=actor(context))
        return pb.SetNodeDrainedResponse()


def _fields(applied: Applied) -> list[service_pb2.FieldChange]:
    return [to_wire(field, service_pb2.FieldChange()) for field in applied.fields]


def _actions(applied: Applied) -> list[service_pb2.PlannedAction]:
    return [to_wire(action, service_pb2.PlannedAction()) for action in applied.actions]


def _spec(request: pb.ApplyServiceRequest) -> ServiceSpec:
    if not request.HasField("spec"):
        raise InvalidSpec("", "the request carries no definition")
    try:
        return from_wire(request.spec, ServiceSpec)
    except ValidationError as error:
        first = complaints(error)[0]
        raise InvalidSpec(first.field, first.message) from error


def actor(context: Context) -> str:
    """Who calls: as the door knows them, or as they say themselves where there is no door."""
    known = caller()
    return known.name if known else metadata.read(context.invocation_metadata(), metadata.ACTOR) or "unknown"


class ErrorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Translates what a handler raises; a defect of ours is logged, and only its kind travels."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable["Handler | None"]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wraps the handler of any kind of call."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler  # type: ignore[return-value]  # gRPC says so of what nobody serves
        method, behavior = handler_call_details.method, behavior_of(handler)
        return rewrapped(handler, _guard_unary(method, behavior), _guard_stream(method, behavior))


def behavior_of(handler: Handler) -> Any:
    """What the handler calls, whatever its kind."""
    return handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream


_KINDS: Final = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
"""By whether requests and answers are streams."""


def rewrapped(handler: Handler, unary: Any, stream: Any) -> Handler:
    """A handler of the same kind that calls `unary`, or `stream` where the answer is one."""
    return _KINDS[handler.request_streaming, handler.response_streaming](
        stream if handler.response_streaming else unary,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


async def answers(behavior: Any, request: Any, context: Context) -> AsyncIterator[Message]:
    """What a behavior answers with a stream. One that writes to its context itself yields nothing here."""
    answered = behavior(request, context)
    if isawaitable(answered):
        await answered
        return
    async for answer in answered:
        yield answer


def _guard_unary(method: str, behavior: Any) -> Callable[[Any, Context], Awaitable[Message]]:
    async def guarded(request: Any, context: Context) -> Message:
        try:
            answer: Message = await behavior(request, context)
        except Exception as error:  # every error must reach the caller as a status
            await _abort(method, context, error)
            raise
        return answer

    return guarded


def _guard_stream(method: str, behavior: Any) -> Callable[[Any, Context], AsyncIterator[Message]]:
    async def guarded(request: Any, context: Context) -> AsyncIterator[Message]:
        try:
            async for answer in answers(behavior, request, context):
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
