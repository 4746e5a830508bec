"""What the API writes and refuses to write, over a real registry."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TypeVar

import pytest

from api.conditions import Reason
from api.control_plane import DRAINED, Looked, Watched
from api.diff import diff
from api.errors import InvalidSpec, NotFound, Refused, StaleGeneration, Unreachable
from api.files import FileTarget
from api.resolve import Defaults
from api.secrecy import MASKED
from api.service import Change, Container, Finalizer, NodeStatus, Service
from api.spec import ServiceSpec
from controller.adoption import Adopter
from controller.control_plane import LocalControlPlane
from controller.preview import Preview
from controller.registry import Registry
from reconcilers.base import Transient
from reconcilers.containers.engine.transport import EngineError, Failure
from tests.unit.controller.adopting import ADMITS, Running
from tests.unit.controller.recording import RecordingContainers, RecordingPorts
from tests.unit.controller.registry.conftest import pending
from tests.unit.controller.registry.samples import condition, happened, spec

T = TypeVar("T")


class Parts:
    """The plane, and what it stands on."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.ports, self.containers = RecordingPorts(), RecordingContainers()
        preview = Preview([self.ports, self.containers])
        running = Running()
        adopter = Adopter("rift", Defaults(), registry, running, running, running, ADMITS)
        self.plane = LocalControlPlane(
            "rift", registry, Defaults(), preview, self._containers, self._status, self._look, adopter
        )
        self.looked: list[tuple[str, bool]] = []
        self.late: tuple[str, ...] = ()
        self.away: Exception | None = None

    async def _look(self, service: str, within: float) -> tuple[str, ...]:
        found = await self.registry.service(service)
        assert found is not None
        self.looked.append((service, found.suspended is not None))
        return self.late

    async def _containers(self) -> tuple[Container, ...]:
        if self.away is not None:
            raise self.away
        return (Container(id="1", name="stranger", image="x:1", state="running", owned=False),)

    async def _status(self) -> NodeStatus:
        raise NotImplementedError


@pytest.fixture
def parts(lite: Registry) -> Parts:
    return Parts(lite)


@pytest.fixture
def plane(parts: Parts) -> LocalControlPlane:
    return parts.plane


def named(service: str, *components: str) -> ServiceSpec:
    parts = [{"name": component, "image": "x:1"} for component in components]
    return ServiceSpec.model_validate({"name": service, "components": parts})


async def take(stream: AsyncIterator[T], count: int) -> list[T]:
    async with asyncio.timeout(5):
        return [await anext(stream) for _ in range(count)]


# Admission


async def test_a_definition_for_another_node_is_refused(plane: LocalControlPlane) -> None:
    with pytest.raises(Refused) as refused:
        await plane.apply(spec().model_copy(update={"node": "sea"}), actor="ann")
    assert refused.value.message == (
        'this agent runs node "rift", and the definition of "hello" says node = "sea": ask that node\'s agent'
    )
    assert await plane.services() == ()


async def test_a_definition_that_names_this_node_is_taken(plane: LocalControlPlane) -> None:
    applied = await plane.apply(spec().model_copy(update={"node": "rift"}), actor="ann")
    assert applied.change is Change.CREATED


async def test_what_cannot_be_resolved_here_is_refused_with_its_field(plane: LocalControlPlane) -> None:
    with pytest.raises(InvalidSpec) as refused:
        await plane.apply(spec(version="latest"), actor="ann")
    assert refused.value.field == "components[0].image"


@pytest.mark.parametrize(
    ("first", "second", "field"),
    [
        (named("a-b", "c"), named("a", "x", "b-c"), "components[1].name"),
        (named("a", "b-c"), named("a-b", "c"), "components[0].name"),
        (named("a-b-c", "a-b-c"), named("a-b", "c"), "components[0].name"),
        (named("a-b", "c"), named("a-b-c", "a-b-c"), "components[0].name"),
        (named("a", "b-c", "x"), named("a-b-c", "x", "a-b-c"), "components[1].name"),
    ],
    ids=["shorter-after", "longer-after", "same-before", "same-after", "longest-after"],
)
@pytest.mark.parametrize("dry_run", [False, True])
async def test_two_services_never_want_one_container_name(
    plane: LocalControlPlane, first: ServiceSpec, second: ServiceSpec, field: str, *, dry_run: bool
) -> None:
    await plane.apply(first, actor="ann")
    with pytest.raises(InvalidSpec) as refused:
        await plane.apply(second, actor="ann", dry_run=dry_run)
    assert refused.value.field == field
    assert refused.value.message == (f'container name "a-b-c" belongs to service "{first.name}": rename the component')
    assert [service.name for service in await plane.services()] == [first.name]


