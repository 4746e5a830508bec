"""Every method of every service is behind the door, which opens to whom it should, and writes down who was refused."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import h2.config
import h2.connection
import h2.events
import pytest

from api.access import How, Identity, Role, Token, TokenRequest
from api.client import Client
from api.errors import Forbidden, InvalidSpec, McpError, NotFound, Refused, TooMany, Unauthenticated, Unreachable
from api.gen.mcp.v1 import control_plane_pb2
from controller.auth import methods
from controller.auth.methods import METHODS, Rule
from controller.auth.tokens import sha256
from controller.registry import utc_now
from tests.unit.api.test_server import SERVICE
from tests.unit.controller.auth.served import Served, client_certificate, serving


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as served:
        yield served


async def call(channel: grpc.aio.Channel, method: str, token: str | None) -> tuple[grpc.StatusCode, str]:
    """What a method answers to an empty request; a stream counts as OK with its first answer.

    Where the answer overtakes the request, gRPC resets the stream and calls that INTERNAL: it is asked once more.
    """
    answer = await _called(channel, method, token)
    return answer if answer[0] is not grpc.StatusCode.INTERNAL else await _called(channel, method, token)


async def _called(channel: grpc.aio.Channel, method: str, token: str | None) -> tuple[grpc.StatusCode, str]:
    metadata = () if token is None else (("authorization", f"Bearer {token}"),)
    going = channel.stream_stream(method)(iter([b""]), metadata=metadata, timeout=10)
    try:
        async for _ in going:
            going.cancel()
            return grpc.StatusCode.OK, ""
        return await going.code(), await going.details()
    except grpc.aio.AioRpcError as error:
        return error.code(), str(error.details())


async def expired(served: Served) -> str:
    """A token that was good once."""
    then = utc_now() - timedelta(seconds=1)
    token = Token(name="old", role=Role.ADMIN, created_by="test", created_at=then, expires_at=then)
    await served.registry.doors.add_token(token, sha256("mcp_old"))
    return "mcp_old"


async def revoked(served: Served) -> str:
    """A token that somebody took back."""
    secret = await served.token("gone")
    await served.registry.doors.revoke_token("gone")
    return secret


@pytest.mark.parametrize("method", METHODS)
async def test_each_method_refuses_whoever_is_not_known(served: Served, method: str) -> None:
    async with served.channel() as channel:
        for token, sentence in ((None, "who are you?"), ("", "who are you?"), ("mcp_" + "A" * 43, "nobody's here")):
            code, said = await call(channel, method, token)
            assert (code, sentence in said) == (grpc.StatusCode.UNAUTHENTICATED, True)


@pytest.mark.parametrize("method", METHODS)
async def test_each_method_refuses_tokens_that_hold_no_more(served: Served, method: str) -> None:
    async with served.channel() as channel:
        code, said = await call(channel, method, await expired(served))
        assert (code, "expired" in said) == (grpc.StatusCode.UNAUTHENTICATED, True)
        code, said = await call(channel, method, await revoked(served))
        assert (code, "was revoked" in said) == (grpc.StatusCode.UNAUTHENTICATED, True)


@pytest.mark.parametrize("role", Role)
async def test_each_method_opens_to_the_roles_it_says_and_no_other(served: Served, role: Role) -> None:
    token = await served.token(role=role)
    async with served.channel() as channel:
        for method, rule in METHODS.items():
            code, _ = await call(channel, method, token)
            assert (code is grpc.StatusCode.PERMISSION_DENIED) == (not role.covers(rule.role)), method
            assert code is not grpc.StatusCode.UNAUTHENTICATED, method


def test_roles_mean_what_the_house_says() -> None:
    tokens = {method for method, rule in METHODS.items() if rule.role is Role.ADMIN}
    assert tokens == {f"/mcp.v1.AccessService/{name}" for name in ("CreateToken", "ListTokens", "RevokeToken")}
    assert all(rule.role.covers(Role.OPERATOR) for rule in METHODS.values() if rule.writes)
    assert [role.covers(Role.OPERATOR) for role in Role] == [False, True, True]


def test_an_agent_does_not_start_with_a_method_that_nobody_gave_a_role() -> None:
    methods.check(METHODS)
    with pytest.raises(RuntimeError, match=r"nobody said who may call /mcp\.v1\.New/Method: add rows"):
        methods.check([*METHODS, "/mcp.v1.New/Method"])
    with pytest.raises(RuntimeError, match=r"nobody serves /grpc\.health\.v1\.Health/Check"):
        methods.check(set(METHODS) - {"/grpc.health.v1.Health/Check"})


async def test_a_method_without_a_row_is_answered_to_nobody(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    rules: dict[str, Rule] = {k: rule for k, rule in METHODS.items() if not k.endswith("GetService")}
    monkeypatch.setattr(served.door.gate, "_rules", rules)
    async with served.channel() as channel:
        for method in ("/mcp.v1.ControlPlaneService/GetService", "/mcp.v1.controlplaneservice/ListServices", "/x/y"):
            assert (await call(channel, method, "mcp_x"))[0] is grpc.StatusCode.UNAUTHENTICATED
        token = await served.token()
        assert (await call(channel, "/mcp.v1.ControlPlaneService/GetService", token))[0] is (
            grpc.StatusCode.UNIMPLEMENTED
        )
        assert (await call(channel, "/x/y", token))[0] is grpc.StatusCode.UNIMPLEMENTED


async def test_who_calls_is_whom_the_token_says_whatever_they_call_themselves(served: Served) -> None:
    async with served.client(await served.token("ci", Role.OPERATOR)) as client:
        assert await client.access.whoami() == Identity(name="ci", role=Role.OPERATOR, how=How.TOKEN)
        await client.apply(SERVICE.spec)
    assert served.plane.actors == ["ci"]
    async with served.local("ann@sea") as client:
        assert await client.access.whoami() == Identity(name="ann@sea", role=Role.ADMIN, how=How.SOCKET)
        await client.apply(SERVICE.spec)
    assert served.plane.actors == ["ci", "ann@sea"]


async def test_errors_travel_through_the_door_as_themselves(served: Served) -> None:
    served.plane.failure = NotFound("there is none")
    async with served.client(await served.token(role=Role.VIEWER)) as client:
        with pytest.raises(NotFound, match="there is none"):
            await client.get("x")
        with pytest.raises(Forbidden, match="ci is viewer, and this needs operator"):
            await client.apply(SERVICE.spec)
        with pytest.raises(Forbidden, match="needs admin"):
            await client.access.tokens()
    async with served.client() as client:
        with pytest.raises(Unauthenticated, match="Log in with mcp login"):
            await client.services()


# TLS


async def test_tls_1_2_is_refused_even_where_the_handshake_lets_it_pass(served: Served) -> None:
    token = await served.token()
    answer = await asyncio.to_thread(old_fashioned, served, token)
    assert answer == ("16", "this door opens to TLS 1.3 alone")


def old_fashioned(served: Served, token: str) -> tuple[str, str]:
    """The gRPC status and sentence that a call over TLS 1.2 gets."""
    context = ssl.create_default_context(cafile=str(served.ca_file))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", served.port), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        assert tls.version() == "TLSv1.2"
        connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        connection.initiate_connection()
        path = "/mcp.v1.ControlPlaneService/ListServices"
        pairs = {":method": "POST", ":scheme": "https", ":authority": "localhost", ":path": path, "te": "trailers"}
        headers = [*pairs.items(), ("content-type", "application/grpc"), ("authorization", f"Bearer {token}")]
        connection.send_headers(1, headers)
        connection.send_data(1, b"\0\0\0\0\0", end_stream=True)
        tls.sendall(connection.data_to_send())
        while True:
            for event in connection.receive_data(tls.recv(65536)):
                headers = list(getattr(event, "headers", None) or [])
                if status := dict(headers).get("grpc-status"):
                    return status, dict(headers)["grpc-message"]
            tls.sendall(connection.data_to_send())


async def test_a_certificate_lets_in_by_its_common_name(tmp_path: Path) -> None:
    ca, pair = client_certificate(tmp_path / "pki", "laptop")
    auth = {"client_ca_file": str(ca), "certificates": ["laptop:operator"]}
    async with serving(tmp_path, auth=auth) as served:
        async with served.client(certificate=pair) as client:
            assert await client.access.whoami() == Identity(name="laptop", role=Role.OPERATOR, how=How.CERTIFICATE)
        async with served.client(await served.token(role=Role.VIEWER), certificate=pair) as client:
            assert (await client.access.whoami()).name == "ci"
        async with served.client(await served.token("other"), timeout=3) as client:
            with pytest.raises(Unreachable):
                await client.services()


async def test_a_certificate_that_the_settings_do_not_name_has_no_role(tmp_path: Path) -> None:
    ca, pair = client_certificate(tmp_path / "pki", "stranger")
    auth = {"client_ca_file": str(ca), "certificates": ["laptop:operator"]}
    async with serving(tmp_path, auth=auth) as served, served.client(certificate=pair) as client:
        with pytest.raises(Forbidden, match="stranger has no role here"):
            await client.services()


async def test_the_agents_certificate_carries_its_names_and_addresses(tmp_path: Path) -> None:
    async with serving(tmp_path, api={"names": ("rift.example", "192.0.2.7")}) as served:
        options = (("grpc.ssl_target_name_override", "rift.example"),)
        credentials = grpc.ssl_channel_credentials(served.ca_file.read_bytes())
        for address in (f"127.0.0.1:{served.port}", served.address):
            async with grpc.aio.secure_channel(address, credentials, options) as channel:
                assert (await call(channel, "/x/y", None))[0] is grpc.StatusCode.UNAUTHENTICATED


# Bounds


async def test_a_caller_has_so_many_calls_at_once_and_no_more(tmp_path: Path) -> None:
    async with serving(tmp_path, api={"max_calls_per_caller": 2}) as served:
        token, other = await served.token(), await served.token("other")

        async def forever(service: str = "", *, after_id: int = 0) -> AsyncIterator[Any]:
            yield (await served.plane.events())[0]
            await asyncio.Event().wait()

        served.plane.watch_events = forever  # type: ignore[method-assign]
        async with served.client(token) as client, served.client(other) as neighbour:
            async with served.client(token) as watcher:
                streams = [one.watch_events() for one in (client, watcher)]
                for stream in streams:
                    await anext(stream)
                with pytest.raises(TooMany, match="ci has 2 calls open"):
                    await client.services()
                assert await neighbour.services()
            await until(client.services, TooMany)


async def until(ask: Any, but: type[McpError]) -> None:
    """Asks until it is answered."""
    async with asyncio.timeout(5):
        for _ in range(200):
            with suppress(but):
                await ask()
                return
            await asyncio.sleep(0.02)


async def test_a_message_that_is_too_long_is_not_taken(tmp_path: Path) -> None:
    async with serving(tmp_path, api={"max_message_bytes": 2048}) as served:
        metadata = (("authorization", f"Bearer {await served.token()}"),)
        async with served.channel() as channel:
            get = channel.unary_unary("/mcp.v1.ControlPlaneService/GetService")
            request = control_plane_pb2.GetServiceRequest(name="x" * 3000).SerializeToString()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await get(request, metadata=metadata)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_who_fails_too_often_waits_and_who_is_known_does_not(served: Served) -> None:
    token = await served.token()
    async with served.channel() as channel:
        for _ in range(5):
            assert (await call(channel, "/x/y", "mcp_x"))[0] is grpc.StatusCode.UNAUTHENTICATED
        code, said = await call(channel, "/x/y", "mcp_x")
        assert (code, "try again in a minute" in said) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
        assert (await call(channel, "/mcp.v1.AccessService/WhoAmI", token))[0] is grpc.StatusCode.OK


# Audit


async def test_what_writes_and_what_is_refused_is_written_down_and_nothing_else(served: Served) -> None:
    token = await served.token(role=Role.OPERATOR)
    async with served.client(token) as client, served.client() as stranger, served.local() as local:
        await client.services()
        await client.apply(SERVICE.spec, dry_run=True)
        await client.apply(SERVICE.spec)
        with pytest.raises(Forbidden):
            await client.access.create_token(TokenRequest(name="x", role=Role.ADMIN))
        with pytest.raises(Unauthenticated):
            await stranger.delete("hello")
        served.plane.failure = InvalidSpec("env", "PASSWORD=hunter2 is wrong")
        with pytest.raises(InvalidSpec):
            await client.apply(SERVICE.spec)
        served.plane.failure = None
        await local.access.create_token(TokenRequest(name="new", role=Role.VIEWER))
    records = await served.audit()
    told = [(r.actor, r.role, r.how, r.method.rpartition("/")[2], r.service, r.generation, r.outcome) for r in records]
    assert told == [
        ("ci", "operator", "token", "ApplyService", SERVICE.spec.name, SERVICE.generation, "OK"),
        ("ci", "operator", "token", "CreateToken", "", 0, "PERMISSION_DENIED"),
        ("", "", "", "DeleteService", "", 0, "UNAUTHENTICATED"),
        ("ci", "operator", "token", "ApplyService", SERVICE.spec.name, 0, "INVALID_ARGUMENT"),
        ("ann@sea", "admin", "socket", "CreateToken", "", 0, "OK"),
    ]
    assert records[-1].detail == "token new"
    assert {r.address for r in records} == {"127.0.0.1", "unix"}
    assert not [r for r in records if "hunter2" in str(r) or token in str(r)]


async def test_a_call_that_is_given_up_is_written_down_as_such(served: Served, monkeypatch: Any) -> None:
    begun = asyncio.Event()

    async def stuck(*args: Any, **more: Any) -> Any:
        begun.set()
        await asyncio.Event().wait()

    written, record = asyncio.Event(), served.registry.doors.record

    async def recorded(*args: Any, **more: Any) -> None:
        await record(*args, **more)
        written.set()

    monkeypatch.setattr(served.plane, "apply", stuck)
    monkeypatch.setattr(served.registry.doors, "record", recorded)
    async with served.client(await served.token()) as client:
        applying: Awaitable[Any] = asyncio.ensure_future(client.apply(SERVICE.spec))
        await begun.wait()
        applying.cancel()  # type: ignore[attr-defined]
        with suppress(asyncio.CancelledError):
            await applying
        async with asyncio.timeout(5):
            await written.wait()
        records = await served.audit()
    assert [(record.service, record.outcome) for record in records] == [(SERVICE.spec.name, "CANCELLED")]


# Tokens


async def test_tokens_are_made_listed_and_revoked_over_the_wire(served: Served) -> None:
    async with served.local("ann") as client:
        made = await client.access.create_token(TokenRequest(name="ci", role=Role.VIEWER))
        assert (made.token.name, made.token.created_by) == ("ci", "ann")
        assert await client.access.tokens() == (made.token,)
        with pytest.raises(Refused, match='a token "ci" that holds'):
            await client.access.create_token(TokenRequest(name="ci", role=Role.VIEWER))
        async with served.client(made.secret) as remote:
            assert (await remote.access.whoami()).role is Role.VIEWER
            await client.access.revoke_token("ci")
            with pytest.raises(Unauthenticated, match="was revoked"):
                await remote.services()
        with pytest.raises(NotFound):
            await client.access.revoke_token("none")
        with pytest.raises(InvalidSpec, match="in the past"):
            await client.access.create_token(TokenRequest(name="x", role=Role.VIEWER, expires_at=utc_now()))
    assert made.secret.encode() not in b"".join(file.read_bytes() for file in served.folder.glob("registry.db*"))


async def test_a_wrong_name_or_role_of_a_token_is_named(served: Served) -> None:
    async with served.local() as client:
        for fields in ({"name": "Not That"}, {"role": "king"}):
            wrong = TokenRequest.model_construct(**({"name": "a", "role": Role.VIEWER, "expires_at": None} | fields))
            with pytest.raises(InvalidSpec) as caught:
                await client.access.create_token(wrong)
            assert caught.value.field == next(iter(fields))


def test_a_client_shows_a_token_over_tls_alone(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="holds what no token does"):
        Client("localhost:1", actor="a", token="two words")
