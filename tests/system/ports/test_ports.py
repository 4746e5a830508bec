"""Host ports with a real database, real listeners, and several who want the same."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from api.conditions import Reason
from api.resolve import Defaults
from api.spec import ComponentSpec, RouteSpec, ServiceSpec
from controller.registry import Registry
from reconcilers.base import Terminal, Transient
from reconcilers.ports.linux import ephemeral_ports
from reconcilers.ports.reconciler import Ports, PortSettings
from tests.system.ports.conftest import connected_from, free_row, leave_in_time_wait, listening

pytestmark = pytest.mark.system

LOW = 21000


def ignored(service: str) -> None:
    """Nobody is to be woken."""


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    registry = await Registry.open(f"sqlite:///{tmp_path / 'registry.db'}", "rift")
    yield registry
    await registry.close()


async def apply(registry: Registry, name: str, routes: int = 1) -> None:
    specs = tuple(RouteSpec(name=f"r{i}", port=443, hostname=f"r{i}.{name}.test") for i in range(routes))
    component = ComponentSpec(name="web", image="i:1", routes=specs)
    await registry.apply(ServiceSpec(name=name, components=(component,)), actor="test")


async def converge(ports: Ports, registry: Registry, name: str) -> set[int]:
    """Plans and acts until nothing is left to do, as the driver does; returns the ports given."""
    while service := await registry.service(name):
        try:
            plan = await ports.plan(service)
            for action in plan.actions:
                await ports.execute(service, action)
        except Transient:
            continue
        if not plan.actions:
            return {port.port for port in service.ports}
    raise AssertionError(name)


async def test_many_services_at_once_get_all_of_a_narrow_range_and_none_twice(registry: Registry) -> None:
    names = [f"s{index}" for index in range(20)]
    for name in names:
        await apply(registry, name, routes=2)
    ports = Ports(registry, Defaults(), PortSettings(LOW, LOW + 39), ignored, lambda port: True)
    given = await asyncio.gather(*(converge(ports, registry, name) for name in names))
    assert set().union(*given) == set(range(LOW, LOW + 40))
    await apply(registry, "late")
    with pytest.raises(Terminal, match="no port is free"):
        await converge(ports, registry, "late")


async def test_a_port_that_somebody_listens_on_is_avoided_and_one_that_is_lost_is_replaced(registry: Registry) -> None:
    await apply(registry, "shop")
    low = free_row(2)
    ports = Ports(registry, Defaults(), PortSettings(low, low + 1), ignored)
    with listening(low):
        assert await converge(ports, registry, "shop") == {low + 1}
    await registry.contest_port("shop", "web", "r0", low + 1)
    assert await converge(ports, registry, "shop") == {low}


@pytest.mark.parametrize("stranger", [listening, connected_from])
async def test_while_a_stranger_has_the_last_port_none_is_left_and_then_it_is_given(
    registry: Registry, stranger: Callable[[int], AbstractContextManager[None]]
) -> None:
    low = free_row(1)
    ports = Ports(registry, Defaults(), PortSettings(low, low), ignored)
    await apply(registry, "shop")
    with stranger(low):
        await exhausted(ports, registry, "shop")
    assert await converge(ports, registry, "shop") == {low}
    await registry.contest_port("shop", "web", "r0", low)
    with stranger(low):
        await exhausted(ports, registry, "shop")
    leave_in_time_wait(low)
    await exhausted(ports, registry, "shop")


async def test_the_ports_of_the_kernels_own_connections_are_left_to_it(registry: Registry) -> None:
    names = [f"s{index}" for index in range(50)]
    ports = Ports(registry, Defaults(), PortSettings(), ignored)
    for name in names:
        await apply(registry, name, routes=2)
    given = [await converge(ports, registry, name) for name in names]
    assert len(set().union(*given)) == 100
    assert not set().union(*given) & set(ephemeral_ports())


async def test_a_row_of_ports_that_a_stranger_has_is_passed(registry: Registry) -> None:
    low = free_row(60)
    await apply(registry, "shop", routes=3)
    with ExitStack() as strangers:
        for port in range(low, low + 57):
            strangers.enter_context(listening(port))
        ports = Ports(registry, Defaults(), PortSettings(low, low + 59), ignored)
        assert await converge(ports, registry, "shop") == {low + 57, low + 58, low + 59}


async def exhausted(ports: Ports, registry: Registry, name: str) -> None:
    """Returns where no port is left for the service."""
    service = await registry.service(name)
    assert service is not None
    with pytest.raises(Terminal) as caught:
        await ports.plan(service)
    assert caught.value.reason is Reason.PORTS_EXHAUSTED
