"""Where the API is found: a private socket, TLS, its health and its reflection."""

import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from api.access import Role, TokenRequest
from api.client import Client
from api.errors import Refused, Unreachable
from controller import listen
from controller.auth.door import Door, open_door
from controller.registry import Registry, utc_now
from controller.settings import Settings
from reconcilers.certs.ca import EmbeddedCa, private_pem
from stack.web import free_port
from tests.unit.api.test_server import RecordingPlane
from tests.unit.cli.inspection import Seen
from tests.unit.controller.nofiles import NoFiles


@pytest.fixture
async def door(lite: Registry) -> Door:
    return await open_door(Settings(), lite)


@pytest.fixture
def serving(door: Door) -> Callable[..., AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def serving(path: Path, tls: listen.Tls | None = None) -> AsyncIterator[None]:
        server = await listen.start(RecordingPlane(), Seen(), NoFiles(), door, path, tls)
        try:
            yield
        finally:
            await server.stop(None)

    return serving


Serving = Callable[..., AbstractAsyncContextManager[None]]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "private" / "agent.sock"


async def test_the_socket_is_its_owners_alone(serving: Serving, path: Path) -> None:
    async with serving(path), Client(f"unix://{path}", actor="ann") as client:
        assert mode(path) == 0o600
        assert mode(path.parent) == 0o700
        assert (await client.node_status()).node == "rift"


async def test_a_stale_socket_of_a_killed_agent_is_replaced(serving: Serving, path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    async with serving(path), Client(f"unix://{path}", actor="ann") as client:
        assert (await client.node_status()).node == "rift"
        assert mode(path) == 0o600


async def test_the_socket_of_an_agent_that_lives_is_not_taken_from_it(serving: Serving, door: Door, path: Path) -> None:
    async with serving(path):
        with pytest.raises(Refused, match=r"api.socket: another agent serves"):
            await listen.start(RecordingPlane(), Seen(), NoFiles(), door, path, None)
        async with Client(f"unix://{path}", actor="ann") as client:
            assert (await client.node_status()).node == "rift"


async def test_a_file_that_is_no_socket_is_left_alone(door: Door, tmp_path: Path) -> None:
    precious = tmp_path / "ca.pem"
    EmbeddedCa.open(tmp_path, "rift", utc_now)
    before = mode(precious)
    with pytest.raises(Refused, match=r"ca\.pem is there, and is no socket: move it away, or choose another place"):
        await listen.start(RecordingPlane(), Seen(), NoFiles(), door, precious, None)
    assert mode(precious) == before


async def test_a_folder_that_cannot_be_made_is_one_sentence(door: Door, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match=r"api.socket: .* cannot be listened on .*: choose another place"):
        await listen.start(RecordingPlane(), Seen(), NoFiles(), door, tmp_path / "file" / "agent.sock", None)


async def test_a_path_that_is_too_long_for_a_socket_is_one_sentence(door: Door, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"api\.socket"):
        await listen.start(RecordingPlane(), Seen(), NoFiles(), door, tmp_path / ("x" * 120) / "agent.sock", None)


@pytest.fixture
async def tls(tmp_path: Path) -> listen.Tls:
    ca = EmbeddedCa.open(tmp_path / "ca", "rift", utc_now)
    key = ec.generate_private_key(ec.SECP256R1())
    chain = ca.sign("localhost", key, timedelta(days=1))
    pem = b"".join(link.public_bytes(serialization.Encoding.PEM) for link in chain)
    pair = listen.Pair(pem, private_pem(key))
    return listen.Tls(f"127.0.0.1:{free_port()}", lambda: pair)


async def test_a_second_agent_on_one_port_is_refused(
    serving: Serving, door: Door, path: Path, tls: listen.Tls, tmp_path: Path
) -> None:
    async with serving(path, tls):
        sentence = rf"api\.listen: {tls.listen} cannot be listened on \(Address already in use\): choose another port"
        with pytest.raises(Refused, match=sentence):
            await listen.start(RecordingPlane(), Seen(), NoFiles(), door, tmp_path / "b.sock", tls)


async def test_tls_on_loopback_is_trusted_by_the_agents_ca(
    serving: Serving, door: Door, path: Path, tls: listen.Tls, tmp_path: Path
) -> None:
    address = f"localhost:{tls.listen.rpartition(':')[2]}"
    async with serving(path, tls):
        ca_file = str(tmp_path / "ca" / "ca.pem")
        secret = (await door.access.create_token(TokenRequest(name="ci", role=Role.VIEWER), actor="test")).secret
        async with Client(address, actor="ann", ca_file=ca_file, token=secret) as client:
            assert (await client.node_status()).node == "rift"
        async with Client(address, actor="ann", timeout=2) as stranger:
            with pytest.raises(Unreachable):
                await stranger.node_status()


async def test_a_tls_port_that_is_taken_is_one_sentence(door: Door, path: Path, tls: listen.Tls) -> None:
    host, _, port = tls.listen.rpartition(":")
    with socket.create_server((host, int(port))), pytest.raises(Refused, match=r"api.listen: .*: choose another port"):
        await listen.start(RecordingPlane(), Seen(), NoFiles(), door, path, tls)


async def test_health_and_reflection_answer(serving: Serving, path: Path) -> None:
    async with serving(path), grpc.aio.insecure_channel(f"unix://{path}") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", "mcp.v1.ControlPlaneService", "mcp.v1.InspectionService"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        listing = reflection_pb2.ServerReflectionRequest(list_services="")
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        async for answer in stub.ServerReflectionInfo(iter([listing])):
            names = {service.name for service in answer.list_services_response.service}
            ours = {f"mcp.v1.{name}Service" for name in ("ControlPlane", "Access", "Inspection", "Files")}
            assert names == {*ours, "grpc.health.v1.Health"}