async def test_names_that_only_look_alike_are_no_clash(plane: LocalControlPlane) -> None:
    for one in (named("a", "b"), named("a-b", "c"), named("a-c", "b"), named("b", "a")):
        assert (await plane.apply(one, actor="ann")).change is Change.CREATED


async def test_of_two_at_once_one_is_refused(plane: LocalControlPlane) -> None:
    both = [plane.apply(one, actor="ann") for one in (named("a-b", "c"), named("a", "b-c"))]
    first, second = await asyncio.gather(*both, return_exceptions=True)
    assert not isinstance(first, BaseException)
    assert isinstance(second, InvalidSpec)


# Writes


async def test_apply_says_what_changed(plane: LocalControlPlane) -> None:
    created = await plane.apply(spec(), actor="ann")
    assert (created.change, created.service.generation, created.fields) == (Change.CREATED, 1, diff(None, spec()))
    changed = await plane.apply(spec(version="v2"), actor="ann")
    assert (changed.change, changed.service.generation) == (Change.CONFIGURED, 2)
    assert [field.path for field in changed.fields] == ["components[web].image"]
    assert created.actions == changed.actions == ()


async def test_unchanged_writes_nothing_and_wakes_nobody(plane: LocalControlPlane, lite: Registry) -> None:
    first = await plane.apply(spec(), actor="ann")
    async with lite.subscribe() as changes:
        again = await plane.apply(spec(), actor="bob")
        assert await pending(changes) == []
    assert (again.change, again.service, again.fields) == (Change.UNCHANGED, first.service, ())
    assert len(await plane.events("hello")) == 1


@pytest.mark.parametrize("dry_run", [False, True])
async def test_an_expected_generation_must_be_the_current_one(plane: LocalControlPlane, *, dry_run: bool) -> None:
    with pytest.raises(StaleGeneration, match="at generation 0, not 3"):
        await plane.apply(spec(), actor="ann", dry_run=dry_run, expected_generation=3)
    await plane.apply(spec(), actor="ann", expected_generation=0)
    with pytest.raises(StaleGeneration, match="at generation 1, not 0"):
        await plane.apply(spec(), actor="ann", dry_run=dry_run, expected_generation=0)
    with pytest.raises(StaleGeneration, match="at generation 1, not 2"):
        await plane.delete("hello", actor="ann", dry_run=dry_run, expected_generation=2)
    assert (await plane.get("hello")).generation == 1
    await plane.apply(spec(version="v2"), actor="ann", dry_run=dry_run, expected_generation=1)


async def test_a_delete_marks_and_a_second_changes_nothing(plane: LocalControlPlane, lite: Registry) -> None:
    await plane.apply(spec(), actor="ann")
    first = (await plane.delete("hello", actor="ann")).service
    assert first.deleting
    async with lite.subscribe() as changes:
        assert (await plane.delete("hello", actor="bob")).service == first
        assert await pending(changes) == []


@pytest.mark.parametrize("dry_run", [False, True])
async def test_what_does_not_exist_cannot_be_deleted(plane: LocalControlPlane, *, dry_run: bool) -> None:
    with pytest.raises(NotFound, match='there is no service "hello" on node rift'):
        await plane.delete("hello", actor="ann", dry_run=dry_run)
    with pytest.raises(NotFound, match='there is no service "hello" on node rift'):
        await plane.get("hello")


@pytest.mark.parametrize("dry_run", [False, True])
async def test_what_is_being_deleted_cannot_be_applied(plane: LocalControlPlane, *, dry_run: bool) -> None:
    await plane.apply(spec(), actor="ann")
    await plane.delete("hello", actor="ann")
    with pytest.raises(Refused, match="is being deleted: apply it again once it is gone"):
        await plane.apply(spec(version="v2"), actor="ann", dry_run=dry_run)


