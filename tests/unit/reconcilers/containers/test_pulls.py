"""Images are brought once each, and whoever misses one hears how that goes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import looptime
import pytest

from api.conditions import Reason
from api.errors import RegistryUnavailable
from reconcilers.base import PulledImage, Terminal, Transient
from reconcilers.containers.engine.podman import Engine
from reconcilers.containers.engine.transport import EngineError, Failure
from reconcilers.containers.images.credentials import Access, Credentials, Login
from reconcilers.containers.images.held import HeldImages
from reconcilers.containers.images.pulls import Pulls
from reconcilers.containers.images.references import LocalImage
from tests.unit.reconcilers.containers.worlds import NOW

REFUSED = EngineError(Failure.REFUSED, "refused")
DENIED = EngineError(Failure.DENIED, "unauthorized")


class World:
    """An engine, what it holds, and what is written down."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.held: dict[str, LocalImage] = {}
        self.said: Callable[[str], None] = lambda _: None
        self.answer: asyncio.Queue[EngineError | str] = asyncio.Queue()
        self.recorded: list[PulledImage] = []
        self.broken = False

    async def image(self, reference: str) -> LocalImage | None:
        return self.held.get(reference)

    def forget(self) -> None:
        """Nothing is remembered here."""

    async def pull(self, image: str, access: Access, said: Callable[[str], None], *, anew: bool) -> str:
        self.asked.append(f"{image} anew" if anew else image)
        self.said = said
        answer = await self.answer.get()
        self.answer.task_done()
        if isinstance(answer, EngineError):
            raise answer
        self.held[image] = LocalImage(answer, (image,), (f"{image.partition(':')[0]}@sha256:{answer}",))
        return answer

    async def record_image(self, image: PulledImage) -> None:
        if self.broken:
            raise RegistryUnavailable("away")
        self.recorded.append(image)


class Shop:
    def __init__(self, credentials: Credentials) -> None:
        self.world = World()
        self.woken: asyncio.Queue[str] = asyncio.Queue()
        engine, held = cast(Engine, self.world), cast(HeldImages, self.world)
        self.pulls = Pulls(engine, held, self.world, credentials, lambda: NOW, self.woken.put_nowait)

    def miss(self, service: str = "shop", *, held: bool = False) -> str:
        """What a service is told that misses the image."""
        with pytest.raises((Transient, Terminal)) as told:
            self.pulls.miss("i:1", service, held=held)
        return f"{told.value.reason}: {told.value.message}"

    async def attempt(self, outcome: EngineError | str) -> None:
        """Lets the attempt under way end like that."""
        self.world.answer.put_nowait(outcome)
        async with asyncio.timeout(1):
            await self.world.answer.join()
        await asyncio.sleep(0)

    def called(self) -> set[str]:
        """Who was woken since it was last asked."""
        return {self.woken.get_nowait() for _ in range(self.woken.qsize())}


@asynccontextmanager
async def open_shop(credentials: Credentials | None = None) -> AsyncIterator[Shop]:
    shop = Shop(credentials or Credentials({}))
    running = asyncio.create_task(shop.pulls.run())
    yield shop
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


ON_ITS_WAY = f"{Reason.PROGRESSING}: the image i:1 is being pulled"
FAILED = f"{Reason.IMAGE_PULL_FAILED}: i:1 cannot be pulled: refused"


async def test_all_who_miss_an_image_are_woken_when_it_is_there_and_it_is_written_down() -> None:
    async with open_shop() as shop:
        assert {shop.miss("a"), shop.miss("b"), shop.miss("a")} == {ON_ITS_WAY}
        await shop.attempt("abc")
        assert shop.world.asked == ["i:1"]
        assert shop.called() == {"a", "b"}
        assert shop.world.recorded == [PulledImage("i:1", "abc", "sha256:abc", NOW, NOW)]


async def test_a_failure_is_told_once_to_each_and_only_then_tried_again() -> None:
    async with open_shop() as shop:
        shop.miss("a")
        shop.miss("b")
        await shop.attempt(REFUSED)
        assert shop.called() == {"a", "b"}
        assert (shop.miss("a"), shop.miss("b")) == (FAILED, FAILED)
        assert len(shop.world.asked) == 1
        assert shop.miss("a") == FAILED
        await shop.attempt(REFUSED)
        assert len(shop.world.asked) == 2
        assert shop.called() == set()


