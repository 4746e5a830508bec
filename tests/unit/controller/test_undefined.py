"""What runs and is not defined is said, once, and only of our own."""

import asyncio

import pytest
from structlog.testing import capture_logs

from api.conditions import Reason
from api.service import UndefinedService
from controller.registry import Registry
from controller.undefined import Undefined
from reconcilers.base import Transient
from reconcilers.containers.model import ContainerObservation, Observation
from reconcilers.containers.watching.picture import Listener
from tests.unit.controller.registry.samples import spec
from tests.unit.reconcilers.containers.worlds import NODE, container, requests, shop, stranger


class Shown:
    """A picture that shows what it is told to."""

    def __init__(self) -> None:
        self.observation: Observation | None = None
        self.listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        self.listeners.append(listener)

    def current(self) -> Observation:
        if self.observation is None:
            raise Transient(Reason.ENGINE_UNREACHABLE, "podman is away")
        return self.observation

    def show(self, *containers: ContainerObservation) -> None:
        before, self.observation = self.observation, Observation({one.id: one for one in containers})
        for listener in self.listeners:
            listener(before, self.observation)


async def test_only_our_own_of_services_that_nobody_defines_count(lite: Registry) -> None:
    picture = Shown()
    undefined = Undefined(NODE, lite, picture)
    assert undefined.beside(()) == ()
    web, db = requests(shop())["web"], requests(shop())["web"]
    picture.show(container(web, id="a"), container(db, id="b"), stranger("c", "c"))
    assert undefined.beside(()) == (UndefinedService(name="shop", containers=2),)
    await lite.apply(spec("shop"), actor="ann")
    assert undefined.beside(await lite.services()) == ()


@pytest.mark.parametrize("defined", [False, True])
async def test_each_is_logged_when_it_is_first_seen(lite: Registry, defined: bool) -> None:
    picture = Shown()
    undefined = Undefined(NODE, lite, picture)
    if defined:
        await lite.apply(spec("shop"), actor="ann")
    with capture_logs() as logs:
        running = asyncio.create_task(undefined.run())
        for _ in range(3):
            picture.show(container(requests(shop())["web"], id="a"))
            # It has asked the registry once this is answered.
            await asyncio.sleep(0)
            await lite.ping()
        running.cancel()
        await asyncio.wait([running])
    told = [line["services"] for line in logs if line["event"] == "containers_without_definition"]
    assert told == ([] if defined else [["shop"]])
