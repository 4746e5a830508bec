"""The typed client: models in, models out, errors of api.errors."""

import asyncio
import errno
import os
import re
from collections.abc import AsyncIterator, Awaitable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio

from api import errors, metadata
from api.access_client import AccessClient
from api.control_plane import DEFAULT_EVENTS, DEFAULT_LOOK_SECONDS, Adopted, Applied, Deleted, Looked, Watched
from api.files_client import FilesClient
from api.gen.mcp.v1 import control_plane_pb2 as pb
from api.gen.mcp.v1.access_pb2_grpc import AccessServiceStub
from api.gen.mcp.v1.control_plane_pb2_grpc import ControlPlaneServiceStub
from api.gen.mcp.v1.files_pb2_grpc import FilesServiceStub
from api.gen.mcp.v1.inspection_pb2_grpc import InspectionServiceStub
from api.inspection_client import InspectionClient
from api.service import Change, Container, Event, FieldChange, NodeStatus, PlannedAction, Revision, Service
from api.spec import ServiceSpec
from api.wire import definition_to_wire, from_wire

_CAUSE = re.compile(r"last error: [A-Z_]+: (?:ipv4|ipv6|unix):[^ ]+ (?:.*error: )?")
"""What gRPC says before it says why there is no connection: states of its own, and the address once more."""

_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
"""What BoringSSL calls that in gRPC's words."""

RECONNECT_MILLISECONDS = 3000
"""So long at most until a connection that failed is tried again; by itself gRPC lets two minutes pass."""

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
"""Lists of a thousand services pass the library's own cap of 4 MiB."""

Answer = TypeVar("Answer")


