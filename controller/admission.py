"""Whether a definition is taken: all that this node, and the other services on it, have to say against one."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol

from api.errors import InvalidSpec, Refused
from api.fields import PortMapping
from api.resolve import Defaults, ResolvedService, resolve
from api.service import Service
from api.spec import ServiceSpec, container_name, find_cycle
from reconcilers.base import FixedPort

_ANYWHERE = "0.0.0.0"  # noqa: S104  # compared, not bound
_ROUTES_ARE_AT = "127.0.0.1"


class Neighbours(Protocol):
    """What is asked about the other services of the node. All raise RegistryUnavailable."""

    async def service(self, name: str) -> Service | None:
        """The service, or None."""
        ...

    async def fixed_ports(self, among: Collection[int]) -> tuple[FixedPort, ...]:
        """Those of these host ports that definitions on this node name themselves, by service."""
        ...

    async def port_holders(self, among: Collection[int]) -> Mapping[int, str]:
        """The service to whose route each of these ports is given, where it is."""
        ...


@dataclass(frozen=True, slots=True)
class Admission:
    """The admission of one node. Others are asked only where a definition could be in their way."""

    node: str
    defaults: Defaults
    neighbours: Neighbours

    async def admit(self, spec: ServiceSpec) -> None:
        """Raises InvalidSpec, naming the field, or Refused where this node cannot run the definition.

        Nobody else may write a definition until this one is written.
        """
        if spec.node is not None and spec.node != self.node:
            raise Refused(
                f'this agent runs node "{self.node}", and the definition of "{spec.name}" says node = "{spec.node}": '
                "ask that node's agent"
            )
        resolved = resolve(spec, self.defaults)
        await self._refuse_name_clash(resolved)
        await self._refuse_circle(spec)
        await self._refuse_port_clash(resolved)

    async def _refuse_name_clash(self, resolved: ResolvedService) -> None:
        for index, component in enumerate(resolved.components):
            for other in _services_that_may_use(component.container_name):
                if other == resolved.name:
                    continue
                service = await self.neighbours.service(other)
                names = [container_name(other, c.name) for c in service.spec.components] if service else []
                if component.container_name in names:
                    raise InvalidSpec(
                        f"components[{index}].name",
                        f'container name "{component.container_name}" belongs to service "{other}": '
                        "rename the component",
                    )

    async def _refuse_circle(self, spec: ServiceSpec) -> None:
        needs = {spec.name: spec.depends_on}
        ahead = list(spec.depends_on)
        while ahead:
            name = ahead.pop()
            if name in needs:
                continue
            service = await self.neighbours.service(name)
            # One that does not exist yet may come; one that is being deleted waits for nobody.
            needs[name] = service.spec.depends_on if service is not None and not service.deleting else ()
            ahead += needs[name]
        circle = find_cycle(needs)
        if spec.name in circle:
            raise InvalidSpec(
                "depends_on", f"services would wait for each other in a circle: {_from(spec.name, circle)}"
            )

    async def _refuse_port_clash(self, resolved: ResolvedService) -> None:
        wanted = tuple(_wanted(resolved))
        numbers = {port.mapping.host_port for _, port in wanted}
        if not numbers:
            return
        theirs = [port for port in await self.neighbours.fixed_ports(numbers) if port.service != resolved.name]
        refuse_shared_ports(wanted, theirs)
        refuse_given_ports(wanted, await self.neighbours.port_holders(numbers))


Wanted = tuple[str, FixedPort]
"""The field of a definition that names a host port, and the port."""


def refuse_shared_ports(wanted: Sequence[Wanted], theirs: Sequence[FixedPort]) -> None:
    """Raises InvalidSpec where a port is wanted twice, by the service itself or by it and another one."""
    mine: list[FixedPort] = []
    for field, port in wanted:
        if _address(port.mapping) is None:
            raise InvalidSpec(field, f'"{port.mapping.host}" is no address')
        for other in (*mine, *theirs):
            if overlap(port.mapping, other.mapping):
                raise InvalidSpec(field, _shared(port, other))
        mine.append(port)


def refuse_given_ports(wanted: Sequence[Wanted], holders: Mapping[int, str]) -> None:
    """Raises InvalidSpec where another service's route has the port; `holders` says who has which."""
    for field, port in wanted:
        mapping = port.mapping
        route = PortMapping(host=_ROUTES_ARE_AT, host_port=mapping.host_port, container_port=mapping.host_port)
        holder = holders.get(mapping.host_port, port.service)
        # A route of the service itself makes way.
        if holder != port.service and overlap(mapping, route):
            raise InvalidSpec(
                field,
                f'port {mapping.host_port} is given to a route of service "{holder}": '
                "choose one outside the range of [ports] in the agent's settings",
            )


def overlap(one: PortMapping, other: PortMapping) -> bool:
    """Whether the engine could not publish both.

    As measured with podman 4.3: an address overlaps itself and the wildcard of
    its family, and none is the wildcard of IPv4. A rootful podman keeps the
    families apart; a rootless one does not where a wildcard is involved, and
    would refuse to start the second of two that are taken for compatible here.
    """
    if (one.host_port, one.protocol) != (other.host_port, other.protocol):
        return False
    a, b = _address(one), _address(other)
    if a is None or b is None or a.version != b.version:
        return False
    return a == b or a.is_unspecified or b.is_unspecified


def _wanted(resolved: ResolvedService) -> Iterator[Wanted]:
    for i, component in enumerate(resolved.components):
        for j, mapping in enumerate(component.ports):
            yield f"components[{i}].ports[{j}]", FixedPort(resolved.name, component.name, mapping)


def _address(mapping: PortMapping) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(mapping.host or _ANYWHERE)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _shared(port: FixedPort, other: FixedPort) -> str:
    mapping = other.mapping
    whose = "this service" if other.service == port.service else f'service "{other.service}"'
    where = mapping.host or "every address"
    return (
        f'port {mapping.host_port}/{mapping.protocol} on {where} is that of component "{other.component}" of {whose}: '
        "choose another port or address"
    )


def _from(name: str, circle: tuple[str, ...]) -> str:
    """The closed circle as it is seen from one of its members."""
    start = circle.index(name)
    return " -> ".join((*circle[start:-1], *circle[:start], name))


def _services_that_may_use(name: str) -> list[str]:
    """Every service that could have a container of that name: `a-b-c` may be a-b-c, a-b/c or a/b-c."""
    parts = name.split("-")
    return ["-".join(parts[:length]) for length in range(len(parts), 0, -1)]
