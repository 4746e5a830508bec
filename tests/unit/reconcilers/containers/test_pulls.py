"""Images are brought once each, and whoever misses one hears how that goes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from api.conditions import Reason
from reconcilers.base import Terminal, Transient
from reconcilers.containers.podman import Engine, EngineError, Failure
from reconcilers.containers.pulls import Pulls


class Registry:
    """Serves images when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: asyncio.Queue[str] = asyncio.Queue()

    async def pull(self, image: str) -> None:
        self.asked.append(image)
        problem = await self.answer.get()
        self.answer.task_done()
        if problem:
            raise EngineError(Failure.REFUSED, problem)


class Shop:
    def __init__(self) -> None:
        self.registry = Registry()
        self.woken: asyncio.Queue[str] = asyncio.Queue()
        self.pulls = Pulls(cast(Engine, self.registry), self.woken.put_nowait)

    def miss(self, service: str = "shop") -> str:
        """What a service is told that misses the image."""
        with pytest.raises((Transient, Terminal)) as told:
            self.pulls.miss("i:1", service)
        return f"{told.value.reason}: {told.value.message}"

    async def attempt(self, outcome: str) -> None:
        """Lets the attempt under way end like that."""
        self.registry.answer.put_nowait(outcome)
        async with asyncio.timeout(1):
            await self.registry.answer.join()

    def called(self) -> set[str]:
        """Who was woken since it was last asked."""
        return {self.woken.get_nowait() for _ in range(self.woken.qsize())}


@asynccontextmanager
async def open_shop() -> AsyncIterator[Shop]:
    shop = Shop()
    running = asyncio.create_task(shop.pulls.run())
    yield shop
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


ON_ITS_WAY = f"{Reason.PROGRESSING}: the image i:1 is being pulled"
FAILED = f"{Reason.IMAGE_PULL_FAILED}: i:1 cannot be pulled: refused"


async def test_all_who_miss_an_image_are_woken_when_it_is_there() -> None:
    async with open_shop() as shop:
        assert {shop.miss("a"), shop.miss("b"), shop.miss("a")} == {ON_ITS_WAY}
        await shop.attempt("")
        assert shop.registry.asked == ["i:1"]
        assert shop.called() == {"a", "b"}


async def test_a_failure_is_told_once_to_each_and_only_then_tried_again() -> None:
    async with open_shop() as shop:
        shop.miss("a")
        shop.miss("b")
        await shop.attempt("refused")
        assert shop.called() == {"a", "b"}
        assert (shop.miss("a"), shop.miss("b")) == (FAILED, FAILED)
        assert len(shop.registry.asked) == 1
        assert shop.miss("a") == FAILED
        await shop.attempt("refused")
        assert len(shop.registry.asked) == 2
        assert shop.called() == set()


async def test_another_reason_is_told_and_a_late_success_too() -> None:
    async with open_shop() as shop:
        shop.miss()
        await shop.attempt("refused")
        shop.miss()
        shop.miss()
        await shop.attempt("no such tag")
        assert shop.called() == {"shop"}
        assert shop.miss().endswith("no such tag")
        shop.miss()
        await shop.attempt("")
        assert shop.called() == {"shop"}
        assert shop.miss() == ON_ITS_WAY
