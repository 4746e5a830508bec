"""What the engine is asked to create for a component, and how it is told from what it was asked before.

We write libpod's SpecGenerator ourselves: podman-py drops and rewrites fields
silently. The hash of it, kept in a label, is what says later whether a
container is still as defined. Pure.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from api.resolve import ResolvedComponent, ResolvedService
from api.service import Service
from reconcilers.containers import model

# Where a container shares a network namespace with something else, there is nothing to join or to publish.
_UNNETWORKED: Final = frozenset({"host", "none"})


@dataclass(frozen=True, slots=True)
class ContainerRequest:
    """One container as it should be. `body` is libpod's SpecGenerator as canonical JSON, labels included."""

    service: str
    component: str
    name: str
    image: str
    network: str
    """The network to be made when it is missing; empty where none is joined."""
    folder: str
    """The host folder to be made when it is missing; empty where there is none."""
    ports: tuple[tuple[str, int], ...]
    """Route key and host port."""
    spec_hash: str
    fields: tuple[tuple[str, str], ...]
    """The name of each field of the request and a short hash of its value."""
    body: str

    def changes_since(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """The fields in which a container with these labels was asked for differently."""
        before = dict(_pairs(labels.get(model.FIELDS, "")))
        now = dict(self.fields)
        return tuple(name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name))


def missing_ports(service: Service, component: ResolvedComponent) -> tuple[str, ...]:
    """The routes of the component that have no usable port yet."""
    given = {route.key: service.port(component.name, route.key) for route in component.routes}
    return tuple(key for key, port in given.items() if port is None or port.contested)


def request_for(
    service: Service, resolved: ResolvedService, component: ResolvedComponent, node: str
) -> ContainerRequest:
    """The request for one component, all of whose ports are given."""
    ports = tuple((route.key, _port(service, component, route.key)) for route in component.routes)
    spec = _spec(component, node, resolved.name, ports)
    fields = tuple((name, _digest(value)[:8]) for name, value in sorted(spec.items()))
    spec_hash = _digest(spec)
    labels = {
        model.MANAGED_BY: model.MANAGER,
        model.NODE: node,
        model.SERVICE: resolved.name,
        model.COMPONENT: component.name,
        model.GENERATION: str(service.generation),
        model.SPEC_HASH: spec_hash,
        model.FIELDS: ",".join(f"{name}={digest}" for name, digest in fields),
        model.ROUTES: ",".join(f"{key}={port}" for key, port in ports),
    }
    return ContainerRequest(
        service=resolved.name,
        component=component.name,
        name=component.container_name,
        image=component.image,
        network="" if component.network in _UNNETWORKED else component.network,
        folder=component.derived_volume,
        ports=ports,
        spec_hash=spec_hash,
        fields=fields,
        body=_canonical({**spec, "labels": labels}),
    )


def _port(service: Service, component: ResolvedComponent, route: str) -> int:
    port = service.port(component.name, route)
    if port is None:
        raise LookupError(f"route {component.name}/{route} has no port")
    return port.port


def _spec(component: ResolvedComponent, node: str, service: str, ports: tuple[tuple[str, int], ...]) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "name": component.container_name,
        "image": component.image,
        "user": component.user,
        "env": _environment(component, node, service, dict(ports)),
        # The engine restarts nothing: it has no backoff, and two masters would meet.
        "restart_policy": "no",
    }
    if component.cmd:
        spec["command"] = list(component.cmd)
    if component.volumes:
        spec["mounts"] = [_mount(volume) for volume in component.volumes]
    if component.network in _UNNETWORKED:
        return {**spec, "netns": {"nsmode": component.network}}
    published = [_mapping("127.0.0.1", port, port, "tcp") for _, port in ports]
    published += [_mapping(p.host, p.host_port, p.container_port, p.protocol) for p in component.ports]
    if published:
        spec["portmappings"] = published
    return {**spec, "netns": {"nsmode": "bridge"}, "networks": {component.network: {}}}


def _environment(component: ResolvedComponent, node: str, service: str, ports: Mapping[str, int]) -> dict[str, str]:
    own = dict(entry.split("=", 1) for entry in component.env)
    given = {variable: str(ports[route.key]) for route in component.routes for variable in route.variables}
    return {"MCP_NODE": node, "MCP_SERVICE": service, "MCP_COMPONENT": component.name, **own, **given}


def _mount(volume: str) -> dict[str, Any]:
    source, destination, *options = volume.split(":")
    flags = [flag for option in options for flag in option.split(",")]
    return {"type": "bind", "source": source, "destination": destination, "options": ["rbind", *flags]}


def _mapping(host: str, host_port: int, container_port: int, protocol: str) -> dict[str, Any]:
    return {"host_ip": host, "host_port": host_port, "container_port": container_port, "protocol": protocol}


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _digest(value: object) -> str:
    return hashlib.sha256(_canonical(value).encode()).hexdigest()


def _pairs(text: str) -> list[tuple[str, str]]:
    return [(name, digest) for name, _, digest in (entry.partition("=") for entry in text.split(",") if entry)]
