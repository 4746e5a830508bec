"""Which images are removed: those that we brought and nobody needs, and no others."""

import asyncio
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta
from typing import cast

import looptime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import RegistryUnavailable
from api.resolve import Defaults
from api.service import Service
from reconcilers.base import PulledImage, Transient
from reconcilers.containers.engine.podman import Engine
from reconcilers.containers.engine.transport import EngineError, Failure
from reconcilers.containers.images.collection import CollectionSettings, Collector, Look, collectable
from reconcilers.containers.images.references import LocalImage
from reconcilers.containers.model import ContainerObservation, Observation
from reconcilers.containers.watching.picture import Picture
from tests.unit.reconcilers.containers.worlds import NOW, container, requests, shop, web

WEEK = CollectionSettings(keep_last=0)


def brought(reference: str, image_id: str = "", days: float = 30) -> PulledImage:
    """A record of an image that was used so many days ago."""
    at = NOW - timedelta(days=days)
    return PulledImage(reference, image_id or f"id-{reference}", "sha256:0", at, at)


def held(*names: str, image_id: str = "") -> LocalImage:
    """An image with these names."""
    return LocalImage(image_id or f"id-{names[0]}", names)


def look(
    records: Collection[PulledImage], images: Collection[LocalImage], *, running: str = "", wanted: str = ""
) -> Look:
    return Look(tuple(records), tuple(images), frozenset(running.split()), frozenset(wanted.split()))


def removed(seen: Look, settings: CollectionSettings = WEEK) -> list[str]:
    """The ids of what goes."""
    return [image.id for image in collectable(seen, settings, NOW)]


def test_what_was_brought_and_not_used_for_long_goes() -> None:
    assert removed(look([brought("r.x/a:1")], [held("r.x/a:1")])) == ["id-r.x/a:1"]


@pytest.mark.parametrize(
    "kept",
    [
        look([], [held("r.x/a:1")]),
        look([brought("r.x/a:1")], []),
        look([brought("r.x/a:1")], [held("r.x/a:1")], running="id-r.x/a:1"),
        look([brought("r.x/a:1")], [held("r.x/a:1")], wanted="r.x/a:1"),
        look([brought("r.x/a:1", days=6)], [held("r.x/a:1")]),
        look([brought("r.x/a:1")], [held("r.x/a:1", "localhost/mine:1")]),
        look([brought("r.x/a:1", "old"), brought("r.x/b:1", "old", 1)], [held("r.x/a:1", "r.x/b:1", image_id="old")]),
        look([brought("r.x/a@sha256:0", "x")], [LocalImage("x")], wanted="r.x/a@sha256:0"),
        look([brought("a:1", "x")], [held("docker.io/library/a:1", image_id="x")], wanted="a:1"),
        look([brought("r.x/a:1", "x")], [held("r.x/a:1", image_id="y")]),
    ],
    ids=[
        "somebody else's",
        "gone already",
        "a container's",
        "a definition's",
        "used of late",
        "named by somebody",
        "used by its other name",
        "a definition's by digest",
        "a definition's by its short name",
        "another image under the name",
    ],
)
def test_nothing_else_goes(kept: Look) -> None:
    assert removed(kept) == []


def test_what_a_tag_stood_for_goes_though_a_definition_wants_the_tag() -> None:
    records = [brought("r.x/a:1", "new", 1), brought("r.x/a:1", "old")]
    assert removed(look(records, [LocalImage("old"), held("r.x/a:1", image_id="new")], wanted="r.x/a:1")) == ["old"]


def test_the_last_of_each_repository_stay_for_a_rollback() -> None:
    records = [brought(f"r.x/{name}:{n}", days=40 - n) for name in "ab" for n in range(4)]
    images = [held(record.reference) for record in records]
    seen = look(records, images, running="id-r.x/a:3")
    assert removed(seen, CollectionSettings(keep_last=2)) == ["id-r.x/b:1", "id-r.x/a:0", "id-r.x/b:0"]


IDS = st.sampled_from(["i1", "i2", "i3"])
REFERENCES = st.sampled_from(["r.x/a:1", "r.x/a:2", "r.x/b:1", "c:1"])


