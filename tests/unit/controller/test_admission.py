"""Whether a definition is taken beside those that are there: fixed ports, and who waits for whom."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import permutations

import hypothesis
import pytest
from hypothesis import strategies as st

from api.errors import InvalidSpec
from api.fields import PortMapping
from api.resolve import Defaults
from api.service import PortAllocation
from api.spec import ServiceSpec, find_cycle
from controller.admission import Admission, overlap
from controller.registry import Registry
from tests.unit.reconcilers.memory import MemoryRegistry, newborn


def service(name: str, *ports: str, depends_on: tuple[str, ...] = (), **components: list[str]) -> ServiceSpec:
    """A service whose component `web` has these fixed ports; more components with theirs by keyword."""
    parts = [{"name": part, "image": "x:1", "ports": mapped} for part, mapped in {"web": ports, **components}.items()]
    return ServiceSpec.model_validate({"name": name, "components": parts, "depends_on": depends_on})


class Neighbourhood(MemoryRegistry):
    """Other services in memory, and the admission that looks at them."""

    def __init__(self, *specs: ServiceSpec) -> None:
        super().__init__(*map(newborn, specs))
        self.admission = Admission("rift", Defaults(), self)

    async def service(self, name: str) -> object:
        return self.services.get(name)

    async def port_holders(self, among: object) -> dict[int, str]:
        return {port.port: one.name for one in self.services.values() for port in one.ports}

    async def refusal(self, spec: ServiceSpec) -> tuple[str, str] | None:
        """The field and the message with which the definition is refused; None where it is taken."""
        try:
            await self.admission.admit(spec)
        except InvalidSpec as refused:
            return refused.field, refused.message
        self.services[spec.name] = newborn(spec)
        return None


# Fixed ports


async def test_a_fixed_port_of_another_service_is_refused_with_its_name() -> None:
    node = Neighbourhood(service("shop", "8080:80", db=["127.0.0.1:5432:5432"]))
    assert await node.refusal(service("blog", "9000:80", api=["9001:1", "5432:5432"])) == (
        "components[1].ports[1]",
        'port 5432/tcp on 127.0.0.1 is that of component "db" of service "shop": choose another port or address',
    )
    assert await node.refusal(service("blog", "8080")) == (
        "components[0].ports[0]",
        'port 8080/tcp on every address is that of component "web" of service "shop": choose another port or address',
    )


async def test_two_components_of_one_service_cannot_share_a_port() -> None:
    assert await Neighbourhood().refusal(service("shop", "8080:80", db=["10.0.0.1:8080:81"])) == (
        "components[1].ports[0]",
        'port 8080/tcp on every address is that of component "web" of this service: choose another port or address',
    )


async def test_a_service_is_not_in_its_own_way() -> None:
    node = Neighbourhood(service("shop", "8080:80"))
    assert await node.refusal(service("shop", "8080:81", "8081:80")) is None


async def test_what_is_no_address_is_refused() -> None:
    assert await Neighbourhood().refusal(service("shop", "300.0.0.1:8080:80")) == (
        "components[0].ports[0]",
        '"300.0.0.1" is no address',
    )


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("8080:80", "8080:81", True),
        ("8080:80", "0.0.0.0:8080:80", True),
        ("8080:80", "127.0.0.1:8080:80", True),
        ("0.0.0.0:8080:80", "10.0.0.1:8080:80", True),
        ("127.0.0.1:8080:80", "127.0.0.1:8080:80", True),
        ("127.0.0.1:8080:80", "10.0.0.1:8080:80", False),
        ("127.0.0.1:8080:80", "127.0.0.2:8080:80", False),
        ("[::]:8080:80", "[::1]:8080:80", True),
        ("[::1]:8080:80", "[0:0:0:0:0:0:0:1]:8080:80", True),
        ("[::1]:8080:80", "[fd00::1]:8080:80", False),
        ("[::ffff:7f00:1]:8080:80", "127.0.0.1:8080:80", True),
        ("8080:80", "[::]:8080:80", False),
        ("0.0.0.0:8080:80", "[::1]:8080:80", False),
        ("8080:80", "8080:80/udp", False),
        ("8080:80/udp", "8080:81/udp", True),
        ("8080:80", "8081:80", False),
        ("8080", "80:8080", False),
    ],
)
async def test_ports_clash_where_the_engine_could_not_publish_both(one: str, other: str, clash: bool) -> None:
    for first, second in permutations((one, other)):
        assert overlap(PortMapping.parse(first), PortMapping.parse(second)) is clash
        refused = await Neighbourhood(service("shop", first)).refusal(service("blog", second))
        assert (refused is not None) is clash
        within = await Neighbourhood().refusal(service("shop", first, second))
        assert (within is not None) is clash


@pytest.mark.parametrize(
    ("port", "refused"), [("20001:80", True), ("127.0.0.1:20001:80", True), ("10.0.0.1:20001:80", False)]
)
async def test_a_port_of_another_services_route_is_refused_with_its_name(port: str, refused: bool) -> None:
    node = Neighbourhood(service("shop"))
    node.update("shop", ports=(PortAllocation(component="web", route="default", port=20001),))
    message = (
        'port 20001 is given to a route of service "shop": '
        "choose one outside the range of [ports] in the agent's settings"
    )
    expected = ("components[0].ports[0]", message) if refused else None
    assert await node.refusal(service("blog", port)) == expected
    assert await node.refusal(service("blog", "20001:80/udp")) is None


async def test_a_services_own_route_makes_way_for_its_fixed_port() -> None:
    node = Neighbourhood(service("shop"))
    node.update("shop", ports=(PortAllocation(component="web", route="default", port=20001),))
    assert await node.refusal(service("shop", "20001:80")) is None


# Who waits for whom


async def test_a_circle_of_services_is_refused_and_named() -> None:
    node = Neighbourhood(service("a", depends_on=("b",)), service("b", depends_on=("c", "x")))
    assert await node.refusal(service("c", depends_on=("y", "a"))) == (
        "depends_on",
        "services would wait for each other in a circle: c -> a -> b -> c",
    )


async def test_a_service_may_depend_on_one_that_is_still_to_come() -> None:
    node = Neighbourhood()
    assert await node.refusal(service("a", depends_on=("later",))) is None
    assert await node.refusal(service("later")) is None
    refused = await node.refusal(service("later", depends_on=("a",)))
    assert refused == ("depends_on", "services would wait for each other in a circle: later -> a -> later")


async def test_several_ways_to_one_service_are_no_circle() -> None:
    node = Neighbourhood(service("b", depends_on=("d",)), service("c", depends_on=("d",)), service("d"))
    assert await node.refusal(service("a", depends_on=("b", "c"))) is None


async def test_what_is_being_deleted_waits_for_nobody() -> None:
    node = Neighbourhood(service("a", depends_on=("b",)))
    node.update("a", deletion_requested_at=datetime.now(UTC))
    assert await node.refusal(service("b", depends_on=("a",))) is None


async def test_a_circle_of_others_is_not_this_services_fault() -> None:
    node = Neighbourhood(service("a", depends_on=("b",)), service("b", depends_on=("a",)))
    assert await node.refusal(service("c", depends_on=("a",))) is None


NAMES = st.sampled_from(["a", "b", "c", "d", "e"])


@hypothesis.given(st.lists(st.tuples(NAMES, st.frozensets(NAMES, max_size=3)), max_size=12))
def test_whatever_is_applied_no_circle_comes_to_be(wishes: list[tuple[str, frozenset[str]]]) -> None:
    node = Neighbourhood()
    for name, needed in wishes:
        wish = service(name, depends_on=tuple(sorted(needed - {name})))
        before = {known: one.spec.depends_on for known, one in node.services.items()}
        refused = asyncio.run(node.refusal(wish))
        assert bool(find_cycle({**before, name: wish.depends_on})) is (refused is not None)


PORTS = st.sampled_from(
    [
        f"{host}{port}:80{protocol}"
        for host in ("", "127.0.0.1:", "[::]:")
        for port in (1, 2)
        for protocol in ("", "/udp")
    ]
)


@hypothesis.given(st.lists(st.tuples(NAMES, st.lists(PORTS, unique=True, max_size=3)), max_size=8))
def test_whatever_is_applied_no_two_want_one_port(wishes: list[tuple[str, list[str]]]) -> None:
    node = Neighbourhood()
    for name, ports in wishes:
        asyncio.run(node.refusal(service(name, *ports)))
    held = asyncio.run(node.fixed_ports({1, 2}))
    assert not any(overlap(one.mapping, other.mapping) for one, other in permutations(held, 2))


# What it costs


async def test_others_are_asked_only_where_a_definition_could_be_in_their_way(lite: Registry) -> None:
    class Silent:
        service = lite.service

        async def never(self, among: object) -> Callable[[], None]:
            raise AssertionError

        fixed_ports = port_holders = never

    await Admission("rift", Defaults(), Silent()).admit(service("shop"))


async def test_the_registry_answers_as_the_neighbourhood_does(lite: Registry) -> None:
    await lite.apply(service("a", "8080:80", depends_on=("b",)), actor="ann")
    await lite.allocate_port("a", "web", "default", 20001)
    admission = Admission("rift", Defaults(), lite)
    for wish, field in (
        (service("b", "9000:80", "8080:80"), "components[0].ports[1]"),
        (service("b", "20001:80"), "components[0].ports[0]"),
        (service("b", depends_on=("a",)), "depends_on"),
    ):
        with pytest.raises(InvalidSpec) as refused:
            await admission.admit(wish)
        assert refused.value.field == field
    await admission.admit(service("b", "127.0.0.1:9000:80", depends_on=("c",)))
