"""What people ask for: applied, revised, deleted."""

import pytest

from api.conditions import ConditionType, Reason, Status
from api.errors import NotFound, Refused, StaleGeneration
from api.service import Change, Convergence, Finalizer, Suspension, convergence
from api.spec import ComponentSpec, ServiceSpec
from controller.registry import ChangeKind, Registry
from tests.unit.controller.registry.samples import (
    NOON,
    SteppingClock,
    certificate,
    claim,
    component,
    condition,
    happened,
    spec,
)


async def test_a_new_service_begins_at_generation_one_with_all_finalizers_and_nothing_observed(registry, changes):
    service, change = await registry.apply(spec(), actor="ann")
    assert change is Change.CREATED
    assert (service.name, service.node, service.generation) == ("hello", "rift", 1)
    assert service.spec == spec()
    assert service.finalizers == tuple(Finalizer)
    ready = service.condition(ConditionType.READY)
    assert ready is not None
    assert (ready.status, ready.reason, ready.observed_generation) == (Status.FALSE, Reason.PENDING, 1)
    assert await registry.service("hello") == service
    (event,) = await registry.events("hello")
    assert (event.kind, event.actor, event.generation, event.drift) == ("created", "ann", 1, False)
    told = await changes()
    assert [change.kind for change in told] == [ChangeKind.SPEC, ChangeKind.EVENT]
    assert told[1].event == event


async def test_a_changed_definition_is_a_new_generation_of_the_same_service(registry, changes):
    before, _ = await registry.apply(spec(), actor="ann")
    await changes()
    after, change = await registry.apply(spec(version="v2"), actor="bob")
    assert change is Change.CONFIGURED
    assert (after.uid, after.generation, after.spec) == (before.uid, 2, spec(version="v2"))
    assert after.created_at == before.created_at
    assert [(event.kind, event.actor) for event in await registry.events()] == [
        ("created", "ann"),
        ("configured", "bob"),
    ]
    assert [change.kind for change in await changes()] == [ChangeKind.SPEC, ChangeKind.EVENT]


async def test_the_same_definition_asks_again_about_what_needed_a_person(registry, changes):
    await registry.apply(spec(), actor="ann")
    kind = ConditionType.CONTAINERS_RUNNING
    await registry.report("hello", condition(kind, Status.FALSE, Reason.IMAGE_PULL_FAILED, "no such image"))
    await changes()
    service, change = await registry.apply(spec(), actor="ann")
    assert (change, service.generation) == (Change.UNCHANGED, 1)
    asked = service.condition(kind)
    assert asked is not None
    assert (asked.status, asked.reason, asked.observed_generation) == (Status.UNKNOWN, Reason.PENDING, 1)
    assert "no such image" in asked.message
    assert convergence(service, 1)[0] is Convergence.WAITING
    assert [change.kind for change in await changes()] == [ChangeKind.SPEC]


async def test_the_same_definition_again_writes_nothing_and_wakes_nobody(registry, changes):
    before, _ = await registry.apply(spec(), actor="ann")
    await changes()
    assert await registry.apply(spec(), actor="bob") == (before, Change.UNCHANGED)
    assert await changes() == []
    assert len(await registry.events()) == 1
    assert len(await registry.revisions("hello")) == 1


async def test_a_default_written_out_is_the_same_definition(registry):
    short = ServiceSpec(name="hello", components=(ComponentSpec(name="web", image="web:v1"),))
    long = ServiceSpec(name="hello", active=True, components=(ComponentSpec(name="web", image="web:v1", cmd=()),))
    await registry.apply(short, actor="ann")
    assert (await registry.apply(long, actor="ann"))[1] is Change.UNCHANGED


async def test_a_new_generation_is_not_ready_before_it_was_looked_at(registry):
    await registry.apply(spec(), actor="ann")
    for kind in ConditionType:
        if kind is not ConditionType.READY:
            await registry.report("hello", condition(kind))
    assert (await registry.service("hello")).condition(ConditionType.READY).status is Status.TRUE
    service, _ = await registry.apply(spec(version="v2"), actor="ann")
    ready = service.condition(ConditionType.READY)
    assert (ready.status, ready.reason, ready.observed_generation) == (Status.FALSE, Reason.PENDING, 2)


@pytest.mark.parametrize(("exists", "expected"), [(True, 0), (True, 2), (False, 1)])
async def test_an_apply_that_expects_another_generation_is_refused(registry, exists, expected):
    if exists:
        await registry.apply(spec(), actor="ann")
    with pytest.raises(StaleGeneration, match="generation"):
        await registry.apply(spec(version="v2"), actor="ann", expected_generation=expected)
    service = await registry.service("hello")
    assert (service and service.generation) == (1 if exists else None)