# Dry runs


async def test_a_dry_run_writes_nothing_and_tells_the_chained_plans(parts: Parts) -> None:
    async with parts.registry.subscribe() as changes:
        applied = await parts.plane.apply(spec(), actor="ann", dry_run=True)
        assert await pending(changes) == []
    assert (applied.change, applied.service.generation) == (Change.CREATED, 1)
    assert [action.description for action in applied.actions] == ["do allocate", "do create on 10001"]
    assert applied.fields == diff(None, spec())
    assert applied.service.finalizers == tuple(Finalizer)
    assert parts.ports.executed == parts.containers.executed == []
    assert await parts.plane.services() == ()
    assert await parts.plane.events() == ()


async def test_a_dry_run_of_a_change_plans_for_the_generation_to_come(parts: Parts) -> None:
    await parts.plane.apply(spec(), actor="ann")
    applied = await parts.plane.apply(spec(version="v2"), actor="ann", dry_run=True)
    assert (applied.change, applied.service.generation) == (Change.CONFIGURED, 2)
    assert (parts.ports.seen[-1].generation, parts.ports.seen[-1].spec) == (2, spec(version="v2"))
    assert (await parts.plane.get("hello")).generation == 1


async def test_a_dry_run_of_no_change_still_tells_what_is_to_be_done(parts: Parts) -> None:
    await parts.plane.apply(spec(), actor="ann")
    applied = await parts.plane.apply(spec(), actor="ann", dry_run=True)
    assert (applied.change, applied.fields) == (Change.UNCHANGED, ())
    assert [action.description for action in applied.actions] == ["do allocate", "do create on 10001"]


async def test_a_dry_run_of_a_delete_marks_nothing_and_tells_the_teardown(parts: Parts) -> None:
    await parts.plane.apply(spec(), actor="ann")
    await parts.registry.allocate_port("hello", "web", "default", 10001)
    deleted = await parts.plane.delete("hello", actor="ann", dry_run=True)
    assert deleted.service.deleting
    assert parts.ports.seen[-1].deleting
    assert not (await parts.plane.get("hello")).deleting
    assert [action.resource for action in deleted.actions] == []


# Streams


async def test_a_watch_tells_the_snapshot_then_synced_then_changes_and_a_deletion(
    plane: LocalControlPlane, lite: Registry
) -> None:
    first = (await plane.apply(spec("one"), actor="ann")).service
    second = (await plane.apply(spec("two"), actor="ann")).service
    async with aclosing(plane.watch()) as watch:
        assert await take(watch, 3) == [Watched(service=first), Watched(service=second), Watched(synced=True)]
        changed = (await plane.apply(spec("one", "v2"), actor="ann")).service
        assert await take(watch, 1) == [Watched(service=changed)]
        await plane.delete("two", actor="ann")
        (marked,) = await take(watch, 1)
        assert marked.service is not None
        assert marked.service.deleting
        for finalizer in Finalizer:
            await lite.remove_finalizer("two", finalizer)
        seen = [await anext(watch)]
        while not seen[-1].deleted:
            seen.append(await anext(watch))
        assert seen[-1] == Watched(deleted="two")


async def test_a_watch_tells_nothing_twice(plane: LocalControlPlane, lite: Registry) -> None:
    await plane.apply(spec(), actor="ann")
    async with aclosing(plane.watch()) as watch:
        await take(watch, 2)
        await lite.report("hello", happened("an event is no change of a service"))
        await lite.report("hello", condition())
        await lite.report("hello", condition())
        await lite.allocate_port("hello", "web", "default", 10001)
        await lite.allocate_port("hello", "web", "default", 10001)
        await plane.apply(spec("end"), actor="ann")
        told: list[Service] = []
        async with asyncio.timeout(5):
            async for seen in watch:
                assert seen.service is not None
                if seen.service.name == "end":
                    break
                told.append(seen.service)
    assert len(told) == len({service.model_dump_json() for service in told})
    assert told[-1] == await plane.get("hello")


