"""The definition of a service, as its operator wrote it.

One model serves the TOML file, the wire, the registry and the export. What is
absent here stays absent: defaults that depend on the node are filled in by
`api.resolve`, so that an exported definition equals the one applied.
"""

import re
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from api.model import Model

DEFAULT_ROUTE_KEY = "default"

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"

Name = Annotated[
    str,
    StringConstraints(pattern=rf"^{_LABEL}$"),
    Field(description="Lower case letters, digits and inner dashes, at most 63: it becomes part of DNS names."),
]
"""A DNS label (RFC 1123)."""


def _hostname(value: str) -> str:
    value = value.lower()
    if len(value) > 253 or not re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", value):
        raise ValueError("is not a host name (labels of letters, digits and inner dashes, joined by dots)")
    return value


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def _image(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*", value):
        raise ValueError("is not an image reference such as registry:5000/name:v1.0.0 or name@sha256:...")
    return value


def _environment(value: str) -> str:
    if not re.match(r"[A-Za-z_][A-Za-z0-9_]*=", value):
        raise ValueError('is not of the form "KEY=value"')
    return _without_nul(value)


_PORT_NUMBER = r"\d{1,5}"
_ADDRESS = r"(?:\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-fA-F:]+\])"
_MAPPING = re.compile(
    rf"^(?:(?P<host>{_ADDRESS}):)?(?:(?P<host_port>{_PORT_NUMBER}):)?(?P<container_port>{_PORT_NUMBER})(?:/(?P<protocol>tcp|udp))?$"
)


def _port_mapping(value: str) -> str:
    PortMapping.parse(value)
    return value


def _volume(value: str) -> str:
    parts = value.split(":")
    if len(parts) not in (2, 3) or not parts[0].startswith("/") or not parts[1].startswith("/"):
        raise ValueError('is not of the form "/host/path:/container/path" with an optional ":ro"')
    if ".." in parts[0].split("/") or ".." in parts[1].split("/"):
        raise ValueError('must not contain ".."')
    return _without_nul(value)


Hostname = Annotated[str, AfterValidator(_hostname)]
Image = Annotated[str, AfterValidator(_image)]
Text = Annotated[str, AfterValidator(_without_nul)]
Port = Annotated[int, Field(ge=1, le=65535)]
Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]


class RouteMode(StrEnum):
    """Who terminates TLS."""

    L4 = "l4"
    """The component itself: mc-proxy passes the bytes through."""
    L7 = "l7"
    """mc-proxy, with a certificate that MCP provides."""


class RestartPolicy(StrEnum):
    """When a container that ended is started again. MCP does it, never the engine."""

    NO = "no"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"
    UNLESS_STOPPED = "unless-stopped"


class Tier(StrEnum):
    """The kind of node a service is meant for."""

    CORE = "core"
    WORKER = "worker"


class PortMapping(Model):
    """One old-style `ports` entry: `[address:][host_port:]container_port[/tcp|udp]`."""

    host: str = ""
    host_port: int
    container_port: int
    protocol: str = "tcp"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads the podman notation; raises ValueError with what is wrong."""
        match = _MAPPING.match(text)
        if match is None:
            raise ValueError('is not of the form "[address:]host_port:container_port[/udp]"')
        container_port = int(match["container_port"])
        host_port = int(match["host_port"] or container_port)
        for port in (host_port, container_port):
            if not 1 <= port <= 65535:
                raise ValueError(f"names port {port}, which is not in 1-65535")
        return cls(
            host=(match["host"] or "").strip("[]"),
            host_port=host_port,
            container_port=container_port,
            protocol=match["protocol"] or "tcp",
        )


class RouteSpec(Model):
    """A name under which a component is reached through mc-proxy."""

    name: Name | None = Field(default=None, description="Gives $PORT_<NAME>.")
    port: Port = Field(description="The port on mc-proxy, that is its listener.")
    mode: RouteMode = Field(default=RouteMode.L4, description="l4 passes TLS through, l7 terminates it.")
    hostname: Hostname | None = Field(default=None, description="Default: <service>.svc.<zone>.")
    public: bool = Field(default=False, description="An edge node forwards to this route.")

    @property
    def key(self) -> str:
        """What identifies the route within its component."""
        return self.name or DEFAULT_ROUTE_KEY


class ComponentSpec(Model):
    """One container of a service."""

    name: Name
    image: Image | None = Field(default=None, description="Default: derived from registry, service and version.")
    version: Version | None = Field(default=None, description="Tag of a derived image; overrides the service's.")
    network: Text | None = None
    user: Text | None = None
    restart: RestartPolicy | None = None
    ports: tuple[Annotated[str, AfterValidator(_port_mapping)], ...] = ()
    volumes: tuple[Annotated[str, AfterValidator(_volume)], ...] | None = Field(
        default=None, description="Default: /srv/<service>:/srv/<service>; an empty list means none."
    )
    cmd: tuple[Text, ...] = ()
    env: tuple[Annotated[str, AfterValidator(_environment)], ...] = ()
    routes: tuple[RouteSpec, ...] = ()

    @model_validator(mode="after")
    def _routes_are_distinct(self) -> Self:
        keys = [route.key for route in self.routes]
        if keys.count(DEFAULT_ROUTE_KEY) > 1:
            raise ValueError(f"component {self.name} has several routes without a name: name all but one")
        _refuse_repeats(f"route of component {self.name}", keys)
        return self


class BuildSpec(Model):
    """How `mcp build` makes the images."""

    images: dict[str, Text] = Field(default_factory=dict, description="Image name to Dockerfile.")


class SnapshotSpec(Model):
    """How the service's data is backed up."""

    method: Text | None = None
    exclude: tuple[Text, ...] = ()


class ServiceSpec(Model):
    """A service: what runs, and how it is reached."""

    name: Name
    node: Name | None = Field(default=None, description="Which agent runs it; default: the one that is asked.")
    active: bool = Field(default=True, description="false: MCP keeps it stopped.")
    version: Version | None = None
    path: Text | None = Field(default=None, description="Source folder below the build workspace.")
    tier: Tier | None = None
    build: BuildSpec | None = None
    snapshot: SnapshotSpec | None = None
    components: tuple[ComponentSpec, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _components_are_distinct(self) -> Self:
        _refuse_repeats("component", (component.name for component in self.components))
        return self


def _refuse_repeats(what: str, names: Iterable[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f'there are {count} entries for {what} "{name}": give each a name of its own')


def container_name(service: str, component: str) -> str:
    """The deterministic name of a component's container: `mc-proxy`, not `mc-proxy-mc-proxy`."""
    return service if service == component else f"{service}-{component}"
