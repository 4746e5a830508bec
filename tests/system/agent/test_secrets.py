"""What a definition marks as secret, looked for in all that a whole agent says."""

import asyncio
import hashlib
import secrets
import urllib.request
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass

from api.spec import ServiceSpec
from api.wire import definition_to_wire
from controller.auth.methods import METHODS
from reconcilers.containers import model
from stack import images
from tests.system.agent.rig import Rig

pytestmark = pytest.mark.system

LISTENS = 1.5
"""Seconds in which a stream that does not end by itself is listened to."""


def given(rig: Rig, dsn: str, **fields: object) -> ServiceSpec:
    """A component that serves and says what it was given, and one that dies of it."""
    env = {"env": [f"DSN={dsn}", "LEVEL=info"], "secret_env": ["DSN"], "volumes": [], **fields}
    serves = {"name": "web", "image": images.HELLO, "cmd": ["/bin/sh", "-c", "echo got $DSN; /bin/serve"]}
    dies = {"name": "dies", "image": images.HELLO, "cmd": ["/bin/sh", "-c", "echo dying of $DSN; exit 3"]}
    return ServiceSpec.model_validate(
        {"name": rig.name, "components": [{**serves, "routes": [rig.route()], **env}, {**dies, **env}]}
    )


CONTENT = b"staple-battery"

Fields = dict[str, Any]


def pushed(rig: Rig) -> Fields:
    """A file, in the parts in which it travels."""
    target = {"service": rig.name, "path": "a", "mode": 0o600, "owner": "0:0"}
    digest = hashlib.sha256(CONTENT).hexdigest()
    parts = [{"target": target, "service": rig.name}, {"piece": b64encode(CONTENT).decode()}, {"sha256": digest}]
    return {"parts": parts}


def calls(rig: Rig, spec: ServiceSpec, unmarked: ServiceSpec) -> list[tuple[str, Fields]]:
    """Every method there is, in an order in which each has something to say."""
    name = {"name": rig.name}
    asked: list[tuple[str, Fields]] = [
        ("ControlPlane/ApplyService", {"spec": spec}),
        ("ControlPlane/ApplyService", {"spec": spec, "dry_run": True}),
        ("ControlPlane/ApplyService", {"spec": unmarked, "dry_run": True}),
        ("ControlPlane/RollbackService", {**name, "generation": 1, "dry_run": True}),
        ("ControlPlane/GetService", name),
        ("ControlPlane/ListServices", {}),
        ("ControlPlane/WatchServices", {}),
        ("ControlPlane/ListEvents", {}),
        ("ControlPlane/ListContainers", {}),
        ("ControlPlane/GetNodeStatus", {}),
        ("ControlPlane/ListRevisions", name),
        ("ControlPlane/ReconcileService", name),
        ("ControlPlane/AdoptService", {"name": f"{rig.name}-lost", "dry_run": True}),
        ("Files/PushFile", pushed(rig)),
        ("Files/ListFiles", {"service": rig.name, "history": True}),
        ("Files/PullFile", {"service": rig.name, "path": "a"}),
        ("Files/RemoveFile", {"service": rig.name, "path": "a"}),
        ("Inspection/StreamLogs", {"query": {"service": rig.name, "lines": 100}}),
        ("Inspection/WatchUsage", {"interval_seconds": 1}),
        ("Inspection/Diagnose", {}),
        ("Inspection/ExportService", {**name, "format": "quadlet"}),
        ("Inspection/ExportService", {**name, "format": "kube"}),
        ("Access/WhoAmI", {}),
        ("Access/CreateToken", {"token": {"name": "ann", "role": "viewer"}}),
        ("Access/ListTokens", {}),
        ("Access/RevokeToken", {"name": "ann"}),
        ("ControlPlane/WatchEvents", {"after_id": 1}),
        ("ControlPlane/SuspendService", name),
        ("ControlPlane/SetServiceActive", {**name, "component": "dies", "active": False}),
        ("ControlPlane/RestartService", {**name, "component": "web"}),
        ("ControlPlane/RollbackService", {**name, "generation": 1}),
        ("ControlPlane/ResumeService", name),
        ("ControlPlane/SetNodeDrained", {"drained": True}),
        ("ControlPlane/SetNodeDrained", {"drained": False}),
        ("ControlPlane/DeleteService", {**name, "dry_run": True}),
        ("ControlPlane/DeleteService", name),
        ("Access/ListAudit", {"query": {"limit": 100}}),
    ]
    return [("/mcp.v1." + method.replace("/", "Service/"), request) for method, request in asked]


