"""What reconcilers observe and allocate."""

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from functools import partial

import pytest

from api.conditions import ConditionType, Reason, Status
from api.service import Finalizer, PortAllocation
from controller.registry import ChangeKind, EventDraft, Registry, Report
from reconcilers.base import Claimed, PortTaken
from tests.unit.controller.registry.samples import (
    WORK,
    SteppingClock,
    certificate,
    claim,
    component,
    condition,
    happened,
    spec,
)


@pytest.fixture
async def hello(registry: Registry, changes) -> Registry:
    """The registry with the service `hello`, just applied."""
    await registry.apply(spec(), actor="ann")
    await changes()
    return registry


async def test_a_report_writes_condition_summary_and_events_together(hello, changes):
    draft = EventDraft("allocated", "port 10001", "ports", 1, drift=True)
    report = Report(condition(ConditionType.PORTS_ALLOCATED).condition, (draft,))
    await hello.report("hello", report)
    service = await hello.service("hello")
    assert service.condition(ConditionType.PORTS_ALLOCATED).status is Status.TRUE
    assert "CertificatesReady" in service.condition(ConditionType.READY).message
    (event,) = [event for event in await hello.events() if event.kind == "allocated"]
    assert (event.message, event.actor, event.generation, event.drift) == ("port 10001", "ports", 1, True)
    assert [change.kind for change in await changes()] == [ChangeKind.EVENT, ChangeKind.CONDITION]


async def test_all_conditions_true_is_ready(hello):
    for kind in WORK:
        await hello.report("hello", condition(kind))
    ready = (await hello.service("hello")).condition(ConditionType.READY)
    assert (ready.status, ready.reason, ready.observed_generation) == (Status.TRUE, Reason.CONVERGED, 1)


async def test_the_same_report_again_writes_nothing_and_wakes_nobody(hello, changes):
    await hello.report("hello", condition())
    before = await hello.service("hello")
    await changes()
    await hello.report("hello", condition())
    await hello.report("hello", Report())
    assert await hello.service("hello") == before
    assert await changes() == []


async def test_the_transition_moves_only_with_the_status(url):
    registry = await Registry.open(url, "rift", clock=SteppingClock())
    await registry.apply(spec(), actor="ann")
    seen = []
    for status, message in [(Status.FALSE, "a"), (Status.FALSE, "b"), (Status.TRUE, "b")]:
        await registry.report("hello", condition(status=status, reason=Reason.PENDING, message=message))
        seen.append((await registry.service("hello")).condition(ConditionType.PORTS_ALLOCATED))
    await registry.close()
    assert seen[0].last_transition == seen[1].last_transition < seen[2].last_transition
    assert [known.message for known in seen] == ["a", "b", "b"]


async def test_an_older_generation_never_overwrites_a_newer_one(hello, changes):
    await hello.apply(spec(version="v2"), actor="ann")
    await hello.report("hello", condition(status=Status.FALSE, reason=Reason.PORTS_EXHAUSTED, generation=2))
    await changes()
    await hello.report("hello", Report(condition(generation=1).condition, happened("late").events))
    known = (await hello.service("hello")).condition(ConditionType.PORTS_ALLOCATED)
    assert (known.status, known.observed_generation) == (Status.FALSE, 2)
    # What was done was done all the same.
    assert [change.kind for change in await changes()] == [ChangeKind.EVENT]


async def test_a_generation_that_never_was_belongs_to_an_earlier_service(hello, changes):
    await hello.report("hello", condition(generation=5))
    assert (await hello.service("hello")).condition(ConditionType.PORTS_ALLOCATED) is None
    assert await changes() == []


async def test_a_message_may_hold_anything(hello):
    await hello.report("hello", Report(condition(message="a\0b\ud800c").condition, happened("x\0y\udcffz").events))
    assert (await hello.service("hello")).condition(
        ConditionType.PORTS_ALLOCATED
    ).message == "a\N{REPLACEMENT CHARACTER}b?c"
    assert (await hello.events())[-1].message == "x\N{REPLACEMENT CHARACTER}y?z"