@pytest.mark.parametrize("exists", [True, False])
async def test_an_apply_that_expects_the_current_generation_is_taken(registry, exists):
    if exists:
        await registry.apply(spec(), actor="ann")
    service, _ = await registry.apply(spec(version="v2"), actor="ann", expected_generation=int(exists))
    assert service.generation == 1 + exists


async def test_the_last_fifty_revisions_are_kept(registry):
    for version in range(53):
        await registry.apply(spec(version=f"v{version}"), actor=f"actor-{version}")
    revisions = await registry.revisions("hello")
    assert [revision.generation for revision in revisions] == list(range(4, 54))
    assert revisions[-1].spec == spec(version="v52")
    assert revisions[0].actor == "actor-3"


async def test_deletion_is_requested_once(registry, changes):
    with pytest.raises(NotFound, match="hello"):
        await registry.request_deletion("hello", actor="ann")
    await registry.apply(spec(), actor="ann")
    await changes()
    first = await registry.request_deletion("hello", actor="ann", expected_generation=1)
    assert first.deleting
    assert [change.kind for change in await changes()] == [ChangeKind.SPEC, ChangeKind.EVENT]
    assert await registry.request_deletion("hello", actor="bob") == first
    assert await changes() == []
    assert [event.kind for event in await registry.events()] == ["created", "deleting"]


async def test_a_deletion_that_expects_another_generation_is_refused(registry):
    await registry.apply(spec(), actor="ann")
    with pytest.raises(StaleGeneration):
        await registry.request_deletion("hello", actor="ann", expected_generation=7)
    assert not (await registry.service("hello")).deleting


async def test_a_service_that_is_being_deleted_takes_no_definition(registry):
    await registry.apply(spec(), actor="ann")
    await registry.request_deletion("hello", actor="ann")
    with pytest.raises(Refused, match="being deleted"):
        await registry.apply(spec(), actor="ann")


async def test_a_finalizer_stays_while_nobody_asked_for_deletion(registry, changes):
    await registry.apply(spec(), actor="ann")
    await changes()
    assert await registry.remove_finalizer("hello", Finalizer.PORTS) is False
    assert (await registry.service("hello")).finalizers == tuple(Finalizer)
    assert await changes() == []


async def test_the_last_finalizer_takes_everything_but_the_events(registry, changes):
    await registry.apply(spec(), actor="ann")
    await registry.allocate_port("hello", "web", "default", 10001)
    await registry.record_certificate("hello", certificate())
    await registry.record_component("hello", component())
    await registry.claim_route("hello", claim())
    await registry.report("hello", happened("the container"))
    await registry.request_deletion("hello", actor="ann")
    await changes()
    gone = [await registry.remove_finalizer("hello", finalizer) for finalizer in Finalizer]
    assert gone == [False, False, False, False, True]
    # One finalizer after the other is one thing to look at for whoever was slow.
    assert [change.kind for change in await changes()] == [ChangeKind.FINALIZER, ChangeKind.EVENT, ChangeKind.GONE]
    assert await registry.service("hello") is None
    assert await registry.services() == ()
    assert await registry.allocated_ports() == frozenset()
    assert await registry.certificate_holder("/certs/hello.pem") is None
    assert await registry.claim_holder(":443", "hello.example") is None
    assert await registry.revisions("hello") == ()
    assert [event.kind for event in await registry.events("hello")] == ["created", "created", "deleting", "deleted"]
    assert await registry.remove_finalizer("hello", Finalizer.PORTS) is True


async def test_removing_a_finalizer_again_changes_nothing(registry, changes):
    await registry.apply(spec(), actor="ann")
    await registry.request_deletion("hello", actor="ann")
    await registry.remove_finalizer("hello", Finalizer.ROUTES)
    await changes()
    assert await registry.remove_finalizer("hello", Finalizer.ROUTES) is False
    assert await changes() == []


async def test_a_name_that_is_free_again_gives_another_service(registry):
    first, _ = await registry.apply(spec(), actor="ann")
    await registry.request_deletion("hello", actor="ann")
    for finalizer in Finalizer:
        await registry.remove_finalizer("hello", finalizer)
    second, change = await registry.apply(spec(), actor="ann", expected_generation=0)
    assert change is Change.CREATED
    assert (second.uid != first.uid, second.generation) == (True, 1)


async def test_times_come_from_the_clock(url):
    registry = await Registry.open(url, "rift", clock=SteppingClock())
    created, _ = await registry.apply(spec(), actor="ann")
    configured, _ = await registry.apply(spec(version="v2"), actor="ann")
    await registry.close()
    assert created.created_at == created.updated_at > NOON
    assert configured.created_at == created.created_at < configured.updated_at


