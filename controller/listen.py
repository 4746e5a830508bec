"""Puts the API where callers find it: a Unix socket that only its owner can open, and TLS on loopback if asked for."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio  # type: ignore[attr-defined]  # missing in the stubs only
from grpc_reflection.v1alpha import reflection

from api.client import MAX_MESSAGE_BYTES
from api.control_plane import ControlPlane
from api.errors import Refused
from api.gen.mcp.v1 import control_plane_pb2
from api.gen.mcp.v1.control_plane_pb2_grpc import add_ControlPlaneServiceServicer_to_server
from api.server import ControlPlaneServicer, ErrorInterceptor

_SERVICE = control_plane_pb2.DESCRIPTOR.services_by_name["ControlPlaneService"].full_name


@dataclass(frozen=True, slots=True)
class Tls:
    """Where to serve TLS, and with which pair, both in PEM, the chain leaf first."""

    listen: str
    chain: bytes
    key: bytes


async def start(plane: ControlPlane, path: Path, tls: Tls | None) -> grpc.aio.Server:
    """Serves the API, its health and its reflection. Raises Refused where an address cannot be had."""
    server = grpc.aio.server(
        interceptors=[ErrorInterceptor()], options=[("grpc.max_send_message_length", MAX_MESSAGE_BYTES)]
    )
    add_ControlPlaneServiceServicer_to_server(ControlPlaneServicer(plane), server)
    await _add_health(server)
    reflection.enable_server_reflection((_SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name), server)
    _bind_socket(server, path)
    if tls is not None:
        _bind_tls(server, tls)
    await server.start()
    return server


async def _add_health(server: grpc.aio.Server) -> None:
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    for name in ("", _SERVICE):
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)


def _bind_socket(server: grpc.aio.Server, path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _refuse_if_served(path)
        with _private():
            server.add_insecure_port(f"unix:{path}")
    except (OSError, RuntimeError) as error:
        raise Refused(f"api.socket: {path} cannot be listened on ({error}): choose another place") from error


def _bind_tls(server: grpc.aio.Server, tls: Tls) -> None:
    try:
        server.add_secure_port(tls.listen, grpc.ssl_server_credentials([(tls.key, tls.chain)]))
    except RuntimeError as error:
        raise Refused(f"api.listen: {tls.listen} cannot be listened on ({error}): choose another port") from error


def _refuse_if_served(path: Path) -> None:
    # gRPC takes the path from whoever has it: right where that one was killed, and wrong where it lives.
    with socket.socket(socket.AF_UNIX) as probe, suppress(FileNotFoundError, ConnectionRefusedError):
        probe.connect(str(path))
        raise Refused(f"api.socket: another agent serves {path}: stop it first, or choose another place")


@contextmanager
def _private() -> Iterator[None]:
    # gRPC creates the socket itself; only the mask can make it 0600 from its first moment on.
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)
