"""Puts the API where callers find it: a Unix socket that only its owner can open, and TLS 1.3 if asked for."""

import os
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio  # type: ignore[attr-defined]  # missing in the stubs only
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from api.access_server import AccessServicer
from api.client import MAX_MESSAGE_BYTES
from api.control_plane import ControlPlane
from api.errors import Refused
from api.files import Files
from api.files_server import FilesServicer
from api.gen.mcp.v1 import access_pb2, control_plane_pb2, files_pb2, inspection_pb2
from api.gen.mcp.v1.access_pb2_grpc import add_AccessServiceServicer_to_server
from api.gen.mcp.v1.control_plane_pb2_grpc import add_ControlPlaneServiceServicer_to_server
from api.gen.mcp.v1.files_pb2_grpc import add_FilesServiceServicer_to_server
from api.gen.mcp.v1.inspection_pb2_grpc import add_InspectionServiceServicer_to_server
from api.inspection import Inspection
from api.inspection_server import InspectionServicer
from api.server import ControlPlaneServicer, ErrorInterceptor
from controller.auth import methods
from controller.auth.door import Door

_SERVICES = (
    control_plane_pb2.DESCRIPTOR.services_by_name["ControlPlaneService"].full_name,
    access_pb2.DESCRIPTOR.services_by_name["AccessService"].full_name,
    inspection_pb2.DESCRIPTOR.services_by_name["InspectionService"].full_name,
    files_pb2.DESCRIPTOR.services_by_name["FilesService"].full_name,
)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, both in PEM, the chain leaf first."""

    chain: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Tls:
    """Where to serve TLS, and with what."""

    listen: str
    pair: Callable[[], Pair]
    """Asked with each handshake, in a thread of gRPC's; it must not wait."""
    client_ca: bytes | None = None
    """PEM of a CA: callers must show a certificate of its."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much of the agent callers may have before anybody knows who they are."""

    message_bytes: int = 4 * 1024 * 1024
    streams: int = 256
    """Over one connection."""
    connections: int = 512
    """Of all callers of one listener; more are closed at once."""
    greeting_seconds: float = 10.0
    """A connection has so long for its handshakes, and for what HTTP/2 begins with."""
    idle_seconds: float = 300.0
    """A connection without calls is closed after that; clients open another when they need one."""

    def options(self) -> list[tuple[str, int]]:
        """As gRPC has them."""
        greeting = round(self.greeting_seconds * 1000)
        return [
            ("grpc.max_receive_message_length", self.message_bytes),
            ("grpc.max_concurrent_streams", self.streams),
            ("grpc.max_allowed_incoming_connections", self.connections),
            ("grpc.server_handshake_timeout_ms", greeting),
            ("grpc.http2.settings_timeout", greeting),
            ("grpc.max_connection_idle_ms", round(self.idle_seconds * 1000)),
            # Else a second agent on the same port would get every other caller.
            ("grpc.so_reuseport", 0),
            # Who vanished without a word has streams that would be kept for hours.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
        ]


async def start(
    plane: ControlPlane,
    inspection: Inspection,
    files: Files,
    door: Door,
    path: Path,
    tls: Tls | None,
    bounds: Bounds | None = None,
) -> grpc.aio.Server:
    """Serves the API, its health and its reflection, all behind the door. Raises Refused for an address not to be had.

    Raises RuntimeError where a method is served that nobody said who may call.
    """
    bounds = bounds or Bounds()
    server = grpc.aio.server(
        interceptors=[ErrorInterceptor(), door.gate],
        options=[("grpc.max_send_message_length", MAX_MESSAGE_BYTES), *bounds.options()],
    )
    methods.check(await _add_services(server, plane, inspection, files, door))
    _bind_socket(server, path)
    if tls is not None:
        _bind_tls(server, tls)
    await server.start()
    return server


async def _add_services(
    server: grpc.aio.Server, plane: ControlPlane, inspection: Inspection, files: Files, door: Door
) -> frozenset[str]:
    """The paths of all methods that the server has from now on."""
    register: Any = _Register(server)
    add_ControlPlaneServiceServicer_to_server(ControlPlaneServicer(plane), register)
    add_AccessServiceServicer_to_server(AccessServicer(door.access), register)
    add_InspectionServiceServicer_to_server(InspectionServicer(inspection), register)
    add_FilesServiceServicer_to_server(FilesServicer(files), register)
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, register)
    for name in ("", *_SERVICES):
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    names = (*_SERVICES, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name)
    reflecting = reflection.aio.ReflectionServicer(names)  # type: ignore[attr-defined]  # missing in the stubs only
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflecting, register)
    return frozenset(register.methods)


class _Register:
    """Hands methods on to a server, and notes which they are: a server cannot be asked."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server
        self.methods: set[str] = set()

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """As a server's."""
        self._server.add_generic_rpc_handlers(tuple(handlers))

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """As a server's."""
        self.methods |= {f"/{service}/{name}" for name in handlers}
        self._server.add_registered_method_handlers(service, dict(handlers))  # type: ignore[attr-defined]  # as above


def _bind_socket(server: grpc.aio.Server, path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_if_served(path)
        with _private():
            server.add_insecure_port(f"unix:{path}")
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or str(error).partition(";")[0]
        raise Refused(f"api.socket: {path} cannot be listened on ({why}): choose another place") from error


def _bind_tls(server: grpc.aio.Server, tls: Tls) -> None:
    handed = tls.pair()

    def configuration(pair: Pair) -> Any:
        return grpc.ssl_server_certificate_configuration([(pair.key, pair.chain)], tls.client_ca)

    def changed() -> Any:
        nonlocal handed
        pair = tls.pair()
        if pair is handed:
            return None
        handed = pair
        return configuration(pair)

    credentials = grpc.dynamic_ssl_server_credentials(configuration(handed), changed, tls.client_ca is not None)
    try:
        server.add_secure_port(tls.listen, credentials)
    except RuntimeError as error:
        why = _why_not(tls.listen) or str(error).partition(";")[0]
        raise Refused(f"api.listen: {tls.listen} cannot be listened on ({why}): choose another port") from error


def _why_not(listen: str) -> str | None:
    """What the system says of listening there: gRPC writes that to its own log alone."""
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host.strip("[]"), int(port)), family=family).close()
    except OSError as error:
        return os.strerror(error.errno) if error.errno else str(error)
    return None


def is_served(path: Path) -> bool:
    """Whether an agent answers at the socket. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as probe, suppress(FileNotFoundError, ConnectionRefusedError):
        probe.connect(str(path))
        return True
    return False


def _refuse_if_served(path: Path) -> None:
    if path.exists() and not path.is_socket():
        raise Refused(f"api.socket: {path} is there, and is no socket: move it away, or choose another place")
    # gRPC takes the path from whoever has it: right where that one was killed, and wrong where it lives.
    if is_served(path):
        raise Refused(f"api.socket: another agent serves {path}: stop it first, or choose another place")


@contextmanager
def _private() -> Iterator[None]:
    # gRPC creates the socket itself; only the mask can make it 0600 from its first moment on.
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)
