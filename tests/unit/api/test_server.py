"""The API over a real Unix socket: models in, models out, errors as themselves."""

from collections.abc import AsyncIterator, Collection
from pathlib import Path

import grpc.aio
import pytest

from api.brief import brief
from api.client import Client, _silence
from api.control_plane import DEFAULT_EVENTS, DEFAULT_LOOK_SECONDS, Applied, Deleted, Looked, Watched
from api.errors import InvalidSpec, McpError, NotFound, RegistryUnavailable, Unreachable, named
from api.gen.mcp.v1.control_plane_pb2_grpc import add_ControlPlaneServiceServicer_to_server
from api.server import ControlPlaneServicer, ErrorInterceptor
from api.service import Change, Container, Event, FieldChange, NodeStatus, Revision, Service
from api.spec import ServiceSpec
from tests.unit.api.test_wire import NOW, full_service

SERVICE = full_service()
REVISION = Revision(generation=1, actor="ann", at=NOW, spec=SERVICE.spec, note="restart of web")


class RecordingPlane:
    """Answers with one service, or raises what it is told to."""

    def __init__(self) -> None:
        self.actors: list[str] = []
        self.expected: list[int | None] = []
        self.failure: Exception | None = None
        self.listed = SERVICE

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def set_active(self, name: str, component: str = "", *, active: bool, actor: str, note: str = "") -> Applied:
        self.actors.append(f"{actor}: {name}/{component} {active} {note}")
        return Applied(SERVICE, Change.CONFIGURED, (FieldChange(path="active", old="true", new="false"),))

    async def restart(self, name: str, component: str = "", *, actor: str) -> Service:
        self.actors.append(f"{actor}: {name}/{component}")
        return SERVICE

    async def set_drained(self, drained: bool, *, actor: str) -> None:
        self.actors.append(f"{actor}: drained {drained}")

    async def revisions(self, name: str) -> tuple[Revision, ...]:
        return (REVISION,)

    async def rollback(self, name: str, generation: int = 0, *, actor: str, dry_run: bool = False) -> Applied:
        self.actors.append(f"{actor}: {name} {generation} {dry_run}")
        return Applied(SERVICE, Change.UNCHANGED)

    async def apply(
        self,
        spec: ServiceSpec,
        *,
        actor: str,
        dry_run: bool = False,
        expected_generation: int | None = None,
        component: str = "",
    ) -> Applied:
        self._fail()
        self.actors.append(actor)
        self.expected.append(expected_generation)
        return Applied(SERVICE.model_copy(update={"spec": spec}), Change.UNCHANGED if dry_run else Change.CREATED)

    async def delete(
        self, name: str, *, actor: str, dry_run: bool = False, expected_generation: int | None = None
    ) -> Deleted:
        self._fail()
        return Deleted(SERVICE)

    async def suspend(self, name: str, *, actor: str, reason: str = "") -> Looked:
        self.actors.append(f"{actor}: {reason}")
        return Looked(SERVICE, ("containers",))

    async def resume(self, name: str, *, actor: str) -> Service:
        self.actors.append(actor)
        return SERVICE

    async def reconcile(self, name: str, *, within: float = DEFAULT_LOOK_SECONDS) -> Looked:
        return Looked(SERVICE, (f"{within:g}",))

    async def get(self, name: str) -> Service:
        self._fail()
        return SERVICE

    async def services(self) -> tuple[Service, ...]:
        return (self.listed,)

    async def watch(self, names: Collection[str] = ()) -> AsyncIterator[Watched]:
        yield Watched(service=SERVICE)
        yield Watched(synced=True)
        self._fail()
        yield Watched(deleted="hello")

    async def events(self, service: str = "", *, limit: int = DEFAULT_EVENTS) -> tuple[Event, ...]:
        event = Event(id=1, at=NOW, service=service, generation=1, actor="a", kind="created", message=f"{limit}")
        return (event,)

    async def watch_events(self, service: str = "", *, after_id: int = 0) -> AsyncIterator[Event]:
        for event in await self.events(service):
            yield event

    async def containers(self) -> tuple[Container, ...]:
        return (Container(id="1", name="hello", image="x:1", state="running", owned=False),)

    async def node_status(self) -> NodeStatus:
        return NodeStatus(node="rift", version="1", started_at=NOW, services=1, ready=0)


@pytest.fixture
def plane() -> RecordingPlane:
    return RecordingPlane()


@pytest.fixture
async def client(plane: RecordingPlane, tmp_path: Path) -> AsyncIterator[Client]:
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    add_ControlPlaneServiceServicer_to_server(ControlPlaneServicer(plane), server)
    address = f"unix:{tmp_path}/agent.sock"
    server.add_insecure_port(address)
    await server.start()
    async with Client(address, actor="alice@büro") as client:
        yield client
    await server.stop(None)


