"""Who looks again when something in the registry changes."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from api.conditions import ConditionType, Reason, Status
from api.errors import RegistryUnavailable
from api.service import Component, Finalizer, Service
from controller.metrics import Metrics
from controller.queue import WorkQueue
from controller.registry import ChangeKind, Registry, RegistryChange
from controller.registry.subscription import Hub
from controller.wakes import ALL, WAKES, Wakes
from reconcilers.containers.watching.waiting import Waiting
from tests.unit.controller.registry.samples import certificate, claim, condition, spec


class Woken:
    """Wakes over a real registry, and the queues that they fill."""

    def __init__(self, registry: Registry) -> None:
        metrics = Metrics(ALL)
        self.registry = registry
        self.queues = {name: WorkQueue(metrics.reconciler(name).queue) for name in ALL}
        self.waiting = Waiting()
        self.wakes = Wakes(self.queues, registry, self.waiting)

    async def now(self) -> dict[str, list[str]]:
        """Whom each queue holds once all that was committed is heard; they are taken out of it."""
        # Wakes may read the registry, one transaction after the other.
        for _ in range(3):
            await self.registry.ping()
        found = {}
        for name, queue in self.queues.items():
            keys = []
            while len(queue):
                item = await queue.get()
                queue.done(item.key)
                keys.append(item.key)
            found[name] = keys
        return {name: keys for name, keys in found.items() if keys}


@pytest.fixture
async def woken(lite: Registry) -> AsyncIterator[Woken]:
    parts = Woken(lite)
    async with lite.subscribe() as changes:
        running = asyncio.create_task(parts.wakes.run(changes))
        yield parts
        running.cancel()


ROUTES = ConditionType.ROUTES_PROGRAMMED


async def test_a_wish_concerns_all(woken: Woken) -> None:
    await woken.registry.apply(spec(), actor="ann")
    assert await woken.now() == {name: ["hello"] for name in ALL}
    await woken.registry.apply(spec(), actor="ann")
    assert await woken.now() == {}
    await woken.registry.request_deletion("hello", actor="ann")
    assert await woken.now() == {name: ["hello"] for name in ALL}


async def test_a_finalizer_that_is_dropped_concerns_all_and_the_last_nobody_who_is_left(woken: Woken) -> None:
    await woken.registry.apply(spec(), actor="ann")
    await woken.registry.request_deletion("hello", actor="ann")
    await woken.now()
    await woken.registry.remove_finalizer("hello", Finalizer.ROUTES)
    assert await woken.now() == {name: ["hello"] for name in ALL}


async def test_a_container_that_moved_concerns_routes_and_ports(woken: Woken) -> None:
    await woken.registry.apply(spec(), actor="ann")
    await woken.now()
    there = Component(name="web", container_name="hello-web", ready=True)
    await woken.registry.record_component("hello", there)
    assert await woken.now() == {"routes": ["hello"], "ports": ["hello"]}
    await woken.registry.record_component("hello", there.model_copy(update={"message": "for people only"}))
    assert await woken.now() == {}


async def test_containers_wait_for_ports_and_routes_for_certificates(woken: Woken) -> None:
    await woken.registry.apply(spec(), actor="ann")
    await woken.now()
    await woken.registry.allocate_port("hello", "web", "default", 10001)
    assert await woken.now() == {"containers": ["hello"]}
    await woken.registry.contest_port("hello", "web", "default", 10001)
    assert await woken.now() == {"ports": ["hello"], "containers": ["hello"]}
    await woken.registry.record_certificate("hello", certificate())
    assert await woken.now() == {"routes": ["hello"]}


async def test_conditions_and_events_wake_nobody(woken: Woken) -> None:
    await woken.registry.apply(spec(), actor="ann")
    await woken.now()
    await woken.registry.report("hello", condition())
    assert await woken.now() == {}


async def test_a_name_that_is_free_again_wakes_those_who_may_wait_for_one(woken: Woken) -> None:
    registry = woken.registry
    for name in ("holder", "waits", "pending", "content", "outdated"):
        await registry.apply(spec(name), actor="ann")
    for name in ("holder", "content", "outdated"):
        await registry.report(name, condition(ROUTES))
    await registry.report("waits", condition(ROUTES, Status.FALSE, Reason.CONFLICT))
    await registry.apply(spec("outdated", "v2"), actor="ann")
    await registry.claim_route("holder", claim())
    await woken.now()
    await registry.release_route("holder", ":443", "hello.example")
    assert await woken.now() == {
        "routes": ["waits", "pending", "outdated"],
        "containers": ["holder"],
    }, "the oldest first"


async def test_a_resync_looks_at_everything_after_all_that_happened(woken: Woken) -> None:
    await woken.registry.apply(spec("b"), actor="ann")
    await woken.registry.apply(spec("a"), actor="ann")
    await woken.now()
    await woken.wakes.resync()
    await woken.registry.apply(spec("z"), actor="ann")
    found = await woken.now()
    assert found.keys() == set(ALL)
    for names in found.values():
        assert (names[0], set(names[1:])) == ("z", {"a", "b"})


async def test_a_registry_that_is_away_ends_nothing() -> None:
    class Away:
        async def services(self) -> tuple[Service, ...]:
            raise RegistryUnavailable("gone")

    metrics = Metrics(ALL)
    queues = {name: WorkQueue(metrics.reconciler(name).queue) for name in ALL}
    hub = Hub()
    with_changes = hub.subscribe()
    running = asyncio.create_task(Wakes(queues, Away(), Waiting()).run(with_changes))
    hub.publish([RegistryChange("a", ChangeKind.CLAIM_RELEASED), RegistryChange("a", ChangeKind.SPEC)])
    assert (await queues["ports"].get()).key == "a"
    hub.close()
    await running


def test_only_reconcilers_that_exist_are_woken() -> None:
    assert {name for names in WAKES.values() for name in names} == set(ALL)


async def test_who_depends_on_another_service_is_woken_when_it_comes_and_nobody_else(woken: Woken) -> None:
    await woken.registry.apply(spec("web"), actor="ann")
    await woken.now()
    woken.waiting.note("web", ["hello"])
    await woken.registry.apply(spec("hello"), actor="ann")
    assert (await woken.now())["containers"] == ["hello", "web"]
    woken.waiting.note("web", ())
    await woken.registry.apply(spec("hello", "v2"), actor="ann")
    assert (await woken.now())["containers"] == ["hello"]


async def test_containers_are_looked_at_when_a_route_moved_or_went(woken: Woken) -> None:
    await woken.registry.apply(spec(), actor="ann")
    await woken.now()
    await woken.registry.claim_route("hello", claim())
    assert await woken.now() == {"containers": ["hello"]}
    await woken.registry.release_route("hello", claim().listener, claim().hostname)
    assert (await woken.now())["containers"] == ["hello"]


async def test_a_place_of_a_certificate_that_is_free_again_wakes_those_who_may_wait_for_it(woken: Woken) -> None:
    for name in ("hello", "web"):
        await woken.registry.apply(spec(name), actor="ann")
    await woken.registry.record_certificate("hello", certificate())
    await woken.now()
    await woken.registry.forget_certificate("hello", certificate().hostname)
    assert (await woken.now())["certs"] == ["hello", "web"]
