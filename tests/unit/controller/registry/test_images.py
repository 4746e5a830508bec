"""Which images were brought, and when they were last in use, on both databases."""

from datetime import timedelta

from controller.registry import Registry
from reconcilers.base import PulledImage
from tests.unit.controller.registry.samples import NOON, SteppingClock


def brought(reference: str, image_id: str, hours: int = 0) -> PulledImage:
    at = NOON + timedelta(hours=hours)
    return PulledImage(reference, image_id, f"sha256:{image_id}", at, at)


async def test_the_image_brought_last_comes_first(registry):
    images = [brought("r.x/a:1", "one"), brought("r.x/a:1", "two", 2), brought("r.x/b:1", "one", 1)]
    for image in images:
        await registry.record_image(image)
    assert await registry.pulled_images() == (images[1], images[2], images[0])


async def test_to_bring_it_again_is_no_second_record(registry):
    await registry.record_image(brought("r.x/a:1", "one"))
    again = brought("r.x/a:1", "one", 1)
    await registry.record_image(again)
    assert await registry.pulled_images() == (again,)


async def test_what_is_in_use_is_noted_with_the_time_under_all_its_names(url):
    registry = await Registry.open(url, "rift", clock=(clock := SteppingClock()))
    for image in (brought("r.x/a:1", "one"), brought("r.x/b:1", "one"), brought("r.x/c:1", "two")):
        await registry.record_image(image)
    await registry.images_in_use({"one", "unknown"})
    used = {image.reference: image.used_at for image in await registry.pulled_images()}
    await registry.close()
    assert used == {"r.x/a:1": clock.now, "r.x/b:1": clock.now, "r.x/c:1": NOON}


async def test_what_is_gone_is_forgotten_and_nothing_else(registry, changes):
    for image in (brought("r.x/a:1", "one"), brought("r.x/b:1", "one"), brought("r.x/c:1", "two")):
        await registry.record_image(image)
    await registry.forget_images({"one"})
    assert [image.image_id for image in await registry.pulled_images()] == ["two"]
    assert await changes() == []


async def test_each_node_has_its_own(url, registry):
    await registry.record_image(brought("r.x/a:1", "one"))
    await registry.close()
    other = await Registry.open(url, "sea")
    await other.images_in_use({"one"})
    await other.forget_images({"one"})
    assert await other.pulled_images() == ()
    await other.close()
    again = await Registry.open(url, "rift")
    assert await again.pulled_images() == (brought("r.x/a:1", "one"),)
    await again.close()
