"""Host ports with a real database, real listeners, and several who want the same."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.resolve import Defaults
from api.spec import ComponentSpec, RouteSpec, ServiceSpec
from controller.registry import Registry
from reconcilers.base import Terminal, Transient
from reconcilers.ports.reconciler import Ports, PortSettings

pytestmark = pytest.mark.system

LOW = 21000


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
    ports = Ports(registry, Defaults(), PortSettings(LOW, LOW + 39), lambda name: None, lambda port: True)
    given = await asyncio.gather(*(converge(ports, registry, name) for name in names))
    assert set().union(*given) == set(range(LOW, LOW + 40))
    await apply(registry, "late")
    with pytest.raises(Terminal, match="no port is free"):
        await converge(ports, registry, "late")


async def test_a_port_that_somebody_listens_on_is_avoided_and_one_that_is_lost_is_replaced(registry: Registry) -> None:
    await apply(registry, "shop")
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken = stranger.getsockname()[1]
        ports = Ports(registry, Defaults(), PortSettings(taken, taken + 1), lambda name: None)
        (given,) = await converge(ports, registry, "shop")
        assert given == taken + 1
    await registry.contest_port("shop", "web", "r0", given)
    assert await converge(ports, registry, "shop") == {taken}
