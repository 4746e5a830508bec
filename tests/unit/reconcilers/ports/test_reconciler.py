"""The ports reconciler against real sockets and a registry."""

import socket

import pytest

from api.conditions import Reason
from api.resolve import Defaults
from api.service import Finalizer, Service
from api.spec import ComponentSpec, RouteSpec, ServiceSpec
from reconcilers.base import Terminal, Transient
from reconcilers.ports.linux import ephemeral_ports, is_bindable
from reconcilers.ports.plan import Allocate
from reconcilers.ports.reconciler import Ports, PortSettings
from tests.unit.reconcilers.memory import MemoryRegistry, newborn


def spec(name: str = "shop", image: str = "i:1") -> ServiceSpec:
    component = ComponentSpec(name="web", image=image, routes=(RouteSpec(port=443),))
    return ServiceSpec(name=name, components=(component,))


def everything_is_free(port: int) -> bool:
    return True


def ignored(service: str) -> None:
    """Nobody is to be woken."""


async def converge(ports: Ports, registry: MemoryRegistry, name: str) -> Service:
    for action in (await ports.plan(registry[name])).actions:
        await ports.execute(registry[name], action)
    assert (await ports.plan(registry[name])).actions == ()
    return registry[name]


async def test_the_port_of_a_foreign_listener_is_not_given() -> None:
    # Where the kernel takes no ports from for connections, which may be anybody's at any moment.
    low = next(port for port in range(15000, 32000, 2) if is_bindable(port) and is_bindable(port + 1))
    for foreign, given in ((low, low + 1), (low + 1, low)):
        with socket.create_server(("127.0.0.1", foreign)):
            registry = MemoryRegistry(newborn(spec()))
            ports = Ports(registry, Defaults(), PortSettings(low, low + 1), ignored)
            assert [port.port for port in (await converge(ports, registry, "shop")).ports] == [given]


async def test_two_services_never_get_the_same_port() -> None:
    registry = MemoryRegistry(newborn(spec("a")), newborn(spec("b")))
    ports = Ports(registry, Defaults(), PortSettings(20000, 20001), ignored, everything_is_free)
    first, second = [(await converge(ports, registry, name)).ports[0].port for name in ("a", "b")]
    assert {first, second} == {20000, 20001}


async def test_losing_a_port_to_another_service_means_choosing_again_at_once() -> None:
    registry = MemoryRegistry(newborn(spec("a")), newborn(spec("b")))
    ports = Ports(registry, Defaults(), PortSettings(20000, 20001), ignored, everything_is_free)
    (action,) = (await ports.plan(registry["a"])).actions
    assert isinstance(action, Allocate)
    await registry.allocate_port("b", "web", "default", action.port)
    with pytest.raises(Transient) as caught:
        await ports.execute(registry["a"], action)
    assert caught.value.delay is not None
    await converge(ports, registry, "a")


async def test_a_contested_port_moves() -> None:
    registry = MemoryRegistry(newborn(spec()))
    ports = Ports(registry, Defaults(), PortSettings(), ignored, everything_is_free)
    before = (await converge(ports, registry, "shop")).ports[0].port
    await registry.contest_port("shop", "web", "default", before)
    (after,) = (await converge(ports, registry, "shop")).ports
    assert after.port != before
    assert not after.contested


async def test_no_fixed_port_of_any_service_is_given() -> None:
    web = ComponentSpec(name="web", image="i:1", ports=("10.0.0.1:20000:80/udp",))
    registry = MemoryRegistry(newborn(spec("a")), newborn(ServiceSpec(name="b", components=(web,))))
    ports = Ports(registry, Defaults(), PortSettings(20000, 20001), ignored, everything_is_free)
    assert (await converge(ports, registry, "a")).ports[0].port == 20001