class Client:
    """One agent, over its Unix socket (`unix:///path`) or TLS (`host:port`, with the CA's file).

    `timeout` is in seconds, for each call that is not a stream. `token` is shown
    over TLS alone, and so is the `certificate`: the files of its chain and its
    key. Over the socket `actor` is who we are. Use as an async context manager.
    """

    def __init__(
        self,
        address: str,
        *,
        actor: str,
        ca_file: str | None = None,
        timeout: float = 10.0,
        token: str | None = None,
        certificate: tuple[str, str] | None = None,
    ) -> None:
        self.address = address
        self._timeout = timeout
        self._metadata: tuple[tuple[str, str | bytes], ...] = ((metadata.ACTOR, actor.encode()),)
        if token is not None and not address.startswith("unix:"):
            self._metadata += ((metadata.CREDENTIALS, metadata.bearer(token)),)
        self._channel = _channel(address, ca_file, certificate)
        self._stub = ControlPlaneServiceStub(self._channel)
        self.inspection = InspectionClient(InspectionServiceStub(self._channel), self._metadata, self._translated)
        self.access = AccessClient(AccessServiceStub(self._channel), self._ask)
        self.files = FilesClient(FilesServiceStub(self._channel), self._ask, self._metadata, self._translated)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close(None)

    async def apply(
        self,
        spec: ServiceSpec,
        *,
        dry_run: bool = False,
        expected_generation: int | None = None,
        component: str = "",
    ) -> Applied:
        """Stores a definition, or one component of it, as desired state, or says what that would change."""
        request = pb.ApplyServiceRequest(
            spec=definition_to_wire(spec),
            dry_run=dry_run,
            expected_generation=expected_generation,
            component=component,
        )
        answer = await self._call(self._stub.ApplyService(request, metadata=self._metadata, timeout=self._timeout))
        return _applied(answer)

    async def delete(self, name: str, *, dry_run: bool = False, expected_generation: int | None = None) -> Deleted:
        """Marks a service for deletion, or says what that would take away."""
        request = pb.DeleteServiceRequest(name=name, dry_run=dry_run, expected_generation=expected_generation)
        answer = await self._call(self._stub.DeleteService(request, metadata=self._metadata, timeout=self._timeout))
        return Deleted(
            service=from_wire(answer.service, Service),
            actions=tuple(from_wire(action, PlannedAction) for action in answer.actions),
        )

    async def suspend(self, name: str, *, reason: str = "") -> Looked:
        """Has a service left alone until it is resumed. Raises NotFound."""
        request = pb.SuspendServiceRequest(name=name, reason=reason)
        timeout = self._timeout + DEFAULT_LOOK_SECONDS
        answer = await self._call(self._stub.SuspendService(request, metadata=self._metadata, timeout=timeout))
        return Looked(from_wire(answer.service, Service), tuple(answer.late))

    async def resume(self, name: str) -> Service:
        """Has a service converged again. Raises NotFound."""
        request = pb.ResumeServiceRequest(name=name)
        answer = await self._call(self._stub.ResumeService(request, metadata=self._metadata, timeout=self._timeout))
        return from_wire(answer.service, Service)

    async def reconcile(self, name: str, *, within: float = DEFAULT_LOOK_SECONDS) -> Looked:
        """Has all reconcilers look at a service, and answers when they did. Raises NotFound."""
        request = pb.ReconcileServiceRequest(name=name, within_seconds=within)
        timeout = self._timeout + within
        answer = await self._call(self._stub.ReconcileService(request, metadata=self._metadata, timeout=timeout))
        return Looked(from_wire(answer.service, Service), tuple(answer.late))

    async def set_active(self, name: str, component: str = "", *, active: bool, note: str = "") -> Applied:
        """Has a service, or one component of it, run or be kept stopped. Raises NotFound."""
        request = pb.SetServiceActiveRequest(name=name, component=component, active=active, note=note)
        answer = await self._ask(self._stub.SetServiceActive, request)
        return Applied(from_wire(answer.service, Service), Change(answer.change), _changes(answer))

    async def restart(self, name: str, component: str = "") -> Service:
        """Has containers made anew. Raises NotFound, and Refused where they are stopped."""
        request = pb.RestartServiceRequest(name=name, component=component)
        answer = await self._ask(self._stub.RestartService, request)
        return from_wire(answer.service, Service)

    async def revisions(self, name: str) -> tuple[Revision, ...]:
        """What a service was to be, oldest first. Raises NotFound."""
        answer = await self._ask(self._stub.ListRevisions, pb.ListRevisionsRequest(name=name))
        return tuple(from_wire(revision, Revision) for revision in answer.revisions)

    async def rollback(self, name: str, generation: int = 0, *, dry_run: bool = False) -> Applied:
        """Makes an earlier revision (0: the last that was defined otherwise) the desired state. Raises NotFound."""
        request = pb.RollbackServiceRequest(name=name, generation=generation, dry_run=dry_run)
        answer = await self._ask(self._stub.RollbackService, request)
        return replace(_applied(answer), notes=tuple(answer.notes))

    async def adopt(
        self, name: str, containers: Mapping[str, str], routes: Mapping[str, str], *, dry_run: bool = False
    ) -> Adopted:
        """Takes over containers that run without a definition, or says how it would be. Raises NotFound, Refused."""
        request = pb.AdoptServiceRequest(name=name, containers=containers, routes=routes, dry_run=dry_run)
        answer = await self._ask(self._stub.AdoptService, request)
        return Adopted(from_wire(answer.service, Service), tuple(answer.containers), tuple(answer.notes))

    async def get(self, name: str) -> Service:
        """One service. Raises NotFound."""
        request = pb.GetServiceRequest(name=name)
        answer = await self._call(self._stub.GetService(request, metadata=self._metadata, timeout=self._timeout))
        return from_wire(answer.service, Service)

    async def services(self, *, brief: bool = False) -> tuple[Service, ...]:
        """All services of the node, by name; `brief`: with no more of each than lists show (see api.brief)."""
        request = pb.ListServicesRequest(brief=brief)
        answer = await self._call(self._stub.ListServices(request, metadata=self._metadata, timeout=self._timeout))
        return tuple(from_wire(service, Service) for service in answer.services)

    async def watch(self, names: Collection[str] = ()) -> AsyncIterator[Watched]:
        """The services as they are, `synced`, then each change. Raises Unreachable when the agent goes away."""
        call = self._stub.WatchServices(pb.WatchServicesRequest(names=names), metadata=self._metadata)
        with self._translated():
            async for message in call:
                yield _watched(message)
        raise errors.Unreachable(f"the agent at {self.address} ended the stream: it is stopping")

    async def events(self, service: str = "", *, limit: int = DEFAULT_EVENTS) -> tuple[Event, ...]:
        """The newest events, newest last."""
        request = pb.ListEventsRequest(service=service, limit=limit)
        answer = await self._call(self._stub.ListEvents(request, metadata=self._metadata, timeout=self._timeout))
        return tuple(from_wire(event, Event) for event in answer.events)

    async def watch_events(self, service: str = "", *, after_id: int = 0) -> AsyncIterator[Event]:
        """The events after that one, as they come. Raises Unreachable when the agent goes away."""
        request = pb.WatchEventsRequest(service=service, after_id=after_id)
        with self._translated():
            async for message in self._stub.WatchEvents(request, metadata=self._metadata):
                yield from_wire(message.event, Event)
        raise errors.Unreachable(f"the agent at {self.address} ended the stream: it is stopping")

    async def containers(self) -> tuple[Container, ...]:
        """Every container on the node, ours or not."""
        request = pb.ListContainersRequest()
        answer = await self._call(self._stub.ListContainers(request, metadata=self._metadata, timeout=self._timeout))
        return tuple(from_wire(container, Container) for container in answer.containers)

    async def node_status(self) -> NodeStatus:
        """The agent and what it depends on."""
        request = pb.GetNodeStatusRequest()
        answer = await self._call(self._stub.GetNodeStatus(request, metadata=self._metadata, timeout=self._timeout))
        return from_wire(answer.node, NodeStatus)

    async def set_drained(self, drained: bool) -> None:
        """Has what is applied to the node stored and not started, or no longer. What runs is not touched."""
        await self._ask(self._stub.SetNodeDrained, pb.SetNodeDrainedRequest(drained=drained))

    async def _ask(self, method: Any, request: Any) -> Any:
        return await self._call(method(request, metadata=self._metadata, timeout=self._timeout))

    async def _call(self, call: Awaitable[Answer]) -> Answer:
        with self._translated():
            return await call

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise _translate(error, self.address) from error
        except asyncio.CancelledError as error:
            # grpc.aio cancels a stream's reader when its channel is closed under it.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise errors.Unreachable(f"the connection to the agent at {self.address} was closed") from error


