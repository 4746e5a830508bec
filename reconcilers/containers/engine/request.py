"""What the engine is asked to create for a component, and how it is told from what it was asked before.

We write libpod's SpecGenerator ourselves: podman-py drops and rewrites fields
silently. The hash of it, kept in a label, is what says later whether a
container is still as defined. Pure.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Final

from api.resolve import UNNETWORKED, ResolvedComponent, ResolvedService
from api.service import Service
from api.spec import PullPolicy
from api.units import size
from reconcilers.containers import model, peers
from reconcilers.containers.engine.limits import limits
from reconcilers.containers.model import ContainerObservation

_SECRETS: Final = "/run/secrets"

RESTART: Final = "restart"
"""Among the fields of a request: how often somebody asked for a restart."""
MARKS: Final = "marks"
"""Among the fields of a request: which variables are secret, as a container's labels have to say that of its own."""


@dataclass(frozen=True, slots=True)
class ContainerRequest:
    """One container as it should be. `body` is libpod's SpecGenerator as canonical JSON, labels included."""

    service: str
    component: str
    name: str
    image: str
    pull: PullPolicy
    slot: int
    """Whose ports it has."""
    network: str
    """The network to be made when it is missing; empty where none is joined."""
    folder: str
    """The host folder to be made when it is missing; empty where there is none."""
    ports: tuple[tuple[str, int], ...]
    """Route key and host port, of its slot."""
    spec_hash: str
    secret_env: tuple[str, ...]
    """The variables whose values are shown to nobody."""
    fields: tuple[tuple[str, str], ...]
    """The name of each field of the request and a short hash of its value."""
    body: str

    @property
    def called(self) -> str:
        """What the container is called when it is made."""
        return str(json.loads(self.body)["name"])

    def named(self, name: str) -> "ContainerRequest":
        """The same request for a container that is called otherwise until it takes over: the hashes stay."""
        return replace(self, name=name, body=_canonical({**json.loads(self.body), "name": name}))

    def labelled(self, labels: Mapping[str, str]) -> "ContainerRequest":
        """The same request with more labels, which are no part of the hashes."""
        body = json.loads(self.body)
        return replace(self, body=_canonical({**body, "labels": {**body["labels"], **labels}}))

    def changes_since(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """The fields in which a container with these labels was asked for differently."""
        before = dict(_pairs(labels.get(model.FIELDS, "")))
        now = dict(self.fields)
        return tuple(name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name))


def missing_ports(service: Service, component: ResolvedComponent, slot: int = 0) -> tuple[str, ...]:
    """The routes without a usable port yet: the component's own in that slot, and its peers', which it is told of."""
    own = tuple(
        route.key
        for route in component.routes
        if not all(_usable(service, component.name, route.key, one) for one in {0, slot})
    )
    others = tuple(
        f"{peer.name}/{route.key}"
        for peer in service.spec.components
        if peer.name != component.name
        for route in peer.routes
        if not _usable(service, peer.name, route.key, 0)
    )
    return own + others


def is_outdated(
    service: Service, resolved: ResolvedService, component: ResolvedComponent, found: ContainerObservation, node: str
) -> bool:
    """Whether a container of the component was asked for otherwise than it would be now."""
    if missing_ports(service, component, found.slot):
        return True
    wanted = request_for(service, resolved, component, node, found.slot)
    return found.labels.get(model.SPEC_HASH) != wanted.spec_hash


def request_for(
    service: Service, resolved: ResolvedService, component: ResolvedComponent, node: str, slot: int = 0
) -> ContainerRequest:
    """The request for one component in one slot, none of whose ports is missing.

    The host's ports are the slot's, and so are the hashes. Inside, a route is
    at the same port in both slots: nobody is told anew when a container takes over.
    """
    ports = tuple((route.key, _port(service, component, route.key, slot)) for route in component.routes)
    inside = {route.key: _port(service, component, route.key, 0) for route in component.routes}
    spec = {
        **_spec(component, ports, inside),
        "env": {
            "MCP_NODE": node,
            "MCP_SERVICE": resolved.name,
            "MCP_COMPONENT": component.name,
            **dict(entry.split("=", 1) for entry in component.env),
            **peers.variables(service, resolved, component),
            **{variable: str(inside[route.key]) for route in component.routes for variable in route.variables},
        },
    }
    asked = service.restarts.get(component.name)
    secret_env, variables = tuple(sorted(component.secret_env)), sorted(component.secret_variables.items())
    # No fields of the engine's: they only tell the container from the one before.
    hashed = {**spec, **({RESTART: asked} if asked else {}), **({MARKS: secret_env} if secret_env else {})}
    fields = tuple((name, _digest(value)[:8]) for name, value in sorted(hashed.items()))
    spec_hash = _digest(hashed)
    labels = {
        **component.labels,
        model.MANAGED_BY: model.MANAGER,
        model.NODE: node,
        model.SERVICE: resolved.name,
        model.COMPONENT: component.name,
        model.GENERATION: str(service.generation),
        model.SPEC_HASH: spec_hash,
        model.FIELDS: ",".join(f"{name}={digest}" for name, digest in fields),
        model.ROUTES: ",".join(_served(key, port, inside[key]) for key, port in ports),
        **({model.SECRET_ENV: ",".join(secret_env)} if secret_env else {}),
        **({model.SECRET_VARIABLES: ",".join(map("=".join, variables))} if variables else {}),
        **({model.SLOT: str(slot)} if slot else {}),
    }
    return ContainerRequest(
        service=resolved.name,
        component=component.name,
        name=component.container_name,
        image=component.image,
        pull=component.pull,
        slot=slot,
        network="" if component.network in UNNETWORKED else component.network,
        folder=component.derived_volume,
        ports=ports,
        spec_hash=spec_hash,
        secret_env=secret_env,
        fields=fields,
        body=_canonical({**spec, **_reachable(component), "labels": labels}),
    )