async def test_another_reason_is_told_and_a_late_success_too() -> None:
    async with open_shop() as shop:
        shop.miss()
        await shop.attempt(REFUSED)
        shop.miss()
        shop.miss()
        await shop.attempt(EngineError(Failure.DENIED, "no such tag"))
        assert shop.called() == {"shop"}
        assert shop.miss().endswith("no such tag")
        shop.miss()
        await shop.attempt("abc")
        assert shop.called() == {"shop"}
        assert shop.miss() == ON_ITS_WAY


async def test_what_was_here_before_is_not_ours() -> None:
    async with open_shop() as shop:
        shop.world.held["i:1"] = LocalImage("abc")
        shop.miss(held=True)
        await shop.attempt("abc")
        assert shop.world.asked == ["i:1 anew"]
        assert shop.world.recorded == []
        shop.miss(held=True)
        await shop.attempt("def")
        assert [image.image_id for image in shop.world.recorded] == ["def"]


async def test_an_image_that_cannot_be_written_down_is_there_all_the_same() -> None:
    async with open_shop() as shop:
        shop.world.broken = True
        shop.miss()
        await shop.attempt("abc")
        assert shop.called() == {"shop"}


async def test_each_silence_of_a_registry_lets_the_service_make_do_with_what_it_has() -> None:
    async with open_shop() as shop:
        for _ in range(2):
            assert shop.miss(held=True) == ON_ITS_WAY
            await shop.attempt(REFUSED)
            assert shop.called() == {"shop"}
            assert shop.pulls.settle_without("i:1", "shop") == "refused"
            assert shop.pulls.settled("i:1", "shop")
            assert shop.pulls.settle_without("i:1", "shop") == ""
            shop.pulls.spend("i:1", "shop")
            assert not shop.pulls.settled("i:1", "shop")


async def test_a_no_of_the_registry_is_a_no_even_where_an_image_is_held() -> None:
    async with open_shop() as shop:
        shop.miss(held=True)
        await shop.attempt(DENIED)
        assert shop.pulls.settle_without("i:1", "shop") == ""
        assert shop.miss(held=True).startswith(Reason.IMAGE_PULL_FAILED)
        assert shop.miss(held=True).startswith(Reason.IMAGE_PULL_FAILED)


async def test_a_password_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "token"
    async with open_shop(Credentials({"reg:5000": Login("ann", str(missing))})) as shop:
        with pytest.raises(Transient):
            shop.pulls.miss("reg:5000/i:1", "shop")
        async with asyncio.timeout(1):
            assert await shop.woken.get() == "shop"
        with pytest.raises(Terminal) as told:
            shop.pulls.miss("reg:5000/i:1", "shop")
    problem = f'{missing}, named by registries."reg:5000".password_file, cannot be read: No such file or directory'
    assert told.value.message == f"reg:5000/i:1 cannot be pulled: {problem}"


@pytest.mark.looptime
async def test_how_far_a_pull_is_is_told_twice_a_second_and_to_who_waits(looptime: looptime.LoopTimeProxy) -> None:
    async with open_shop() as shop:
        shop.miss()
        await asyncio.sleep(0.01)
        for line in ("Trying to pull i:1...", "Getting image source signatures", "Copying blob sha256:1"):
            shop.world.said(line)
        assert shop.called() == set()
        assert await shop.woken.get() == "shop"
        assert looptime == pytest.approx(0.51)
        with pytest.raises(Transient) as told:
            shop.pulls.check("i:1", "shop")
        assert told.value.message == "the image i:1 is being pulled: 1 layer begun"
        shop.world.said("Copying blob sha256:2")
        assert shop.miss().endswith(": 2 layers begun")
        shop.world.said("Copying config sha256:3")
        assert await shop.woken.get() == "shop"
        assert looptime == pytest.approx(1.01)
        assert shop.miss().endswith(": all layers are here")
        await shop.attempt("abc")
        assert shop.called() == {"shop"}
        shop.pulls.check("i:1", "shop")


@pytest.mark.looptime
async def test_a_registry_that_hangs_holds_up_its_own_images_only() -> None:
    async with open_shop() as shop:
        wanted = [f"slow/i:{n}" for n in range(6)] + [f"slow.example/i:{n}" for n in range(6)] + ["quick.example/i:1"]
        for image in wanted:
            with pytest.raises(Transient):
                shop.pulls.miss(image, "shop")
        await asyncio.sleep(1)
        assert [image for image in shop.world.asked if image.startswith("slow.example")] == wanted[6:10]
        assert "quick.example/i:1" in shop.world.asked