def _channel(address: str, ca_file: str | None, certificate: tuple[str, str] | None) -> grpc.aio.Channel:
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_reconnect_backoff_ms", RECONNECT_MILLISECONDS),
    ]
    if address.startswith("unix:"):
        # Without it the socket's path would be sent as the authority, percent-encoded.
        return grpc.aio.insecure_channel(address, [*options, ("grpc.default_authority", "localhost")])
    root = _read("CA file", ca_file) if ca_file else None
    chain, key = (_read("client certificate", path) for path in certificate) if certificate else (None, None)
    return grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(root, key, chain), options)


def _read(what: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise errors.Refused(f"the {what} {path} cannot be read: {error.strerror}") from error


def _applied(answer: Any) -> Applied:
    return Applied(
        service=from_wire(answer.service, Service),
        change=Change(answer.change),
        fields=_changes(answer),
        actions=tuple(from_wire(action, PlannedAction) for action in answer.actions),
    )


def _changes(answer: Any) -> tuple[FieldChange, ...]:
    return tuple(from_wire(field, FieldChange) for field in answer.fields)


def _watched(message: pb.WatchServicesResponse) -> Watched:
    if message.HasField("service"):
        return Watched(service=from_wire(message.service, Service))
    return Watched(deleted=message.deleted, synced=message.synced)


def _silence(address: str, details: str) -> errors.Unreachable:
    """Why there is no connection, of what gRPC says of it."""
    if _UNTRUSTED in details:
        why = details.rpartition(_UNTRUSTED)[2].strip(": ").removesuffix(": OK")
        return errors.Untrusted(
            f"what answers at {address} shows a certificate that the CA given for it did not sign, or not for that "
            f"name: copy the node's CA anew, or mend the address ({why})"
        )
    found = _CAUSE.search(details)
    cause = details[found.end() :] if found else details
    if address.startswith("unix:") and cause == os.strerror(errno.EACCES):
        return errors.Unreachable(
            f"the agent's socket {address} is not yours to open ({cause}): call as the agent's own user or as root, or"
            " by its host:port with a token"
        )
    return errors.Unreachable(f"the agent at {address} does not answer: is mcp-agent running there? ({cause})")


def _translate(error: grpc.aio.AioRpcError, address: str) -> errors.McpError:
    trailer = error.trailing_metadata()
    details = error.details() or ""
    kind = errors.named(metadata.read(trailer, metadata.ERROR))
    if kind is errors.InvalidSpec:
        return errors.InvalidSpec(metadata.read(trailer, metadata.FIELD), details)
    if kind is not None:
        return kind(details)
    match error.code():
        case grpc.StatusCode.UNAVAILABLE:
            return _silence(address, details)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return errors.Unreachable(f"the agent at {address} did not answer in time")
        case grpc.StatusCode.UNIMPLEMENTED:
            return errors.Refused(f"the agent at {address} does not know this call: it is older than this command")
        case _:
            return errors.McpError(f"the agent at {address} answered {error.code().name}: {details}")