async def test_a_service_that_is_gone_is_left_alone(registry, changes):
    await registry.report("gone", Report(condition().condition, happened("late").events))
    await registry.allocate_port("gone", "web", "default", 10001)
    await registry.release_port("gone", "web", "default")
    await registry.contest_port("gone", "web", "default", 10001)
    await registry.record_certificate("gone", certificate())
    await registry.forget_certificate("gone", "hello.example")
    await registry.record_component("gone", component())
    await registry.forget_component("gone", "web")
    await registry.claim_route("gone", claim())
    await registry.release_route("gone", ":443", "hello.example")
    assert await changes() == []
    assert await registry.allocated_ports() == frozenset()
    assert await registry.events() == ()


async def test_a_port_is_allocated_replaced_and_released(hello, changes):
    await hello.allocate_port("hello", "web", "default", 10001)
    assert (await hello.service("hello")).ports == (PortAllocation(component="web", route="default", port=10001),)
    await hello.allocate_port("hello", "web", "default", 10002)
    assert await hello.allocated_ports() == {10002}
    assert [change.kind for change in await changes()] == [ChangeKind.PORTS]
    await hello.allocate_port("hello", "web", "default", 10002)
    assert await changes() == []
    await hello.release_port("hello", "web", "default")
    assert await hello.allocated_ports() == frozenset()
    assert [change.kind for change in await changes()] == [ChangeKind.PORTS]
    await hello.release_port("hello", "web", "default")
    assert await changes() == []


async def test_a_port_goes_to_one_route_only(hello, changes):
    await hello.apply(spec("other"), actor="ann")
    await hello.allocate_port("hello", "web", "default", 10001)
    await hello.allocate_port("hello", "web", "grpc", 10002)
    await changes()
    for service, route in [("other", "default"), ("hello", "grpc"), ("hello", "new")]:
        with pytest.raises(PortTaken):
            await hello.allocate_port(service, "web", route, 10001)
    assert await changes() == []
    assert (await hello.service("hello")).port("web", "grpc").port == 10002
    assert (await hello.service("other")).ports == ()


async def test_fifty_at_once_never_get_one_port_twice(hello):
    ports = range(10000, 10010)

    async def allocate(route: int) -> int | None:
        for port in ports:
            try:
                await hello.allocate_port("hello", "web", f"route-{route}", port)
            except PortTaken:
                continue
            return port
        return None

    given = await asyncio.gather(*(allocate(route) for route in range(50)))
    assert sorted(port for port in given if port is not None) == list(ports)
    assert {port.port for port in (await hello.service("hello")).ports} == set(ports)


async def test_a_port_is_contested_only_where_the_route_still_has_it(hello, changes):
    await hello.allocate_port("hello", "web", "default", 10001)
    await changes()
    await hello.contest_port("hello", "web", "default", 10009)
    assert await changes() == []
    await hello.contest_port("hello", "web", "default", 10001)
    assert (await hello.service("hello")).port("web", "default").contested
    assert [change.kind for change in await changes()] == [ChangeKind.CONTESTED]
    await hello.contest_port("hello", "web", "default", 10001)
    assert await changes() == []
    await hello.allocate_port("hello", "web", "default", 10002)
    assert not (await hello.service("hello")).port("web", "default").contested


