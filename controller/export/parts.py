"""What one container needs, whoever runs it: the definition, and all that MCP adds to it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

from api.resolve import UNNETWORKED, ResolvedComponent, ResolvedService
from api.service import Service
from reconcilers.containers.engine.request import missing_ports, request_for


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """A port of the container that is reached on the host."""

    host: str
    host_port: int
    container_port: int
    protocol: str


@dataclass(frozen=True, slots=True)
class Part:
    """One component with all that the engine is asked for beside its definition."""

    component: ResolvedComponent
    env: Mapping[str, str] = field(default_factory=dict)
    """Without what is marked as secret, whose values are given out nowhere."""
    ports: tuple[PublishedPort, ...] = ()
    missing: tuple[str, ...] = ()
    """The routes that have no port yet: nothing else is said then."""

    @property
    def secrets(self) -> Mapping[str, str]:
        """The variables that are marked as secret, and the secret of podman's that each is to become."""
        name = self.component.container_name
        return {variable: f"{name}-{variable.lower().replace('_', '-')}" for variable in self.component.secret_env}

    @property
    def networked(self) -> bool:
        """Whether it is in a network of its own."""
        return self.component.network not in UNNETWORKED


def parts(service: Service, resolved: ResolvedService, node: str) -> tuple[Part, ...]:
    """All components, those first that others wait for."""
    return tuple(_parts(service, resolved, node))


def _parts(service: Service, resolved: ResolvedService, node: str) -> Iterator[Part]:
    by_name = {component.name: component for component in resolved.components}
    waits = {component.name: component.depends_on for component in resolved.components}
    for name in TopologicalSorter(waits).static_order():
        component, known = by_name[name], service.component(name)
        slot = known.slot if known and known.slot in component.slots else 0
        if missing := missing_ports(service, component, slot):
            yield Part(component, missing=missing)
            continue
        # What MCP asks the engine for is the whole truth: nothing is derived a second time.
        body = json.loads(request_for(service, resolved, component, node, slot).body)
        ports = (
            PublishedPort(one["host_ip"], one["host_port"], one["container_port"], one["protocol"])
            for one in body.get("portmappings", ())
        )
        env = {name: value for name, value in body["env"].items() if name not in component.secret_env}
        yield Part(component, env, tuple(ports))


def mounted(volume: str) -> tuple[str, str, tuple[str, ...]]:
    """A volume's folder on the host, its place in the container, and its options."""
    source, destination, *options = volume.split(":")
    return source, destination, tuple(flag for option in options for flag in option.split(","))
