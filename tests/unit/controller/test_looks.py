"""Having everybody look: an answer in any case, and a true one."""

import asyncio

import pytest

from api.conditions import Reason
from controller.looks import Looks
from controller.metrics import Metrics
from controller.queue import WorkQueue
from reconcilers.base import Transient

pytestmark = pytest.mark.looptime


class Worked:
    """Two queues, the first of which is worked on at once and the second after a while."""

    def __init__(self) -> None:
        metrics = Metrics(["quick", "slow"])
        self.queues = {name: WorkQueue(metrics.reconciler(name).queue) for name in ("quick", "slow")}
        self.refreshed = 0
        self.blind = False
        self.hangs = False

    async def refresh(self) -> None:
        self.refreshed += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.blind:
            raise Transient(Reason.ENGINE_UNREACHABLE, "podman is away")

    async def work(self, name: str, seconds: float) -> None:
        item = await self.queues[name].get()
        assert self.refreshed
        await asyncio.sleep(seconds)
        self.queues[name].done(item.key)


@pytest.mark.parametrize("blind", [False, True])
async def test_the_answer_comes_when_all_have_looked(blind: bool) -> None:
    worked = Worked()
    worked.blind = blind
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worked.work("quick", 0))
        tasks.create_task(worked.work("slow", 5))
        began = asyncio.get_running_loop().time()
        assert await Looks(worked.queues, worked.refresh)("hello", 30) == ()
        assert asyncio.get_running_loop().time() - began == pytest.approx(5)


async def test_whoever_is_late_is_named_and_goes_on() -> None:
    worked = Worked()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worked.work("quick", 0))
        tasks.create_task(worked.work("slow", 50))
        assert await Looks(worked.queues, worked.refresh)("hello", 30) == ("slow",)


async def test_an_agent_that_stops_meanwhile_answers() -> None:
    worked = Worked()
    looking = asyncio.create_task(Looks(worked.queues, worked.refresh)("hello", 30))
    await asyncio.sleep(1)
    for queue in worked.queues.values():
        queue.shut_down()
    assert await looking == ("quick", "slow")


async def test_an_engine_that_hangs_does_not_keep_the_others_from_looking() -> None:
    worked = Worked()
    worked.hangs = True
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(worked.work("quick", 0))
        tasks.create_task(worked.work("slow", 50))
        assert await Looks(worked.queues, worked.refresh)("hello", 30) == ("slow",)