async def test_a_watch_of_some_tells_of_no_others(plane: LocalControlPlane) -> None:
    await plane.apply(spec("other"), actor="ann")
    async with aclosing(plane.watch(["mine"])) as watch:
        assert await take(watch, 1) == [Watched(synced=True)]
        await plane.apply(spec("other", "v2"), actor="ann")
        mine = (await plane.apply(spec("mine"), actor="ann")).service
        assert await take(watch, 1) == [Watched(service=mine)]


async def test_a_service_that_came_and_went_unseen_is_told_neither_way(
    plane: LocalControlPlane, lite: Registry
) -> None:
    async with aclosing(plane.watch()) as watch:
        await take(watch, 1)
        await plane.apply(spec("brief"), actor="ann")
        await plane.delete("brief", actor="ann")
        for finalizer in Finalizer:
            await lite.remove_finalizer("brief", finalizer)
        last = (await plane.apply(spec("last"), actor="ann")).service
        assert await take(watch, 1) == [Watched(service=last)]


async def test_watchers_of_events_lose_none_however_slow_they_are(plane: LocalControlPlane, lite: Registry) -> None:
    await plane.apply(spec(), actor="ann")
    async with aclosing(plane.watch_events("hello")) as watch:
        first = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        # Transactions run in the order in which they were asked for: the watcher has looked once this is done.
        await lite.ping()
        for hundred in range(12):
            await lite.report("hello", happened(*(str(hundred * 100 + number) for number in range(100))))
        told = [await first, *await take(watch, 1199)]
    assert [event.message for event in told] == [str(number) for number in range(1200)]


async def test_events_after_a_number_are_told_first_each_once_and_in_order(
    plane: LocalControlPlane, lite: Registry
) -> None:
    await plane.apply(spec(), actor="ann")
    (created,) = await plane.events("hello")
    await lite.report("hello", happened(*(str(number) for number in range(250))))
    async with aclosing(plane.watch_events("hello", after_id=created.id)) as watch:
        assert [event.message for event in await take(watch, 250)] == [str(number) for number in range(250)]
        await lite.report("hello", happened("new"))
        assert [event.message for event in await take(watch, 1)] == ["new"]


async def test_containers_are_the_engines(parts: Parts) -> None:
    assert [container.name for container in await parts.plane.containers()] == ["stranger"]
    away = Transient(Reason.ENGINE_UNREACHABLE, "podman cannot be asked")
    for parts.away in (away, EngineError(Failure.REFUSED, "podman cannot be asked for them")):
        with pytest.raises(Unreachable, match="podman cannot be asked"):
            await parts.plane.containers()


# Left alone


async def test_a_service_is_suspended_once_whoever_was_at_work_has_ended(parts: Parts) -> None:
    await parts.plane.apply(spec(), actor="ann")
    parts.late = ("containers",)
    looked = await parts.plane.suspend("hello", actor="bob", reason="the disk")
    assert looked.late == ("containers",)
    suspended = looked.service.suspended
    assert suspended is not None
    assert (suspended.actor, suspended.reason) == ("bob", "the disk")
    assert parts.looked == [("hello", True)]
    assert (await parts.plane.resume("hello", actor="ann")).suspended is None


async def test_a_look_on_demand_changes_nothing_and_is_refused_for_nobody(parts: Parts) -> None:
    with pytest.raises(NotFound):
        await parts.plane.reconcile("hello")
    before = (await parts.plane.apply(spec(), actor="ann")).service
    assert await parts.plane.reconcile("hello") == Looked(before)
    for refused in (parts.plane.suspend("nobody", actor="ann"), parts.plane.resume("nobody", actor="ann")):
        with pytest.raises(NotFound):
            await refused
    assert parts.looked == [("hello", False)]


# Wishes that are less than a definition


async def test_a_service_is_stopped_and_started_as_a_new_generation(plane: LocalControlPlane) -> None:
    await plane.apply(spec(), actor="ann")
    stopped = await plane.set_active("hello", active=False, actor="bob", note="drained")
    assert (stopped.change, stopped.service.generation, stopped.service.spec.active) == (Change.CONFIGURED, 2, False)
    assert [field.path for field in stopped.fields] == ["active"]
    assert (await plane.set_active("hello", active=False, actor="bob")).change is Change.UNCHANGED
    assert [(one.generation, one.note) for one in await plane.revisions("hello")] == [(1, ""), (2, "drained")]
    for refused in (plane.set_active("nobody", active=True, actor="ann"), plane.revisions("nobody")):
        with pytest.raises(NotFound):
            await refused


