"""Who listens is told what was committed, in order, and costs no more than a bounded memory."""

import asyncio

import pytest

from api.service import Event
from controller.registry import ChangeKind, Registry, RegistryChange
from controller.registry.subscription import MAX_PENDING_EVENTS, Hub
from reconcilers.base import PortTaken
from tests.unit.controller.registry.conftest import pending
from tests.unit.controller.registry.samples import NOON, condition, happened, spec

SPEC = RegistryChange("hello", ChangeKind.SPEC)
GONE = RegistryChange("hello", ChangeKind.GONE)


def event(number: int) -> RegistryChange:
    known = Event(id=number, at=NOON, service="hello", generation=1, actor="ann", kind="created", message="")
    return RegistryChange("hello", ChangeKind.EVENT, known)


async def test_like_changes_are_told_once_and_the_last_of_them_last():
    hub = Hub()
    subscription = hub.subscribe()
    hub.publish([SPEC, GONE, SPEC, RegistryChange("other", ChangeKind.SPEC)])
    assert await pending(subscription) == [GONE, SPEC, RegistryChange("other", ChangeKind.SPEC)]


async def test_events_are_told_one_by_one():
    hub = Hub()
    subscription = hub.subscribe()
    hub.publish([event(1), SPEC, event(2)])
    assert await pending(subscription) == [event(1), SPEC, event(2)]


async def test_too_many_events_become_one_sign_that_some_were_missed():
    hub = Hub()
    subscription = hub.subscribe()
    hub.publish([SPEC, *(event(number) for number in range(MAX_PENDING_EVENTS + 2))])
    assert await pending(subscription) == [
        SPEC,
        RegistryChange("", ChangeKind.EVENT),
        event(MAX_PENDING_EVENTS + 1),
    ]
    hub.publish([event(9999)])
    assert await pending(subscription) == [event(9999)]


async def test_a_waiting_subscriber_is_woken_and_may_come_back_for_more():
    hub = Hub()
    subscription = hub.subscribe()
    waiting = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    hub.publish([SPEC])
    assert await waiting == SPEC
    hub.publish([GONE])
    async for change in subscription:
        assert change == GONE
        break
    hub.publish([SPEC])
    assert await anext(subscription) == SPEC


async def test_a_closed_subscription_ends_and_is_told_nothing_more():
    hub = Hub()
    async with hub.subscribe() as subscription:
        hub.publish([SPEC])
    hub.publish([GONE])
    assert [change async for change in subscription] == []


async def test_closing_the_registry_ends_waiting_subscribers(sqlite):
    registry = await Registry.open(sqlite, "rift")
    subscription = registry.subscribe()
    waiting = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    await registry.close()
    with pytest.raises(StopAsyncIteration):
        await waiting
    assert [change async for change in registry.subscribe()] == []


async def test_a_change_is_told_after_its_commit_and_before_its_method_returns(registry: Registry):
    seen = []

    async def follow() -> None:
        async for change in registry.subscribe():
            service = await registry.service(change.service)
            seen.append((change.kind, service and service.generation))

    follower = asyncio.create_task(follow())
    await asyncio.sleep(0)
    async with registry.subscribe() as subscription:
        await registry.apply(spec(), actor="ann")
        assert [change.kind for change in await pending(subscription)] == [ChangeKind.SPEC, ChangeKind.EVENT]
    await registry.ping()
    assert seen[0] == (ChangeKind.SPEC, 1)
    follower.cancel()


async def test_all_subscribers_are_told_in_the_order_of_the_commits(registry: Registry):
    first, second = registry.subscribe(), registry.subscribe()
    names = [f"svc-{number}" for number in range(10)]
    await asyncio.gather(*(registry.apply(spec(name), actor="ann") for name in names))
    told = [change.service for change in await pending(first) if change.kind is ChangeKind.SPEC]
    assert told == names
    assert [change.service for change in await pending(second) if change.kind is ChangeKind.SPEC] == names


async def test_what_failed_is_told_to_nobody(registry: Registry, changes):
    await registry.apply(spec(), actor="ann")
    await registry.allocate_port("hello", "web", "default", 10001)
    await changes()
    with pytest.raises(PortTaken):
        await registry.allocate_port("hello", "web", "grpc", 10001)
    assert await changes() == []


async def test_reports_are_told_with_their_events(registry: Registry, changes):
    await registry.apply(spec(), actor="ann")
    await changes()
    await registry.report("hello", happened("one", "two"))
    await registry.report("hello", condition())
    told = await changes()
    assert [(change.kind, change.event and change.event.message) for change in told] == [
        (ChangeKind.EVENT, "one"),
        (ChangeKind.EVENT, "two"),
        (ChangeKind.CONDITION, None),
    ]
