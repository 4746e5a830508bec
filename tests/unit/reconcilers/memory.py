"""The registry that reconcilers see, in memory: the same promises, with no database to wait for."""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import TypeVar

from api.fields import PortMapping
from api.service import Certificate, Component, Finalizer, PortAllocation, RouteClaim, Service
from api.spec import ServiceSpec
from reconcilers.base import Claimed, FixedPort, PortTaken

T = TypeVar("T")


def newborn(spec: ServiceSpec, **changes: object) -> Service:
    """A service as the registry returns it right after its first apply."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    born = Service(
        uid=spec.name,
        name=spec.name,
        node="rift",
        generation=1,
        spec=spec,
        created_at=now,
        updated_at=now,
        finalizers=tuple(Finalizer),
    )
    return born.model_copy(update=changes)


class MemoryRegistry:
    """Implements reconcilers.base.Registry over a dictionary."""

    def __init__(self, *services: Service) -> None:
        self.services = {service.name: service for service in services}

    def __getitem__(self, name: str) -> Service:
        return self.services[name]

    def update(self, name: str, **changes: object) -> None:
        """Writes fields of a service; nothing where it is gone."""
        if name in self.services:
            self.services[name] = self.services[name].model_copy(update=changes)

    async def allocated_ports(self) -> frozenset[int]:
        return frozenset(port.port for service in self.services.values() for port in service.ports)

    async def fixed_ports(self, among: Collection[int]) -> tuple[FixedPort, ...]:
        named = (
            FixedPort(service.name, component.name, PortMapping.parse(text))
            for service in self.services.values()
            for component in service.spec.components
            for text in component.ports
        )
        return tuple(port for port in named if port.mapping.host_port in among)

    async def allocate_port(self, service: str, component: str, route: str, port: int, slot: int = 0) -> None:
        wanted = (service, component, route, slot)
        for other in self.services.values():
            for held in other.ports:
                if held.port == port and (other.name, held.component, held.route, held.slot) != wanted:
                    raise PortTaken
        await self.release_port(service, component, route, slot)
        if service in self.services:
            allocation = PortAllocation(component=component, route=route, slot=slot, port=port)
            self.update(service, ports=(*self[service].ports, allocation))

    async def release_port(self, service: str, component: str, route: str, slot: int = 0) -> None:
        if service in self.services:
            kept = (p for p in self[service].ports if (p.component, p.route, p.slot) != (component, route, slot))
            self.update(service, ports=tuple(kept))

    async def contest_port(self, service: str, component: str, route: str, port: int) -> None:
        if service in self.services:
            ports = [
                p.model_copy(update={"contested": True})
                if (p.component, p.route, p.port) == (component, route, port)
                else p
                for p in self[service].ports
            ]
            self.update(service, ports=tuple(ports))

    async def record_certificate(self, service: str, certificate: Certificate) -> None:
        holder = await self.certificate_holder(certificate.cert_path)
        if holder not in (None, service):
            raise Claimed(holder or "")
        if service in self.services:
            kept = _without(self[service].certificates, hostname=certificate.hostname)
            self.update(service, certificates=(*kept, certificate))

    async def certificate_holder(self, cert_path: str) -> str | None:
        for service in self.services.values():
            if any(certificate.cert_path == cert_path for certificate in service.certificates):
                return service.name
        return None

    async def forget_certificate(self, service: str, hostname: str) -> None:
        if service in self.services:
            self.update(service, certificates=_without(self[service].certificates, hostname=hostname))

    async def record_component(self, service: str, component: Component) -> None:
        if service in self.services:
            kept = _without(self[service].components, name=component.name)
            self.update(service, components=(*kept, component))

    async def forget_component(self, service: str, component: str) -> None:
        if service in self.services:
            self.update(service, components=_without(self[service].components, name=component))

    async def claim_route(self, service: str, claim: RouteClaim) -> None:
        holder = await self.claim_holder(claim.listener, claim.hostname)
        if holder not in (None, service):
            raise Claimed(holder or "")
        if service in self.services:
            kept = _without(self[service].claims, listener=claim.listener, hostname=claim.hostname)
            self.update(service, claims=(*kept, claim))

    async def release_route(self, service: str, listener: str, hostname: str) -> None:
        if service in self.services:
            kept = _without(self[service].claims, listener=listener, hostname=hostname)
            self.update(service, claims=kept)

    async def claim_holder(self, listener: str, hostname: str) -> str | None:
        for service in self.services.values():
            if any((claim.listener, claim.hostname) == (listener, hostname) for claim in service.claims):
                return service.name
        return None


def _without(records: Iterable[T], **key: object) -> tuple[T, ...]:
    return tuple(record for record in records if any(getattr(record, name) != value for name, value in key.items()))