async def test_who_waits_for_a_port_is_woken_when_one_is_given_back() -> None:
    registry = MemoryRegistry(newborn(spec("a")), newborn(spec("b")), newborn(spec("c")))
    woken: list[str] = []
    ports = Ports(registry, Defaults(), PortSettings(20000, 20000), woken.append, everything_is_free)
    await converge(ports, registry, "a")
    for name in ("b", "c", "c"):
        with pytest.raises(Terminal) as caught:
            await ports.plan(registry[name])
        assert caught.value.reason is Reason.PORTS_EXHAUSTED
    assert woken == []
    registry.update("a", deletion_requested_at=registry["a"].created_at, finalizers=(Finalizer.PORTS,))
    await converge(ports, registry, "a")
    assert sorted(woken) == ["b", "c"]
    await converge(ports, registry, "b")
    assert sorted(woken) == ["b", "c"]


async def test_a_service_that_has_its_ports_asks_nobody_for_more() -> None:
    registry = MemoryRegistry(newborn(spec()))
    ports = Ports(registry, Defaults(), PortSettings(20000, 20000), ignored, everything_is_free)
    await converge(ports, registry, "shop")

    def never(port: int) -> bool:
        raise AssertionError

    assert (await Ports(registry, Defaults(), PortSettings(1, 0), ignored, never).plan(registry["shop"])).actions == ()


async def test_a_long_row_of_ports_that_somebody_has_is_passed_in_few_rounds() -> None:
    asked: list[int] = []

    def from_50000_on(port: int) -> bool:
        asked.append(port)
        return port >= 50000

    registry = MemoryRegistry(newborn(spec()))
    ports = Ports(registry, Defaults(), PortSettings(48000, 50010), ignored, from_50000_on)
    (allocation,) = (await converge(ports, registry, "shop")).ports
    assert allocation.port >= 50000
    assert len(asked) < 2 * 2011


async def test_a_whole_range_that_somebody_has_is_a_condition() -> None:
    registry = MemoryRegistry(newborn(spec()))
    with pytest.raises(Terminal) as caught:
        await Ports(registry, Defaults(), PortSettings(), ignored, lambda port: False).plan(registry["shop"])
    assert caught.value.reason is Reason.PORTS_EXHAUSTED


async def test_ports_that_cannot_be_seen_are_not_taken_for_free() -> None:
    def unknowable(port: int) -> bool:
        raise PermissionError(13, "Permission denied")

    registry = MemoryRegistry(newborn(spec()))
    with pytest.raises(Transient, match="cannot see which ports are in use"):
        await Ports(registry, Defaults(), PortSettings(), ignored, unknowable).plan(registry["shop"])


async def test_a_definition_that_this_node_cannot_resolve_is_the_operators_to_mend() -> None:
    registry = MemoryRegistry(newborn(spec(image="i:latest")))
    with pytest.raises(Terminal) as caught:
        await Ports(registry, Defaults(), PortSettings(), ignored).plan(registry["shop"])
    assert caught.value.reason is Reason.INVALID_SPEC


async def test_a_dry_run_sees_the_port_that_would_be_given() -> None:
    registry = MemoryRegistry(newborn(spec()))
    ports = Ports(registry, Defaults(), PortSettings(20000, 20000), ignored, everything_is_free)
    assumed = ports.assume(registry["shop"], (await ports.plan(registry["shop"])).actions)
    assert assumed.ports[0].port == 20000
    assert registry["shop"].ports == ()


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_listeners_on_any_address_and_connections_take_their_ports(address: str) -> None:
    with socket.create_server((address, 0)) as listener, socket.socket() as client:
        client.connect(listener.getsockname())
        assert not is_bindable(listener.getsockname()[1])
        assert not is_bindable(client.getsockname()[1])


def test_asking_for_a_port_does_not_take_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert is_bindable(port)
    assert is_bindable(port)


def test_the_ephemeral_range_is_the_kernels() -> None:
    assert len(ephemeral_ports()) > 0


async def test_a_deleted_service_gives_its_port_back() -> None:
    registry = MemoryRegistry(newborn(spec()))
    ports = Ports(registry, Defaults(), PortSettings(20000, 20000), ignored, everything_is_free)
    await converge(ports, registry, "shop")
    registry.update("shop", deletion_requested_at=registry["shop"].created_at, finalizers=(Finalizer.PORTS,))
    assumed = ports.assume(registry["shop"], (await ports.plan(registry["shop"])).actions)
    assert assumed.ports == ()
    assert (await converge(ports, registry, "shop")).ports == ()
