"""Each generation is followed until it is ready, once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from api.conditions import Condition, Reason, Status
from api.errors import RegistryUnavailable
from api.service import Event, Finalizer, Service
from controller.metrics import Metrics
from controller.registry import ChangeKind, EventDraft, Registry, RegistryChange, Report
from controller.registry.subscription import Hub
from controller.rollouts import Rollouts
from tests.unit.controller.registry.samples import WORK, SteppingClock, component, condition, spec


class Followed:
    """Rollouts over a real registry whose every look at the clock is a minute after the one before."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.metrics = Metrics([])
        self.rollouts = Rollouts(registry, self.metrics)

    async def converge(self, generation: int = 1, **of: object) -> None:
        for kind in WORK:
            await self.registry.report("hello", condition(kind, generation=generation, **of))  # type: ignore[arg-type]

    async def told(self, *kinds: str) -> list[Event]:
        # They read, then write, one transaction after the other.
        for _ in range(4):
            await self.registry.ping()
        return [event for event in await self.registry.events("hello") if event.kind in (kinds or ("ready",))]

    @property
    def observed(self) -> tuple[float, float]:
        samples = self.metrics.registry.get_sample_value
        return samples("mcp_apply_to_ready_seconds_count") or 0, samples("mcp_apply_to_ready_seconds_sum") or 0


@pytest.fixture
async def followed(tmp_path: object) -> AsyncIterator[Followed]:
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db", "rift", clock=SteppingClock())
    parts = Followed(registry)
    async with registry.subscribe() as changes:
        running = asyncio.create_task(parts.rollouts.run(changes))
        yield parts
        running.cancel()
    await registry.close()


async def test_a_generation_that_becomes_ready_is_told_once_with_its_time(followed: Followed) -> None:
    await followed.registry.apply(spec(), actor="ann")
    await followed.converge()
    (event,) = await followed.told()
    assert event.message == "everything is as defined, after 300.00 s"
    assert (event.generation, event.actor) == (1, "mcp-agent")
    assert followed.observed == (1, 300)
    await followed.registry.report("hello", condition(WORK[0], Status.FALSE, Reason.PROGRESSING))
    await followed.converge()
    assert await followed.told() == [event]


async def test_each_generation_is_told(followed: Followed) -> None:
    await followed.registry.apply(spec(), actor="ann")
    await followed.converge()
    await followed.registry.apply(spec(version="v2"), actor="ann")
    await followed.converge(2)
    assert [event.generation for event in await followed.told()] == [1, 2]


async def test_one_that_fails_is_told_once_it_is_mended(followed: Followed) -> None:
    await followed.registry.apply(spec(), actor="ann")
    await followed.converge()
    await followed.registry.apply(spec(version="v2"), actor="ann")
    await followed.converge(2, status=Status.FALSE, reason=Reason.IMAGE_PULL_FAILED)
    assert len(await followed.told()) == 1
    await followed.converge(2)
    assert [event.generation for event in await followed.told()] == [1, 2]


async def fail(followed: Followed, reason: Reason, generation: int = 1) -> None:
    """As the driver says that a reconciler cannot go on."""
    failed = condition(WORK[0], Status.FALSE, reason, generation=generation)
    draft = EventDraft("failed", f"{reason}: words", "ports", generation)
    await followed.registry.report("hello", replace(failed, events=(draft,)))


async def test_that_a_failure_is_over_is_told_once(followed: Followed) -> None:
    await followed.registry.apply(spec(), actor="ann")
    await followed.converge()
    await followed.told()
    await fail(followed, Reason.PORTS_EXHAUSTED)
    await followed.registry.report("hello", condition(WORK[0], Status.FALSE, Reason.PROGRESSING))
    assert await followed.told("recovered") == []
    for _ in range(2):
        await followed.converge()
    (event,) = await followed.told("recovered")
    assert (event.message, event.generation, event.actor) == ("everything is as defined again", 1, "mcp-agent")
    assert followed.observed[0] == 1