async def test_a_certificate_is_recorded_renewed_and_forgotten(hello, changes):
    await hello.record_certificate("hello", certificate())
    assert (await hello.service("hello")).certificates == (certificate(),)
    assert await hello.certificate_holder("/certs/hello.pem") == "hello"
    await changes()
    await hello.record_certificate("hello", certificate())
    assert await changes() == []
    renewed = certificate().model_copy(update={"serial": "2"})
    await hello.record_certificate("hello", renewed)
    assert (await hello.service("hello")).certificate("hello.example") == renewed
    assert [change.kind for change in await changes()] == [ChangeKind.CERTIFICATE]
    await hello.forget_certificate("hello", "hello.example")
    assert (await hello.service("hello")).certificates == ()
    kinds = [change.kind for change in await changes()]
    assert kinds == [ChangeKind.CERTIFICATE, ChangeKind.PATH_RELEASED]
    await hello.forget_certificate("hello", "hello.example")
    assert await changes() == []


async def test_a_path_holds_one_services_certificate(hello, changes):
    await hello.apply(spec("other"), actor="ann")
    await hello.record_certificate("hello", certificate())
    await changes()
    with pytest.raises(Claimed) as refusal:
        await hello.record_certificate("other", certificate("other.example"))
    assert refusal.value.holder == "hello"
    assert await changes() == []
    assert (await hello.service("other")).certificates == ()


async def test_a_refused_renewal_at_anothers_path_keeps_the_old_record(hello):
    await hello.apply(spec("other"), actor="ann")
    await hello.record_certificate("hello", certificate())
    own = certificate("other.example", "/certs/other.pem")
    await hello.record_certificate("other", own)
    with pytest.raises(Claimed):
        await hello.record_certificate("other", certificate("other.example", "/certs/hello.pem"))
    assert (await hello.service("other")).certificates == (own,)


async def test_a_service_lays_a_new_names_certificate_over_its_old_one(hello):
    await hello.record_certificate("hello", certificate("hello.old-zone"))
    await hello.record_certificate("hello", certificate("hello.new-zone"))
    assert [known.hostname for known in (await hello.service("hello")).certificates] == ["hello.new-zone"]


async def test_components_are_observed_and_forgotten(hello, changes):
    await hello.record_component("hello", component("web", restarts=1))
    await hello.record_component("hello", component("api"))
    assert [known.name for known in (await hello.service("hello")).components] == ["api", "web"]
    assert [change.kind for change in await changes()] == [ChangeKind.COMPONENT]
    await hello.record_component("hello", component("web", restarts=1))
    assert await changes() == []
    await hello.record_component("hello", component("web", restarts=2))
    assert (await hello.service("hello")).component("web").restarts == 2
    assert [change.kind for change in await changes()] == [ChangeKind.COMPONENT]
    await hello.forget_component("hello", "web")
    assert (await hello.service("hello")).components == (component("api"),)
    assert [change.kind for change in await changes()] == [ChangeKind.COMPONENT]
    await hello.forget_component("hello", "web")
    assert await changes() == []


async def test_what_routes_lead_to_is_told_apart_from_the_rest(hello, changes):
    async def told(**known: object) -> list[ChangeKind]:
        await hello.record_component("hello", component(**known))
        return [change.kind for change in await changes()]

    ports = [{"route": "default", "port": 10001}]
    assert await told(state="created", ports=ports) == [ChangeKind.BACKEND]
    assert await told(state="running", ports=ports) == [ChangeKind.COMPONENT]
    assert await told(state="running", ports=ports, ready=True) == [ChangeKind.BACKEND]
    assert await told(state="running", ports=ports, ready=True, restarts=1) == [ChangeKind.COMPONENT]
    await hello.forget_component("hello", "web")
    assert [change.kind for change in await changes()] == [ChangeKind.BACKEND]


async def test_a_name_is_claimed_updated_and_released(hello, changes):
    await hello.claim_route("hello", claim())
    assert await hello.claim_holder(":443", "hello.example") == "hello"
    await hello.claim_route("hello", claim(backend="127.0.0.1:10001"))
    assert (await hello.service("hello")).claims == (claim(backend="127.0.0.1:10001"),)
    assert [change.kind for change in await changes()] == [ChangeKind.CLAIM]
    await hello.claim_route("hello", claim(backend="127.0.0.1:10001"))
    assert await changes() == []
    await hello.release_route("hello", ":443", "hello.example")
    assert await hello.claim_holder(":443", "hello.example") is None
    assert [change.kind for change in await changes()] == [ChangeKind.CLAIM_RELEASED]
    await hello.release_route("hello", ":443", "hello.example")
    assert await changes() == []