def _usable(service: Service, component: str, route: str, slot: int) -> bool:
    port = service.port(component, route, slot)
    return port is not None and not port.contested


def _port(service: Service, component: ResolvedComponent, route: str, slot: int) -> int:
    port = service.port(component.name, route, slot)
    if port is None:
        raise LookupError(f"route {component.name}/{route} has no port in slot {slot}")
    return port.port


def _served(key: str, port: int, inside: int) -> str:
    return f"{key}={port}" if port == inside else f"{key}={port}:{inside}"


def _spec(
    component: ResolvedComponent, ports: tuple[tuple[str, int], ...], inside: Mapping[str, int]
) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "name": component.container_name,
        "image": component.image,
        "user": component.user,
        # The engine restarts nothing: it has no backoff, and two masters would meet.
        "restart_policy": "no",
        **limits(component),
    }
    if component.cmd:
        spec["command"] = list(component.cmd)
    if mounts := _mounts(component):
        spec["mounts"] = mounts
    if component.network in UNNETWORKED:
        return {**spec, "netns": {"nsmode": component.network}}
    published = [_mapping("127.0.0.1", port, inside[key], "tcp") for key, port in ports]
    published += [_mapping(p.host, p.host_port, p.container_port, p.protocol) for p in component.ports]
    if published:
        spec["portmappings"] = published
    return {**spec, "netns": {"nsmode": "bridge"}, "networks": {component.network: {}}}


def _reachable(component: ResolvedComponent) -> dict[str, Any]:
    """The name under which its network knows it, whatever it is called for the moment. Follows from what is hashed."""
    if component.network in UNNETWORKED:
        return {}
    return {"networks": {component.network: {"aliases": [component.container_name]}}}


def _mounts(component: ResolvedComponent) -> list[dict[str, Any]]:
    mounts = [_bind(volume) for volume in component.volumes] + [_tmpfs(mount) for mount in component.tmpfs]
    if component.read_only and any(_is_below(_SECRETS, path or _SECRETS) for _, path in component.secrets):
        # Among files that cannot be written the engine fails to make those of secrets where it puts them itself.
        taken = any(mount["destination"].rstrip("/") == _SECRETS for mount in mounts)
        return mounts if taken else [*mounts, _tmpfs(f"{_SECRETS}:size=1M,mode=755")]
    return mounts


def _bind(volume: str) -> dict[str, Any]:
    source, destination, *options = volume.split(":")
    flags = [flag for option in options for flag in option.split(",")]
    return {"type": "bind", "source": source, "destination": destination, "options": ["rbind", *flags]}


def _is_below(folder: str, path: str) -> bool:
    return PurePosixPath(path).is_relative_to(folder)


def _tmpfs(mount: str) -> dict[str, Any]:
    destination, _, options = mount.partition(":")
    flags = [_in_bytes(option) for option in options.split(",") if option]
    return {"type": "tmpfs", "source": "tmpfs", "destination": destination, "options": flags}


def _in_bytes(option: str) -> str:
    name, _, amount = option.partition("=")
    return f"size={size(amount)}" if name == "size" else option


def _mapping(host: str, host_port: int, container_port: int, protocol: str) -> dict[str, Any]:
    return {"host_ip": host, "host_port": host_port, "container_port": container_port, "protocol": protocol}


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _digest(value: object) -> str:
    return hashlib.sha256(_canonical(value).encode()).hexdigest()


def _pairs(text: str) -> list[tuple[str, str]]:
    return [(name, digest) for name, _, digest in (entry.partition("=") for entry in text.split(",") if entry)]