async def test_a_suspended_service_remembers_for_whom_since_when_and_why(registry, changes):
    await registry.apply(spec(), actor="ann")
    await changes()
    suspended = await registry.suspend("hello", actor="bob", reason="the disk")
    assert suspended.suspended is not None
    assert (suspended.suspended.actor, suspended.suspended.reason) == ("bob", "the disk")
    assert suspended.generation == 1
    assert [change.kind for change in await changes()] == [ChangeKind.SUSPENSION, ChangeKind.EVENT]
    assert await registry.suspend("hello", actor="eve", reason="the disk") == suspended
    assert await changes() == []
    applied, _ = await registry.apply(spec(version="v2"), actor="ann")
    assert applied.suspended == suspended.suspended
    await changes()
    resumed = await registry.resume("hello", actor="ann")
    assert resumed.suspended is None
    assert [change.kind for change in await changes()] == [ChangeKind.SUSPENSION, ChangeKind.EVENT]
    assert await registry.resume("hello", actor="ann") == resumed
    assert await changes() == []
    told = [(event.kind, event.actor) for event in await registry.events()]
    assert told == [("created", "ann"), ("suspended", "bob"), ("configured", "ann"), ("resumed", "ann")]


async def test_whoever_deletes_a_suspended_service_resumes_it(registry):
    await registry.apply(spec(), actor="ann")
    await registry.suspend("hello", actor="bob")
    deleted = await registry.request_deletion("hello", actor="ann")
    assert (deleted.deleting, deleted.suspended) == (True, None)
    await registry.suspend("hello", actor="bob")
    again = await registry.request_deletion("hello", actor="ann")
    assert (again.deletion_requested_at, again.suspended) == (deleted.deletion_requested_at, None)


async def test_all_services_of_the_node_are_suspended_but_for_those_that_are_already(registry):
    await registry.apply(spec("one"), actor="ann")
    await registry.apply(spec("two"), actor="ann")
    await registry.suspend("one", actor="bob", reason="the disk")
    await registry.suspend_all(Suspension(actor="eve", at=NOON, reason="restored"))
    reasons = [service.suspended and service.suspended.reason for service in await registry.services()]
    assert reasons == ["the disk", "restored"]


async def test_what_is_not_there_can_be_neither_suspended_nor_resumed(registry):
    for refused in (registry.suspend("hello", actor="ann"), registry.resume("hello", actor="ann")):
        with pytest.raises(NotFound):
            await refused


async def test_a_restart_is_a_number_that_rises_and_another_generation(registry, changes):
    await registry.apply(two(), actor="ann")
    await changes()
    service = await registry.restart("hello", actor="bob")
    assert (service.generation, service.actor, service.restarts) == (2, "bob", {"web": 1, "db": 1})
    assert service.spec == two()
    assert [change.kind for change in await changes()] == [ChangeKind.SPEC, ChangeKind.EVENT]
    assert (await registry.restart("hello", "db", actor="bob")).restarts == {"web": 1, "db": 2}
    event = (await registry.events("hello"))[-1]
    assert (event.kind, event.message) == ("restarting", "restart of db asked by bob")
    assert [revision.note for revision in await registry.revisions("hello")] == [
        "",
        "restart of web, db",
        "restart of db",
    ]


async def test_what_is_stopped_or_not_there_is_not_restarted(registry):
    with pytest.raises(NotFound):
        await registry.restart("hello", actor="ann")
    await registry.apply(two(active=False), actor="ann")
    with pytest.raises(NotFound, match="it has web, db"):
        await registry.restart("hello", "api", actor="ann")
    with pytest.raises(Refused, match="hello is stopped: mcp start hello has it run"):
        await registry.restart("hello", "web", actor="ann")
    await registry.request_deletion("hello", actor="ann")
    with pytest.raises(Refused, match="is being deleted"):
        await registry.restart("hello", actor="ann")


async def test_a_revision_remembers_what_its_tags_stood_for_when_it_ended(registry):
    await registry.apply(spec(version="v1"), actor="ann")
    await registry.record_component("hello", component(image="reg/hello:v1", digest="sha256:1"))
    await registry.apply(spec(version="v2"), actor="ann", note="a trial")
    first, second = await registry.revisions("hello")
    assert (first.digests, second.digests, second.note) == ({"reg/hello:v1": "sha256:1"}, {}, "a trial")


def two(**fields: object) -> ServiceSpec:
    components = (ComponentSpec(name="web", image="x:1"), ComponentSpec(name="db", image="x:1"))
    return ServiceSpec.model_validate({"name": "hello", "components": components, **fields})
