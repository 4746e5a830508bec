"""The picture follows the engine whatever is told, in whatever order; what is unknown is never empty."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.conditions import Reason
from api.service import ContainerState
from reconcilers.base import Transient
from reconcilers.containers.engine.podman import Engine
from reconcilers.containers.engine.transport import EngineError, Failure
from reconcilers.containers.model import ContainerObservation, Observation
from reconcilers.containers.watching.picture import Picture, PictureSettings
from tests.unit.reconcilers.containers.conftest import Starter
from tests.unit.reconcilers.containers.engine import GONE, MemoryEngine
from tests.unit.reconcilers.containers.worlds import NODE, container, requests, shop, stranger


def ours(container_id: str, state: ContainerState = ContainerState.CREATED, pid: int = 0) -> ContainerObservation:
    return container(requests(shop())["web"], state, id=container_id, name=container_id, pid=pid)


class Seen:
    """A picture that runs, and all that it told."""

    def __init__(self, engine: MemoryEngine, picture: Picture) -> None:
        self.engine = engine
        self.picture = picture
        self.told: list[tuple[Observation | None, Observation | None]] = []
        self._news = asyncio.Event()
        picture.listen(self._hear)

    def _hear(self, before: Observation | None, after: Observation | None) -> None:
        self.told.append((before, after))
        self._news.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not holds():
                self._news.clear()
                await self._news.wait()

    def shows(self) -> bool:
        """Whether the picture is what the engine has."""
        try:
            return dict(self.picture.current().containers) == self.engine.containers
        except Transient:
            return False


@asynccontextmanager
async def watching(engine: MemoryEngine, **timing: float) -> AsyncIterator[Seen]:
    pace = PictureSettings(**{"relist": 60.0, "reconnect": 0.02, **timing})
    seen = Seen(engine, Picture(cast(Engine, engine), NODE, pace))
    running = asyncio.create_task(seen.picture.run())
    try:
        await seen.until(lambda: bool(seen.told) or engine.failure is not None)
        yield seen
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_what_happens_to_an_image_is_passed_on_and_costs_no_listing() -> None:
    engine, heard = MemoryEngine(ours("a")), asyncio.Queue[str]()
    async with watching(engine) as seen:
        seen.picture.listen_to_images(lambda: heard.put_nowait("something"))
        listings = len(engine.lists)
        engine.tell("sha256:0", "pull", of_image=True)
        async with asyncio.timeout(1):
            await heard.get()
        assert len(engine.lists) == listings
        engine.break_off()
        # What happened while nobody listened may have been anything.
        async with asyncio.timeout(1):
            await heard.get()


async def test_before_the_first_listing_it_is_unknown() -> None:
    picture = Picture(cast(Engine, MemoryEngine()), NODE, PictureSettings())
    with pytest.raises(Transient) as unknown:
        picture.current()
    assert unknown.value.reason is Reason.ENGINE_UNREACHABLE


async def test_an_event_has_only_its_container_listed() -> None:
    async with watching(MemoryEngine(ours("a"), stranger("b", "b"))) as seen:
        seen.engine.put(ours("a", ContainerState.EXITED))
        seen.engine.tell("a")
        await seen.until(seen.shows)
        assert seen.engine.lists == [None, frozenset({"a"})]


async def test_a_removal_is_seen_too() -> None:
    async with watching(MemoryEngine(ours("a"), ours("b"))) as seen:
        del seen.engine.containers["a"]
        seen.engine.tell("a", "remove")
        await seen.until(seen.shows)


async def test_what_nobody_told_is_seen_by_the_next_relisting() -> None:
    async with watching(MemoryEngine(ours("a")), relist=0.01) as seen:
        seen.engine.put(ours("b"))
        await seen.until(seen.shows)


async def test_one_listing_at_a_time_and_one_more_for_all_that_is_asked_meanwhile() -> None:
    async with watching(MemoryEngine(ours("a"), ours("b"))) as seen:
        await asyncio.gather(*(seen.picture.refresh(one) for one in "abababab"))
        assert seen.engine.most_at_once == 1
        assert len(seen.engine.lists) == 2


async def test_no_change_tells_nobody() -> None:
    async with watching(MemoryEngine(ours("a"))) as seen:
        await seen.picture.refresh()
        assert len(seen.told) == 1


@pytest.mark.parametrize("failure", [GONE, EngineError(Failure.REFUSED, "database is locked")])
async def test_a_listing_that_fails_makes_it_unknown_until_one_works(failure: Exception) -> None:
    engine = MemoryEngine(ours("a"))
    async with watching(engine) as seen:
        engine.failure = failure
        with pytest.raises(Transient):
            await seen.picture.refresh()
        assert seen.told[-1][1] is None
        engine.failure = None
        await seen.until(seen.shows)
        assert seen.told[-1] == (None, seen.picture.current())


async def test_an_event_stream_that_breaks_is_opened_again_and_everything_listed() -> None:
    async with watching(MemoryEngine(ours("a"))) as seen:
        seen.engine.put(ours("b"))
        seen.engine.break_off()
        await seen.until(seen.shows)


async def test_an_engine_that_comes_late_is_found() -> None:
    engine = MemoryEngine(ours("a"))
    engine.failure = GONE
    async with watching(engine) as seen:
        engine.failure = None
        await seen.until(seen.shows)


async def test_a_death_is_seen_before_the_engine_tells_of_it(start: Starter) -> None:
    """The listing lags behind: it is repeated until it shows the death."""
    process = start()
    engine = MemoryEngine(ours("a", ContainerState.RUNNING, process.pid))
    engine.after_listings[4] = ours("a", ContainerState.EXITED)
    async with watching(engine) as seen:
        process.kill()
        await seen.until(lambda: seen.picture.current().containers["a"].state is ContainerState.EXITED)
    assert engine.lists == [None, *[frozenset({"a"})] * 4]


@pytest.mark.looptime
async def test_an_engine_that_never_learns_of_a_death_is_not_asked_for_ever(start: Starter) -> None:
    process = start()
    process.kill()
    process.wait()
    engine = MemoryEngine(ours("a", ContainerState.RUNNING, process.pid))
    async with watching(engine, relist=1000.0):
        await asyncio.sleep(100)
    assert len(engine.lists) < 15


changes = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.sampled_from([ContainerState.CREATED, ContainerState.EXITED, ContainerState.PAUSED, None]),
    ),
    max_size=12,
)


@given(changes, st.randoms(use_true_random=False), st.data())
@settings(max_examples=50, deadline=None)
def test_any_order_of_events_ends_in_the_same_picture(story: list[Any], chance: Any, data: st.DataObject) -> None:
    """Late, early, twice or in disorder: each change is told at least once after it happened."""

    async def play() -> None:
        async with watching(MemoryEngine(ours("a"), stranger("b", "b"))) as seen:
            owed: list[str] = []
            for name, state in story:
                if state is None:
                    seen.engine.containers.pop(name, None)
                else:
                    seen.engine.put(replace(ours(name), state=state))
                owed += [name] * data.draw(st.integers(1, 2))
                chance.shuffle(owed)
                for _ in range(data.draw(st.integers(0, len(owed)))):
                    # Told now, and told again at the end: an event that overtakes its cause must not hide it.
                    seen.engine.tell(owed[0])
                    owed.append(owed.pop(0))
                if data.draw(st.booleans()):
                    await asyncio.sleep(0.001)
            for name in owed:
                seen.engine.tell(name)
            await seen.until(seen.shows)

    asyncio.run(play())