async def test_that_what_ends_again_and_again_was_started_is_no_end_of_it(followed: Followed) -> None:
    await followed.registry.apply(spec(), actor="ann")
    await followed.converge()
    await followed.told()
    await followed.registry.record_component("hello", component(restarts=3))
    await fail(followed, Reason.CONTAINER_FAILED)
    await followed.converge()
    assert await followed.told("recovered") == []
    await followed.registry.record_component("hello", component(restarts=0))
    assert len(await followed.told("recovered")) == 1


async def test_what_needed_no_person_is_over_without_a_word(followed: Followed) -> None:
    await followed.registry.apply(spec(), actor="ann")
    await followed.converge()
    await followed.told()
    await fail(followed, Reason.ENGINE_UNREACHABLE)
    await followed.converge()
    assert await followed.told("recovered") == []


async def test_a_failure_on_the_way_is_over_when_the_generation_is_ready(followed: Followed) -> None:
    await followed.registry.apply(spec(), actor="ann")
    await fail(followed, Reason.PORTS_EXHAUSTED)
    await followed.converge()
    assert [event.kind for event in await followed.told("ready", "recovered")] == ["ready"]


async def test_a_failure_that_is_over_while_no_agent_runs_is_told_by_the_next(tmp_path: object) -> None:
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db", "rift", clock=SteppingClock())
    parts = Followed(registry)
    await registry.apply(spec(), actor="ann")
    await parts.converge()
    for told in (["ready"], ["ready", "recovered"], ["ready", "recovered"]):
        async with registry.subscribe() as changes:
            running = asyncio.create_task(Rollouts(registry, parts.metrics).run(changes))
            assert [event.kind for event in await parts.told("ready", "recovered")] == told
            running.cancel()
        if told == ["ready"]:
            await fail(parts, Reason.PORTS_EXHAUSTED)
            await parts.converge()
    await registry.close()


async def test_the_same_definition_once_more_is_no_rollout(followed: Followed) -> None:
    await followed.registry.apply(spec(), actor="ann")
    await followed.converge()
    await followed.told()
    for told in (["ready", "recovered"], ["ready", "recovered", "recovered"]):
        await fail(followed, Reason.IMAGE_PULL_FAILED)
        await followed.told()
        await followed.registry.apply(spec(), actor="ann")
        await followed.converge()
        assert [event.kind for event in await followed.told("ready", "recovered")] == told
    assert followed.observed == (1, 300)


async def test_the_same_definition_once_more_is_no_rollout_for_the_next_agent_either(tmp_path: object) -> None:
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db", "rift", clock=SteppingClock())
    parts = Followed(registry)
    await registry.apply(spec(), actor="ann")
    await registry.restart("hello", actor="ann")
    await parts.converge(2)
    async with registry.subscribe() as changes:
        running = asyncio.create_task(parts.rollouts.run(changes))
        await parts.told()
        await fail(parts, Reason.PORTS_EXHAUSTED, 2)
        await parts.told()
        await registry.apply(spec(), actor="ann")
        await parts.converge(2)
        assert [event.kind for event in await parts.told("ready", "recovered")] == ["recovered"]
        running.cancel()
    await registry.close()


async def test_one_that_is_defined_again_once_it_is_gone_is_told_again(followed: Followed) -> None:
    for count in (1, 2):
        await followed.registry.apply(spec(), actor="ann")
        await followed.converge()
        assert [event.generation for event in await followed.told()] == [1] * count
        await followed.registry.request_deletion("hello", actor="ann")
        for finalizer in Finalizer:
            await followed.registry.remove_finalizer("hello", finalizer)


