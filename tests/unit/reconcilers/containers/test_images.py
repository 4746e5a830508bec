"""When a registry is asked for an image, and what becomes of the answer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

import looptime
import pytest

from api.conditions import Reason
from api.resolve import Defaults
from api.spec import PullPolicy
from reconcilers.base import PulledImage, Terminal, Transient
from reconcilers.containers.engine.podman import Engine
from reconcilers.containers.engine.transport import EngineError, Failure
from reconcilers.containers.images.credentials import Access
from reconcilers.containers.images.presence import Images, ImageSettings
from reconcilers.containers.images.references import LocalImage
from reconcilers.containers.watching.picture import Picture
from tests.unit.reconcilers.containers.worlds import NOW

REFUSED = EngineError(Failure.REFUSED, "refused")
ALWAYS, MISSING, NEVER = PullPolicy.ALWAYS, PullPolicy.MISSING, PullPolicy.NEVER


class World:
    """An engine with a registry behind it, and whoever waits for images of it."""

    def __init__(self) -> None:
        self.stands_for: dict[str, str | EngineError] = {}
        """What each reference is in the registry."""
        self.held: dict[str, str] = {}
        self.asked: list[str] = []
        self.looks = 0
        self.tell: Callable[[], None] = lambda: None
        self.woken: list[str] = []
        self.unknown = False

    async def image(self, reference: str) -> LocalImage | None:
        self.looks += 1
        if self.unknown:
            raise EngineError(Failure.GARBLED, "half")
        return LocalImage(self.held[reference]) if reference in self.held else None

    async def pull(self, image: str, access: Access, said: Callable[[str], None], *, anew: bool) -> str:
        self.asked.append(image)
        answer = self.stands_for[image]
        if isinstance(answer, EngineError):
            raise answer
        self.held[image] = answer
        return answer

    async def record_image(self, image: PulledImage) -> None:
        """Nobody asks for it here."""

    async def pulled_images(self) -> tuple[PulledImage, ...]:
        """Nothing is collected here."""
        return ()

    def listen_to_images(self, listener: Callable[[], None]) -> None:
        self.tell = listener


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def images(world: World) -> AsyncIterator[Images]:
    engine, picture = cast(Engine, world), cast(Picture, world)
    images = Images(engine, picture, world, Defaults(), ImageSettings(), lambda: NOW, world.woken.append)
    running = asyncio.create_task(images.run())
    yield images
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def obtained(images: Images, policy: PullPolicy, reference: str = "i:1", service: str = "shop") -> str:
    """The id of the image, or what was said instead."""
    try:
        return (await images.obtain(service, reference, policy)).id
    except (Transient, Terminal) as failure:
        await asyncio.sleep(0.1)
        return f"{failure.reason}: {failure.message}"


PULLING = f"{Reason.PROGRESSING}: the image i:1 is being pulled"


@pytest.mark.parametrize("policy", [MISSING, PullPolicy.NEWER, ALWAYS])
async def test_what_is_missing_is_pulled(world: World, images: Images, policy: PullPolicy) -> None:
    world.stands_for["i:1"] = "abc"
    assert await obtained(images, policy) == PULLING
    assert world.woken == ["shop"]
    assert await obtained(images, policy) == "abc"


@pytest.mark.parametrize("policy", [MISSING, PullPolicy.NEWER, NEVER])
async def test_what_is_here_is_used_and_looked_at_once(world: World, images: Images, policy: PullPolicy) -> None:
    world.held["i:1"] = "abc"
    assert [await obtained(images, policy) for _ in range(3)] == ["abc"] * 3
    assert (world.asked, world.looks) == ([], 1)


async def test_what_happened_to_an_image_is_looked_at_again(world: World, images: Images) -> None:
    world.held["i:1"] = "abc"
    assert await obtained(images, MISSING) == "abc"
    world.held["i:1"] = "def"
    world.tell()
    assert await obtained(images, MISSING) == "def"


async def test_what_happens_during_the_look_takes_its_answer_with_it(world: World, images: Images) -> None:
    world.held["i:1"] = "abc"
    first = asyncio.create_task(images.obtain("shop", "i:1", MISSING))
    await asyncio.sleep(0)
    world.tell()
    await first
    assert await obtained(images, MISSING) == "abc"
    assert world.looks == 2


async def test_what_must_never_be_pulled_is_missed_aloud(world: World, images: Images) -> None:
    missing = f'{Reason.IMAGE_PULL_FAILED}: i:1 is not on the node, and its definition says pull = "never"'
    assert await obtained(images, NEVER) == missing
    assert world.asked == []


async def test_always_asks_once_for_each_container(world: World, images: Images) -> None:
    world.held["i:1"], world.stands_for["i:1"] = "abc", "def"
    for count in (1, 2):
        assert await obtained(images, ALWAYS) == PULLING
        assert [await obtained(images, ALWAYS), await obtained(images, ALWAYS)] == ["def", "def"]
        assert len(world.asked) == count
        images.used("shop", "i:1")


@pytest.mark.parametrize("failure", [Failure.REFUSED, Failure.GARBLED])
async def test_without_an_answer_what_is_here_is_used_each_time(world: World, images: Images, failure: Failure) -> None:
    world.held["i:1"], world.stands_for["i:1"] = "abc", EngineError(failure, "refused")
    for count in (1, 2):
        assert await obtained(images, ALWAYS) == PULLING
        assert [await obtained(images, ALWAYS), await obtained(images, ALWAYS)] == ["abc", "abc"]
        assert len(world.asked) == count
        images.used("shop", "i:1")
    assert world.woken == ["shop", "shop"]


async def test_a_registry_that_says_no_is_believed(world: World, images: Images) -> None:
    world.held["i:1"], world.stands_for["i:1"] = "abc", EngineError(Failure.DENIED, "no such tag")
    assert await obtained(images, ALWAYS) == PULLING
    assert await obtained(images, ALWAYS) == f"{Reason.IMAGE_PULL_FAILED}: i:1 cannot be pulled: no such tag"


async def test_an_engine_that_does_not_know_is_asked_again(world: World, images: Images) -> None:
    world.unknown = True
    assert await obtained(images, MISSING) == f"{Reason.ENGINE_ERROR}: half"


@pytest.mark.looptime
async def test_a_tag_is_asked_for_again_and_again_once_for_all_who_want_to_know(
    world: World, images: Images, looptime: looptime.LoopTimeProxy
) -> None:
    world.held["i:1"] = world.stands_for["i:1"] = "abc"
    for _ in range(10):
        images.want_newer("a", ["i:1"])
        images.want_newer("b", ["i:1"])
    await asyncio.sleep(3000)
    assert 8 <= len(world.asked) <= 12
    assert images.newest() == {"i:1": "abc"}
    world.woken.clear()
    world.stands_for["i:1"] = "def"
    await asyncio.sleep(370)
    assert images.newest() == {"i:1": "def"}
    assert sorted(world.woken) == ["a", "b"]


@pytest.mark.looptime
async def test_what_nobody_wants_to_know_any_more_is_not_asked(
    world: World, images: Images, looptime: looptime.LoopTimeProxy
) -> None:
    world.stands_for["i:1"] = world.stands_for["i:2"] = "abc"
    images.want_newer("a", ["i:1", "i:2"])
    images.want_newer("b", ["i:2"])
    await asyncio.sleep(400)
    assert images.newest() == {"i:1": "abc", "i:2": "abc"}
    images.want_newer("a", [])
    assert images.newest() == {"i:2": "abc"}
    world.asked.clear()
    await asyncio.sleep(1000)
    assert set(world.asked) == {"i:2"}
    images.want_newer("a", ["i:1"])
    await asyncio.sleep(400)
    assert images.newest() == {"i:1": "abc", "i:2": "abc"}


@pytest.mark.looptime
async def test_a_digest_is_not_asked_for(world: World, images: Images, looptime: looptime.LoopTimeProxy) -> None:
    images.want_newer("a", ["i@sha256:0"])
    await asyncio.sleep(1000)
    assert world.asked == []


@pytest.mark.looptime
async def test_a_registry_that_does_not_answer_leaves_what_is_known(
    world: World, images: Images, looptime: looptime.LoopTimeProxy
) -> None:
    world.stands_for["i:1"] = "abc"
    images.want_newer("a", ["i:1"])
    await asyncio.sleep(400)
    world.stands_for["i:1"] = REFUSED
    await asyncio.sleep(1000)
    assert images.newest() == {"i:1": "abc"}


@pytest.mark.looptime
async def test_what_a_container_is_made_of_is_no_drift(
    world: World, images: Images, looptime: looptime.LoopTimeProxy
) -> None:
    """Else an image that somebody tagged on the node would be replaced by itself for ever."""
    world.stands_for["i:1"] = "abc"
    images.want_newer("shop", ["i:1"])
    await asyncio.sleep(400)
    world.held["i:1"] = "mine"
    world.tell()
    assert await obtained(images, PullPolicy.NEWER) == "mine"
    assert images.newest() == {"i:1": "mine"}
