"""A service that has to be mended again and again is mended more slowly, and that is told, on a virtual clock."""

import asyncio
from datetime import timedelta

import pytest

from api.conditions import Condition, ConditionType, Reason, Status
from reconcilers.base import CONVERGED, Outcome
from tests.unit.api.test_wire import NOW
from tests.unit.controller.test_driver import Rig, ScriptedReconciler, make_service, running

pytestmark = pytest.mark.looptime

WINDOW = 600
"""Seconds of quiet, and three changes within it are too many; see the driver's rig."""


async def undo(rig: Rig) -> None:
    """Somebody undoes what was done, and it is noticed."""
    rig.reconciler.touched.clear()
    rig.queue.add("hello")
    await asyncio.sleep(0.01)


async def flap(rig: Rig) -> None:
    rig.queue.add("hello")
    await asyncio.sleep(1)
    for _ in range(3):
        await undo(rig)


def told(rig: Rig) -> list[tuple[str, str]]:
    return [(event.kind, event.message) for event in rig.registry.events if event.actor == "mcp-agent"]


def flapping(rig: Rig) -> Condition | None:
    return rig.registry.rows["hello"].condition(ConditionType.FLAPPING)


async def test_what_is_mended_now_and_then_is_mended_at_once_and_nothing_is_said() -> None:
    async with running(ScriptedReconciler("a"), make_service()) as rig:
        rig.queue.add("hello")
        for _ in range(10):
            await asyncio.sleep(WINDOW / 2)
            await undo(rig)
            assert rig.reconciler.touched == {"a"}
        assert (flapping(rig), told(rig)) == (None, [])


async def test_what_is_mended_too_often_is_a_condition_that_says_what_was_done() -> None:
    async with running(ScriptedReconciler("a"), make_service()) as rig:
        await flap(rig)
        condition = flapping(rig)
        assert condition is not None
        assert (condition.status, condition.reason) == (Status.TRUE, Reason.FLAPPING)
        assert condition.message == "ports were mended 3 times in 1 second, last: touched a"
        assert condition.next_look_at is not None
        assert (condition.next_look_at - NOW).total_seconds() == pytest.approx(WINDOW + 1, abs=0.1)
        assert told(rig) == [("flapping", condition.message)]
        assert rig.metrics.registry.get_sample_value("mcp_flapping_total") == 1


async def test_then_each_correction_waits_longer_up_to_a_minute() -> None:
    async with running(ScriptedReconciler("a"), make_service()) as rig:
        await flap(rig)
        pauses = []
        for _ in range(9):
            await undo(rig)
            assert rig.reconciler.touched == set()
            assert (rig.condition().status, rig.condition().reason) == (Status.FALSE, Reason.FLAPPING)
            assert "touch a" in rig.condition().message
            pause = rig.flapping.pause(rig.registry.rows["hello"], "ports")
            await asyncio.sleep(pause + 0.01)
            assert rig.reconciler.touched == {"a"}
            pauses.append(round(pause))
        assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        assert rig.condition().status is Status.TRUE
        assert len(told(rig)) == 1


async def test_a_look_that_finds_nothing_to_do_is_not_held_back_and_what_happens_meanwhile_is_seen() -> None:
    async with running(ScriptedReconciler("a"), make_service()) as rig:
        await flap(rig)
        await undo(rig)
        rig.reconciler.touched.add("a")
        rig.queue.add("hello")
        await asyncio.sleep(0.01)
        assert rig.condition().status is Status.TRUE


async def test_after_a_quiet_window_it_is_over_and_the_next_correction_is_made_at_once() -> None:
    async with running(ScriptedReconciler("a"), make_service()) as rig:
        await flap(rig)
        await asyncio.sleep(WINDOW - 1)
        assert len(told(rig)) == 1
        await asyncio.sleep(2)
        condition = flapping(rig)
        assert condition is not None
        assert (condition.status, condition.reason, condition.next_look_at) == (Status.FALSE, Reason.CONVERGED, None)
        assert told(rig)[1:] == [("calmed", "nothing had to be mended for 10 minutes")]
        reports = rig.registry.reports
        await undo(rig)
        assert rig.reconciler.touched == {"a"}
        assert (len(told(rig)), rig.registry.reports) == (2, reports + 1)


async def test_what_a_person_applies_is_never_slowed_and_begins_a_new_count() -> None:
    async with running(ScriptedReconciler("a"), make_service()) as rig:
        await flap(rig)
        rig.registry.rows["hello"] = rig.registry.rows["hello"].model_copy(update={"generation": 2})
        await undo(rig)
        assert rig.reconciler.touched == {"a"}
        assert told(rig)[1:] == [("calmed", "generation 2 begins a new count")]
        await undo(rig)
        assert rig.reconciler.touched == {"a"}


async def test_a_deletion_is_never_slowed() -> None:
    async with running(ScriptedReconciler("a"), make_service()) as rig:
        await flap(rig)
        rig.registry.rows["hello"] = rig.registry.rows["hello"].model_copy(update={"deletion_requested_at": NOW})
        rig.queue.add("hello")
        await asyncio.sleep(0.01)
        assert rig.reconciler.touched == set()


async def test_an_agent_that_is_started_anew_goes_on_where_the_one_before_was() -> None:
    known = Condition(
        type=ConditionType.FLAPPING,
        status=Status.TRUE,
        reason=Reason.FLAPPING,
        message="ports were mended 3 times",
        observed_generation=1,
        last_transition=NOW,
    )
    async with running(ScriptedReconciler("a"), make_service(conditions=(known,))) as rig:
        rig.queue.add("hello")
        await asyncio.sleep(1)
        assert (told(rig), rig.reconciler.touched) == ([], {"a"})
        for _ in range(2):
            await undo(rig)
        assert rig.reconciler.touched == set()
        await asyncio.sleep(WINDOW + 10)
        assert [kind for kind, _ in told(rig)] == ["calmed"]


async def test_starts_with_a_backoff_of_their_own_are_not_delayed_twice() -> None:
    async with running(ScriptedReconciler("a"), make_service()) as rig:
        await flap(rig)
        for _ in range(8):
            await asyncio.sleep(61)
            rig.reconciler.outcome = Outcome(Status.FALSE, Reason.PROGRESSING)
            await undo(rig)
            assert rig.reconciler.touched == {"a"}
            rig.reconciler.outcome = CONVERGED


async def test_nothing_is_written_again_for_a_service_that_flaps_and_rests() -> None:
    async with running(ScriptedReconciler("a"), make_service()) as rig:
        await flap(rig)
        reports = rig.registry.reports
        for _ in range(5):
            await asyncio.sleep(timedelta(seconds=20).total_seconds())
            rig.queue.add("hello")
        assert rig.registry.reports == reports