async def drain(plane: LocalControlPlane) -> None:
    """As `mcp node drain` does."""
    await plane.set_drained(True, actor="bob")
    await plane.set_active("hello", active=False, actor="bob", note=DRAINED)


async def test_what_is_applied_to_a_drained_node_is_stored_and_waits_until_it_is_started(
    plane: LocalControlPlane,
) -> None:
    await plane.apply(spec(), actor="ann")
    await drain(plane)
    assert (await plane.get("hello")).drained
    assert (await plane.apply(spec(), actor="ann")).change is Change.UNCHANGED
    changed = await plane.apply(spec(version="v2"), actor="ann")
    assert ([field.path for field in changed.fields], changed.service.spec.active) == (["components[web].image"], False)
    new = await plane.apply(spec(name="new"), actor="ann")
    assert (new.change, new.service.spec.active) == (Change.CREATED, False)
    assert [one.note for one in await plane.revisions("hello")] == ["", DRAINED, DRAINED]
    for name in ("hello", "new"):
        started = (await plane.set_active(name, active=True, actor="bob")).service
        assert (started.spec.active, started.drained) == (True, False)
    assert (await plane.apply(spec(version="v3"), actor="ann")).service.spec.active, "a person started it all the same"
    await plane.set_active("hello", active=False, actor="bob")
    assert not (await plane.apply(spec(version="v4"), actor="ann")).service.spec.active
    await plane.set_drained(False, actor="bob")
    assert (await plane.apply(spec(version="v4"), actor="ann")).service.spec.active


async def test_a_node_without_services_is_drained_ahead(plane: LocalControlPlane, lite: Registry) -> None:
    await plane.set_drained(True, actor="bob")
    await plane.set_drained(True, actor="eve")
    drain = await lite.drained()
    assert drain is not None
    assert drain.actor == "bob"
    assert not (await plane.apply(spec(), actor="ann", dry_run=True)).service.spec.active
    assert (await plane.apply(spec(), actor="ann")).service.drained
    await plane.set_drained(False, actor="bob")
    assert await lite.drained() is None
    assert (await plane.apply(spec(), actor="ann")).service.spec.active


async def test_a_component_that_is_stopped_and_started_leaves_its_node_drained(plane: LocalControlPlane) -> None:
    await plane.apply(spec(), actor="ann")
    await drain(plane)
    for active in (False, True):
        await plane.set_active("hello", "web", active=active, actor="bob")
        assert not (await plane.apply(spec(), actor="ann")).service.spec.active
    assert (await plane.set_active("hello", active=True, actor="bob")).service.spec.active


async def test_what_is_marked_as_secret_was_so_before(plane: LocalControlPlane) -> None:
    def marked(*names: str) -> ServiceSpec:
        (web,) = spec().components
        update = {"env": ("DSN=first-secret", "LEVEL=1"), "secret_env": names}
        return spec().model_copy(update={"components": (web.model_copy(update=update),)})

    await plane.apply(marked(), actor="ann")
    await plane.apply(marked("DSN"), actor="ann")
    first, second = await plane.revisions("hello")
    assert [one.spec.components[0].secret_env for one in (first, second)] == [("DSN",), ("DSN",)]
    assert second.note == "what is secret: components[web].secret_env"
    # The way back gives out nothing, either.
    await plane.rollback("hello", 1, actor="eve")
    assert (await plane.get("hello")).spec == marked("DSN")


async def test_a_rollback_starts_nothing_on_a_drained_node(plane: LocalControlPlane) -> None:
    await plane.apply(spec(version="v1"), actor="ann")
    await plane.apply(spec(version="v2"), actor="ann")
    await drain(plane)
    assert not (await plane.rollback("hello", 1, actor="ann", dry_run=True)).service.spec.active
    back = await plane.rollback("hello", 1, actor="ann")
    assert ([field.path for field in back.fields], back.service.spec.active) == (["components[web].image"], False)
    assert (await plane.revisions("hello"))[-1].note == DRAINED