@given(
    st.lists(st.builds(brought, REFERENCES, IDS, st.integers(0, 30)), max_size=8),
    st.dictionaries(IDS, st.lists(REFERENCES, max_size=2, unique=True)),
    st.sets(IDS),
    st.sets(REFERENCES),
    st.integers(0, 3),
)
def test_whatever_there_is_nothing_goes_that_is_needed(
    records: list[PulledImage], names: dict[str, list[str]], running: set[str], wanted: set[str], keep_last: int
) -> None:
    records.sort(key=lambda record: record.pulled_at, reverse=True)
    images = [LocalImage(image_id, tuple(names[image_id])) for image_id in names]
    gone = collectable(
        Look(records, images, frozenset(running), frozenset(wanted)), replace(WEEK, keep_last=keep_last), NOW
    )
    for image in gone:
        assert image.id not in running
        assert not set(image.names) & wanted
        times = [record.used_at for record in records if record.image_id == image.id]
        assert times
        assert max(times) < NOW - timedelta(days=7)
    assert not gone or not keep_last or len(gone) < len(images)


class World:
    """An engine, its picture and the records, each of which may be away."""

    def __init__(self) -> None:
        self.away = ""
        self.service: Service = shop()
        self.records = [brought("i:1"), brought("r.x/a:1"), brought("r.x/b:1"), brought("r.x/c:1")]
        self.held = [held("i:1"), held("r.x/a:1", "r.x/a:2"), held("r.x/b:1")]
        self.records.append(brought("r.x/a:2", "id-r.x/a:1"))
        self.used: set[str] = set()
        self.forgotten: set[str] = set()
        self.done: list[str] = []

    def check(self, part: str, error: Exception) -> None:
        if self.away == part:
            raise error

    async def services(self) -> tuple[Service, ...]:
        return (self.service,)

    async def pulled_images(self) -> tuple[PulledImage, ...]:
        self.check("registry", RegistryUnavailable("away"))
        return tuple(self.records)

    async def images_in_use(self, image_ids: Collection[str]) -> None:
        self.used |= set(image_ids)

    async def forget_images(self, image_ids: Collection[str]) -> None:
        self.forgotten |= set(image_ids)

    async def images(self) -> tuple[LocalImage, ...]:
        self.check("images", EngineError(Failure.GARBLED, "half"))
        return tuple(self.held)

    async def refresh(self) -> Observation:
        self.check("picture", Transient(reason=None, message="away"))  # type: ignore[arg-type]
        (request,) = requests(self.service).values()
        found: ContainerObservation = container(request, image_id="id-i:1")
        return Observation({found.id: found})

    async def untag(self, image_id: str, name: str) -> None:
        self.done.append(f"untag {name} of {image_id}")

    async def remove_image(self, image_id: str) -> None:
        self.check("use", EngineError(Failure.REFUSED, "image is in use by a container"))
        self.done.append(f"remove {image_id}")


@pytest.fixture
def world() -> World:
    return World()


def collector(world: World, clock: datetime = NOW) -> Collector:
    engine, picture = cast(Engine, world), cast(Picture, world)
    return Collector(engine, picture, world, Defaults(), CollectionSettings(keep_last=0, every=100), lambda: clock)


async def collect(world: World) -> None:
    """Lets one look happen."""
    task = asyncio.create_task(collector(world).run())
    await asyncio.sleep(125)
    task.cancel()


@pytest.mark.looptime
async def test_an_image_goes_with_all_its_names_and_its_records(world: World, looptime: looptime.LoopTimeProxy) -> None:
    await collect(world)
    assert world.done == ["untag r.x/a:2 of id-r.x/a:1", "remove id-r.x/a:1", "remove id-r.x/b:1"]
    assert world.used == {"id-i:1"}
    assert world.forgotten == {"id-r.x/a:1", "id-r.x/b:1", "id-r.x/c:1"}


@pytest.mark.looptime
@pytest.mark.parametrize("part", ["registry", "images", "picture"])
async def test_nothing_goes_while_anything_is_unknown(world: World, part: str) -> None:
    world.away = part
    await collect(world)
    assert (world.done, world.forgotten) == ([], set())


@pytest.mark.looptime
async def test_what_the_engine_keeps_is_not_forgotten(world: World) -> None:
    world.away = "use"
    await collect(world)
    assert world.forgotten == {"id-r.x/c:1"}


@pytest.mark.looptime
async def test_a_definition_that_cannot_be_resolved_still_wants_what_it_names(world: World) -> None:
    world.service = shop(web(image="r.x/b:1"), web(name="derived", image=None))
    await collect(world)
    assert "remove id-r.x/b:1" not in world.done