def _metrics(rig: Rig) -> bytes:
    with urllib.request.urlopen(f"{rig.host.metrics_url}/metrics") as answer:
        return bytes(answer.read())


async def answers(channel: grpc.aio.Channel, path: str, fields: Fields) -> bytes:
    """All that comes back from a call, an error's sentence and trailers included."""
    service, name = path[1:].split("/")
    method: MethodDescriptor = descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]
    kind: Any = GetMessageClass(method.input_type)
    parts = fields.get("parts", [{key: value for key, value in fields.items() if key != "spec"}])
    requests = [ParseDict(part, kind()) for part in parts]
    if "spec" in fields:
        requests[0].spec.CopyFrom(definition_to_wire(fields["spec"]))
    found = bytearray()
    try:
        async with asyncio.timeout(LISTENS if name.startswith("Watch") else 15):
            async for answer in _call(channel, path, method, requests):
                found += answer
    except TimeoutError:
        assert name.startswith("Watch"), path
    except grpc.aio.AioRpcError as error:
        found += f"{error.details()} {error.trailing_metadata()}".encode()
    return bytes(found)


async def _call(
    channel: grpc.aio.Channel, path: str, method: MethodDescriptor, requests: list[Any]
) -> AsyncIterator[bytes]:
    sent = iter(requests) if method.client_streaming else requests[0]
    kinds = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }
    kind: Any = kinds[method.client_streaming, method.server_streaming]
    call = kind(path, request_serializer=lambda message: message.SerializeToString())(sent)
    if not method.server_streaming:
        yield await call
        return
    async for answer in call:
        yield answer


async def test_what_is_marked_as_secret_is_in_nothing_that_the_agent_says(rig: Rig) -> None:
    first, second = (f"correct-horse-{secrets.token_hex(4)}" for _ in range(2))
    await rig.apply(given(rig, first))
    await rig.until(lambda service: any("dying of" in one.last_words for one in service.components))
    lost = {model.MANAGED_BY: model.MANAGER, model.NODE: rig.host.node, model.SERVICE: f"{rig.name}-lost"}
    lost |= {model.COMPONENT: "web", model.SECRET_ENV: "DSN"}
    labels = [f"--label={name}={value}" for name, value in lost.items()]
    rig.podman.run("create", "--name", f"{rig.name}-lost-web", *labels, "--env", f"DSN={second}", images.HELLO)

    asked = calls(rig, given(rig, second), given(rig, "not a secret", secret_env=[]))
    assert {path for path, _ in asked} == {path for path in METHODS if path.startswith("/mcp.")}
    said: list[tuple[str, bytes]] = []
    async with grpc.aio.insecure_channel(f"unix://{rig.host.agent_socket}") as channel:
        for path, fields in asked:
            said.append((path, await answers(channel, path, fields)))
            if path.endswith("PushFile"):
                await rig.until(lambda s: any(file.laid for file in s.files))
            if path.endswith("ApplyService") and len(said) == 1:
                await rig.until(lambda s: s.generation == 2 and any(c.generation == 2 for c in s.components))
    await rig.until_gone()
    said += [("log", rig.agent_log().encode()), ("metrics", await asyncio.to_thread(_metrics, rig))]
    for where, words in said:
        assert words or where.endswith("SetNodeDrained"), where
        for secret in (first.encode(), second.encode(), CONTENT):
            assert secret not in words or (secret is CONTENT and where.endswith("PullFile")), (where, words)
    told = dict(said)
    assert CONTENT in told["/mcp.v1.FilesService/PullFile"]
    assert b"got ********" in told["/mcp.v1.InspectionService/StreamLogs"]
    assert b"DSN=********" in told["/mcp.v1.ControlPlaneService/AdoptService"]