@pytest.mark.parametrize("kind", ["ready", "recovered"])
async def test_what_could_not_be_written_is_told_with_the_next_change(
    followed: Followed, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    await followed.registry.apply(spec(), actor="ann")
    if kind == "recovered":
        await followed.converge()
        await followed.told()
        await fail(followed, Reason.PORTS_EXHAUSTED)
    await followed.told()

    async def refuse(*_: object, **__: object) -> bool:
        raise RegistryUnavailable("gone for a moment")

    with monkeypatch.context() as away:
        away.setattr(followed.registry, "tell", refuse)
        await followed.converge()
        assert await followed.told(kind) == []
    await followed.registry.report("hello", condition(WORK[0], Status.FALSE, Reason.PROGRESSING))
    await followed.converge()
    assert len(await followed.told(kind)) == 1
    assert followed.observed[0] == 1


async def test_what_is_not_ready_any_more_once_it_would_be_told_is_told_when_it_is_again(
    followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await followed.registry.apply(spec(), actor="ann")
    read = followed.registry.service

    async def overtaken(name: str) -> Service | None:
        service = await read(name)
        await followed.registry.report("hello", condition(WORK[0], Status.FALSE, Reason.PROGRESSING))
        return service

    with monkeypatch.context() as late:
        late.setattr(followed.registry, "service", overtaken)
        await followed.converge()
        assert await followed.told() == []
    await followed.converge()
    assert len(await followed.told()) == 1


async def test_to_be_stopped_is_no_way_of_being_ready(followed: Followed) -> None:
    await followed.registry.apply(spec(), actor="ann")
    await followed.converge(status=Status.FALSE, reason=Reason.STOPPED)
    assert (await followed.told(), followed.observed) == ([], (0, 0))


async def test_one_that_is_deleted_is_not_waited_for(followed: Followed) -> None:
    await followed.registry.apply(spec(), actor="ann")
    await followed.registry.request_deletion("hello", actor="ann")
    await followed.converge()
    assert await followed.told() == []


async def test_one_that_becomes_ready_while_no_agent_runs_is_told_by_the_next(tmp_path: object) -> None:
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db", "rift", clock=SteppingClock())
    parts = Followed(registry)
    for name in ("hello", "idle"):
        await registry.apply(spec(name), actor="ann")
    await registry.report("hello", Report(events=(EventDraft("created", "web", "containers", 1),)))
    await parts.converge()
    for start in range(2):
        async with registry.subscribe() as changes:
            running = asyncio.create_task(parts.rollouts.run(changes))
            assert [event.generation for event in await parts.told()] == [1]
            if start == 1:
                await registry.apply(spec(version="v2"), actor="ann")
                await parts.converge(2)
                assert [event.generation for event in await parts.told()] == [1, 2]
            running.cancel()
    await registry.close()


async def test_a_generation_that_asks_for_nothing_new_is_ready_at_once(followed: Followed) -> None:
    await followed.registry.apply(spec(), actor="ann")
    await followed.converge()
    await followed.registry.apply(spec().model_copy(update={"path": "src/hello"}), actor="ann")
    for kind in WORK:
        await followed.registry.report("hello", condition(kind, generation=2))
    assert [event.generation for event in await followed.told()] == [1, 2]


async def test_a_registry_that_is_away_ends_nothing() -> None:
    class Away:
        looks = 0

        async def services(self) -> tuple[Service, ...]:
            raise RegistryUnavailable("gone")

        async def events(self, service: str = "", *, limit: int = 100, after_id: int = 0) -> tuple[Event, ...]:
            raise RegistryUnavailable("gone")

        async def service(self, name: str) -> Service | None:
            self.looks += 1
            raise RegistryUnavailable("gone")

        async def tell(self, service: str, event: EventDraft, *, holds: Condition) -> bool:
            raise RegistryUnavailable("gone")

    hub, away = Hub(), Away()
    changes = hub.subscribe()
    running = asyncio.create_task(Rollouts(away, Metrics([])).run(changes))
    for kind in (ChangeKind.SPEC, ChangeKind.CONDITION):
        hub.publish([RegistryChange("a", kind)])
        await asyncio.sleep(0)
    hub.publish([RegistryChange("a", ChangeKind.CONDITION)])
    await asyncio.sleep(0)
    hub.close()
    await running
    assert away.looks == 2