async def test_what_is_applied_arrives_whole_with_its_actor(client: Client, plane: RecordingPlane) -> None:
    applied = await client.apply(SERVICE.spec)
    assert applied == Applied(SERVICE, Change.CREATED)
    assert plane.actors == ["alice@büro"]


async def test_an_expected_generation_of_zero_is_not_the_same_as_none(client: Client, plane: RecordingPlane) -> None:
    await client.apply(SERVICE.spec)
    await client.apply(SERVICE.spec, expected_generation=0)
    assert plane.expected == [None, 0]


async def test_a_list_is_of_now(client: Client, plane: RecordingPlane) -> None:
    for generation in (2, 3):
        plane.listed = SERVICE.model_copy(update={"generation": generation})
        assert await client.services() == (plane.listed,)
        assert (await client.services(brief=True))[0].generation == generation


async def test_reads_give_models_back(client: Client) -> None:
    assert await client.get("hello") == SERVICE
    assert await client.services() == (SERVICE,)
    assert await client.services(brief=True) == (brief(SERVICE),) != (SERVICE,)
    assert await client.services() == (SERVICE,)
    assert (await client.events("hello"))[0].message == str(DEFAULT_EVENTS)
    assert (await client.containers())[0].name == "hello"
    assert (await client.node_status()).node == "rift"
    assert (await client.delete("hello")).service == SERVICE


async def test_a_service_is_suspended_resumed_and_looked_at(client: Client, plane: RecordingPlane) -> None:
    assert await client.suspend("hello", reason="über") == Looked(SERVICE, ("containers",))
    assert await client.resume("hello") == SERVICE
    assert plane.actors == ["alice@büro: über", "alice@büro"]
    assert await client.reconcile("hello") == Looked(SERVICE, ("30",))
    assert (await client.reconcile("hello", within=2.5)).late == ("2.5",)


async def test_wishes_that_are_less_than_a_definition_arrive_as_they_were_asked(
    client: Client, plane: RecordingPlane
) -> None:
    await client.set_drained(True)
    stopped = await client.set_active("hello", "web", active=False, note="drained")
    assert [field.path for field in stopped.fields] == ["active"]
    assert await client.restart("hello", "web") == SERVICE
    assert await client.revisions("hello") == (REVISION,)
    assert await client.rollback("hello", 3, dry_run=True) == Applied(SERVICE, Change.UNCHANGED)
    assert plane.actors == [
        "alice@büro: drained True",
        "alice@büro: hello/web False drained",
        "alice@büro: hello/web",
        "alice@büro: hello 3 True",
    ]


async def test_a_watch_tells_the_snapshot_then_changes_and_an_ended_stream_is_an_error(client: Client) -> None:
    watching = client.watch()
    seen = [await anext(watching) for _ in range(3)]
    with pytest.raises(Unreachable, match="stopping"):
        await anext(watching)
    assert seen == [Watched(service=SERVICE), Watched(synced=True), Watched(deleted="hello")]


@pytest.mark.parametrize(
    "kind", [kind for kind in McpError.__subclasses__() if kind is not InvalidSpec], ids=lambda kind: kind.__name__
)
async def test_every_error_arrives_as_itself(client: Client, plane: RecordingPlane, kind: type[McpError]) -> None:
    plane.failure = kind("ein Satz, größer")
    with pytest.raises(kind, match="größer"):
        await client.get("hello")
    assert named(kind.__name__) is kind


async def test_a_wrong_field_is_named_at_the_caller(client: Client, plane: RecordingPlane) -> None:
    plane.failure = InvalidSpec("components[0].image", "has no tag")
    with pytest.raises(InvalidSpec, match="has no tag") as caught:
        await client.apply(SERVICE.spec)
    assert caught.value.field == "components[0].image"


async def test_an_error_in_the_middle_of_a_stream_arrives_as_itself(client: Client, plane: RecordingPlane) -> None:
    plane.failure = RegistryUnavailable("the disk is full")
    with pytest.raises(RegistryUnavailable, match="disk is full"):
        async for _ in client.watch():
            pass


async def test_a_defect_shows_its_kind_and_none_of_its_words(client: Client, plane: RecordingPlane) -> None:
    plane.failure = RuntimeError("a secret")
    with pytest.raises(McpError, match="RuntimeError") as caught:
        await client.get("hello")
    assert "secret" not in caught.value.message
    assert not isinstance(caught.value, NotFound)


async def test_an_agent_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    async with Client(f"unix:{tmp_path}/none.sock", actor="a") as client:
        with pytest.raises(Unreachable, match="is mcp-agent running"):
            await client.services()


def test_a_socket_that_is_somebody_elses_is_told_apart_from_an_agent_that_is_down() -> None:
    said = "failed to connect to all addresses; last error: UNKNOWN: unix:/run/mcp/agent.sock: Permission denied"
    error = _silence("unix:///run/mcp/agent.sock", said)
    assert error.message.startswith("the agent's socket unix:///run/mcp/agent.sock is not yours to open (Permission")