async def test_a_rollback_applies_an_earlier_revision_and_says_so(plane: LocalControlPlane) -> None:
    await plane.apply(spec(version="v1"), actor="ann")
    await plane.apply(spec(version="v2"), actor="ann")
    assert (await plane.restart("hello", actor="ann")).generation == 3
    planned = await plane.rollback("hello", actor="bob", dry_run=True)
    assert (planned.service.generation, planned.service.spec) == (4, spec(version="v1"))
    done = await plane.rollback("hello", actor="bob")
    assert (done.service.generation, done.service.spec) == (4, spec(version="v1"))
    event = (await plane.events("hello"))[-1]
    assert (event.actor, event.message) == ("bob", "generation 4: rolled back to generation 1")


async def test_a_rollback_says_which_files_come_back_and_which_do_not(plane: LocalControlPlane, lite: Registry) -> None:
    async def push(content: bytes, path: str) -> None:
        await lite.files.push(FileTarget(service="hello", path=path), content, actor="ann", keep=1)

    await plane.apply(spec(version="v1"), actor="ann")
    await push(b"one", "kept")
    await push(b"one", "lost")
    await plane.apply(spec(version="v2"), actor="ann")
    for content in (b"two", b"three"):
        await push(content, "lost")
    await push(b"two", "kept")
    planned = await plane.rollback("hello", 1, actor="bob", dry_run=True)
    assert planned.notes == ("lost: what was pushed until generation 1 is not kept any more",)
    assert {file.path: file.revision for file in planned.service.files} == {"kept": 1, "lost": 3}
    assert await lite.service("hello") == await plane.get("hello")
    done = await plane.rollback("hello", 1, actor="bob")
    assert (done.notes, done.change, done.service.generation) == (planned.notes, Change.CONFIGURED, 3)
    assert [field.path for field in done.fields] == [field.path for field in planned.fields] != []
    assert {file.path: file.revision for file in done.service.files} == {"kept": 3, "lost": 3}


async def test_one_component_alone_is_applied_to_what_is_stored(plane: LocalControlPlane) -> None:
    with pytest.raises(NotFound):
        await plane.apply(spec(), actor="ann", component="web")
    await plane.apply(spec(version="v1"), actor="ann")
    changed = spec(version="v2").model_copy(update={"path": "elsewhere"})
    applied = await plane.apply(changed, actor="ann", component=changed.components[0].name)
    assert [field.path for field in applied.fields] == ["components[web].image"]
    assert applied.service.spec.path is None


async def test_the_mask_of_a_secret_stands_for_what_is_stored(plane: LocalControlPlane, parts: Parts) -> None:
    def shop(value: str, name: str = "web", **fields: object) -> ServiceSpec:
        web = {"name": name, "image": "x:1", "env": [f"DSN={value}"], "secret_env": ["DSN"], **fields}
        return ServiceSpec.model_validate({"name": "shop", "components": [web]})

    await plane.apply(shop("correct horse"), actor="ann")
    for component in ("", "web"):
        assert (await plane.apply(shop(MASKED), actor="ann", component=component)).change is Change.UNCHANGED
    edited = await plane.apply(shop(MASKED, user="1:1"), actor="ann", expected_generation=1)
    assert [field.path for field in edited.fields] == ["components[web].user"]
    assert edited.service.spec == shop("correct horse", user="1:1")
    dry = await plane.apply(shop("battery staple", user="1:1"), actor="ann", dry_run=True)
    changed = [(field.path, field.old, field.new) for field in dry.fields]
    assert changed == [("components[web].env.DSN", f'"{MASKED}"', f'"{MASKED}"')]
    await plane.apply(shop("battery staple", user="1:1"), actor="ann")
    notes = [revision.note for revision in await plane.revisions("shop")]
    assert notes == ["", "", "another value of components[web].env.DSN"]
    await plane.rollback("shop", 1, actor="ann")
    assert (await plane.get("shop")).spec == shop("correct horse")
    with pytest.raises(InvalidSpec, match="DSN is masked, and no value of it is stored"):
        await plane.apply(shop(MASKED, "api"), actor="ann")
    assert all("horse" not in event.message for event in await plane.events())
