"""The queue's promises, on a virtual clock."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.metrics import Metrics
from controller.queue import Backoff, Priority, ShutDown, WorkQueue

pytestmark = pytest.mark.looptime


def make_queue() -> WorkQueue:
    return WorkQueue(Metrics(["test"]).reconciler("test").queue)


async def test_a_key_added_twice_is_given_once() -> None:
    queue = make_queue()
    queue.add("a")
    queue.add("a")
    assert (await queue.get()).key == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_additions_during_the_work_cause_exactly_one_more_run() -> None:
    queue = make_queue()
    queue.add("a")
    await queue.get()
    queue.add("a")
    queue.add("a", Priority.RESYNC)
    assert len(queue) == 0
    queue.done("a")
    assert len(queue) == 1
    assert (await queue.get()).key == "a"


async def test_a_change_goes_ahead_of_resync_work_and_lifts_what_waits_already() -> None:
    queue = make_queue()
    for key in ("a", "b", "c"):
        queue.add(key, Priority.RESYNC)
    queue.add("x")
    queue.add("b")
    assert [(await queue.get()).key for _ in range(4)] == ["x", "b", "a", "c"]


async def test_a_waiting_worker_is_woken_by_an_addition() -> None:
    queue = make_queue()
    waiting = asyncio.ensure_future(queue.get())
    await asyncio.sleep(1)
    queue.add("a")
    assert (await waiting).key == "a"


async def test_a_delayed_key_comes_when_it_is_due(looptime: object) -> None:
    queue = make_queue()
    queue.add_after("a", 30)
    assert (await queue.get()).key == "a"
    assert looptime == 30


async def test_an_earlier_cause_replaces_the_delay() -> None:
    queue = make_queue()
    queue.add_after("a", 30)
    queue.add("a")
    await queue.get()
    queue.done("a")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(100):
            await queue.get()


async def test_the_wait_of_an_item_counts_from_its_first_addition() -> None:
    queue = make_queue()
    queue.add("a", Priority.RESYNC)
    await asyncio.sleep(5)
    queue.add("a")
    assert asyncio.get_running_loop().time() - (await queue.get()).since == 5


async def test_failures_wait_longer_each_time_until_forgotten() -> None:
    queue = make_queue()
    backoff = Backoff(first=1.0, most=8.0)
    waits = [queue.retry("a", backoff) for _ in range(6)]
    for wait, least in zip(waits, (1, 2, 4, 8, 8, 8), strict=True):
        assert least <= wait <= least * 1.1
    queue.forget("a")
    assert queue.retry("a", backoff) < 1.2


async def test_a_moment_that_was_waited_for_does_not_make_the_failure_that_comes_of_it_wait_longer() -> None:
    queue = make_queue()
    moment, failure = Backoff(first=0.1, most=60.0), Backoff(first=10.0, most=300.0)
    waits = [(queue.retry("a", moment), queue.retry("a", failure)) for _ in range(3)]
    for (short, long), times in zip(waits, (1, 2, 4), strict=True):
        assert 0.1 * times <= short <= 0.11 * times
        assert 10 * times <= long <= 11 * times


async def test_shut_down_ends_waiting_workers_and_drops_delays() -> None:
    queue = make_queue()
    queue.add_after("a", 1)
    waiting = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    queue.shut_down()
    with pytest.raises(ShutDown):
        await waiting
    queue.add_after("b", 1)
    await asyncio.sleep(5)
    assert len(queue) == 0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["change", "resync", "get", "done"])), max_size=40))
def test_no_key_is_worked_on_twice_at_once_and_none_is_lost(steps: list[tuple[str, str]]) -> None:
    async def play() -> None:
        queue = make_queue()
        working: set[str] = set()
        wanted: set[str] = set()
        for key, step in steps:
            if step == "get" and len(queue):
                taken = (await queue.get()).key
                assert taken not in working
                assert taken in wanted
                working.add(taken)
                wanted.discard(taken)
            elif step == "done" and key in working:
                working.discard(key)
                queue.done(key)
            elif step in ("change", "resync"):
                wanted.add(key)
                queue.add(key, Priority[step.upper()])
        for key in sorted(working):
            queue.done(key)
        left = set()
        while len(queue):
            left.add((await queue.get()).key)
        assert left == wanted

    asyncio.run(play())


async def test_a_look_is_done_once_work_that_began_after_it_has_ended() -> None:
    queue = make_queue()
    queue.add("a")
    await queue.get()
    look = queue.look("a")
    queue.done("a")
    await asyncio.sleep(0)
    assert not look.done(), "that work had begun before"
    await queue.get()
    other = queue.look("b")
    queue.done("a")
    await look
    assert not other.done()


async def test_a_look_does_not_wait_for_the_end_of_a_pause() -> None:
    queue = make_queue()
    queue.retry("a", Backoff(first=100))
    look = queue.look("a")
    assert (await queue.get()).key == "a"
    queue.done("a")
    await look
    assert queue.retry("a", Backoff(first=100)) < 111, "it began to count anew"


async def test_nobody_waits_for_a_look_that_will_not_come() -> None:
    queue = make_queue()
    begun, waits = queue.look("a"), queue.look("b")
    await queue.get()
    queue.shut_down()
    with pytest.raises(ShutDown):
        await waits
    queue.done("a")
    await begun
    with pytest.raises(ShutDown):
        await queue.look("c")
