"""Containers that were taken over: written in one piece with their service, and gone with it."""

import pytest

from api.errors import StaleGeneration
from api.service import Finalizer, PortAllocation
from controller.registry import Adoption, Registry
from reconcilers.base import PortTaken
from tests.unit.controller.registry.samples import spec

LABELS = {"c1": {"net.metacircular.mcp.service": "web"}}
PORT = PortAllocation(component="web", route="default", port=10007)


async def test_a_service_is_adopted_in_one_piece_and_its_containers_go_with_it(registry: Registry) -> None:
    service = await registry.adopt(Adoption(spec("web"), (PORT,), LABELS), actor="kyle")
    assert (service.generation, service.actor, service.ports) == (1, "kyle", (PORT,))
    assert await registry.adopted_containers() == LABELS
    assert (await registry.revisions("web"))[-1].note == "adopted from what runs"
    await registry.request_deletion("web", actor="kyle")
    for finalizer in Finalizer:
        await registry.remove_finalizer("web", finalizer)
    assert await registry.adopted_containers() == {}


async def test_nothing_is_adopted_where_a_part_cannot_be(registry: Registry) -> None:
    await registry.apply(spec("other"), actor="kyle")
    await registry.allocate_port("other", "web", "default", 10007)
    with pytest.raises(PortTaken):
        await registry.adopt(Adoption(spec("web"), (PORT,), LABELS), actor="kyle")
    with pytest.raises(StaleGeneration):
        await registry.adopt(Adoption(spec("other"), (), LABELS), actor="kyle")
    assert await registry.service("web") is None
    assert await registry.adopted_containers() == {}