async def test_a_name_on_a_listener_is_one_services(hello, changes):
    await hello.apply(spec("other"), actor="ann")
    await hello.claim_route("hello", claim())
    await changes()
    with pytest.raises(Claimed) as refusal:
        await hello.claim_route("other", claim(backend="127.0.0.1:1"))
    assert refusal.value.holder == "hello"
    await hello.release_route("other", ":443", "hello.example")
    assert await hello.claim_holder(":443", "hello.example") == "hello"
    assert await changes() == []
    await hello.claim_route("other", claim(listener=":8443"))
    assert await hello.claim_holder(":8443", "hello.example") == "other"


async def test_many_claim_one_name_and_one_gets_it(hello):
    names = [f"svc-{number}" for number in range(10)]
    for name in names:
        await hello.apply(spec(name), actor="ann")
    outcomes = await asyncio.gather(*(hello.claim_route(name, claim()) for name in names), return_exceptions=True)
    holder = await hello.claim_holder(":443", "hello.example")
    assert [outcome for outcome in outcomes if outcome is None] == [None]
    assert {outcome.holder for outcome in outcomes if outcome is not None} == {holder}


async def test_times_are_in_utc_whatever_zone_they_came_in(hello):
    east = datetime(2026, 11, 25, 14, tzinfo=timezone(timedelta(hours=2)))
    await hello.record_component("hello", component(started_at=east))
    await hello.record_certificate("hello", certificate().model_copy(update={"not_after": east}))
    service = await hello.service("hello")
    times = [
        service.created_at,
        service.conditions[0].last_transition,
        service.component("web").started_at,
        service.certificates[0].not_after,
    ]
    assert [time.utcoffset() for time in times] == [timedelta(0)] * 4
    assert times[2:] == [datetime(2026, 11, 25, 12, tzinfo=UTC)] * 2


async def test_a_time_without_a_zone_is_refused(hello):
    naive = datetime(2026, 11, 25, 14)  # noqa: DTZ001
    with pytest.raises(ValueError, match="zone"):
        await hello.record_component("hello", component(started_at=naive))


async def test_what_is_remembered_of_a_service_is_what_the_database_holds(hello):
    async def agree() -> None:
        assert (await hello.service("hello"),) == await hello.services()

    writes = [
        lambda: hello.report("hello", condition(ConditionType.PORTS_ALLOCATED)),
        lambda: hello.allocate_port("hello", "web", "default", 10001),
        lambda: hello.contest_port("hello", "web", "default", 10001),
        lambda: hello.release_port("hello", "web", "default"),
        lambda: hello.record_certificate("hello", certificate()),
        lambda: hello.record_certificate("hello", certificate("renamed.example")),
        lambda: hello.forget_certificate("hello", "renamed.example"),
        lambda: hello.record_component("hello", component(restarts=1)),
        lambda: hello.forget_component("hello", "web"),
        lambda: hello.claim_route("hello", claim()),
        lambda: hello.claim_route("hello", claim(backend="127.0.0.1:10001")),
        lambda: hello.release_route("hello", ":443", "hello.example"),
        lambda: hello.apply(spec(version="v2"), actor="ann"),
        lambda: hello.request_deletion("hello", actor="ann"),
        *[partial(hello.remove_finalizer, "hello", finalizer) for finalizer in list(Finalizer)[1:]],
    ]
    await agree()
    for write in writes:
        before = await hello.service("hello")
        await write()
        await agree()
        assert await hello.service("hello") != before
    await hello.remove_finalizer("hello", next(iter(Finalizer)))
    assert await hello.service("hello") is None
    assert await hello.services() == ()
