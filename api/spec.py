"""The definition of a service, as its operator wrote it.

One model serves the TOML file, the wire, the registry and the export. What is
absent here stays absent: defaults that depend on the node are filled in by
`api.resolve`, so that an exported definition equals the one applied.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from signal import Signals
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from api.model import Model
from api.units import Duration, PositiveDuration, Size, size

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


RESERVED_LABELS = "net.metacircular.mcp."
"""Labels by which MCP knows its containers begin so."""


def _labels(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not name or name.startswith(RESERVED_LABELS):
            raise ValueError(f'names the label "{name}": labels need a name, and {RESERVED_LABELS}* are MCP\'s own')
    return value


def _absolute_path(value: str) -> str:
    if not value.startswith("/") or ".." in value.split("/"):
        raise ValueError('is not an absolute path without ".."')
    return _without_nul(value)


def _http_path(value: str) -> str:
    if not re.fullmatch(r"/[!-~]*", value):
        raise ValueError('is not a path such as "/healthz"')
    return value


def _tmpfs(value: str) -> str:
    path, *options = value.split(":", 1)
    _absolute_path(path)
    for option in (option for part in options for option in part.split(",")):
        name, _, amount = option.partition("=")
        if name == "size":
            size(amount)
        elif not re.fullmatch(r"(?:mode=[0-7]{3,4}|ro|rw|exec|noexec)", option):
            raise ValueError(f'has the option "{option}", which is not size=, mode=, ro, rw, exec or noexec')
    return value


def _capability(value: str) -> str:
    value = value.upper().removeprefix("CAP_")
    if not re.fullmatch(r"[A-Z_]+", value):
        raise ValueError('is not a capability such as "NET_BIND_SERVICE"')
    return value


_HOST = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*):(?P<address>\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F:]+)")


def _extra_host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise ValueError('is not of the form "name:address"')
    return value


def _signal(value: str) -> str:
    value = value.upper() if value.isdecimal() else "SIG" + value.upper().removeprefix("SIG")
    if value.isdecimal() and 1 <= int(value) <= 64:
        return value
    if value not in Signals.__members__ and not re.fullmatch(r"SIGRTM(IN|AX)([+-]\d{1,2})?", value):
        raise ValueError('is not a signal such as "SIGTERM"')
    return value


def _secret(value: str) -> str:
    name, *target = value.split(":", 1)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError('is not of the form "secret" or "secret:/path/in/the/container"')
    for path in target:
        _absolute_path(path)
    return value


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


class PullPolicy(StrEnum):
    """When an image is asked of its registry."""

    MISSING = "missing"
    """When it is not on the node."""
    ALWAYS = "always"
    """Before each creation; where the registry does not answer, what is on the node is used."""
    NEVER = "never"
    NEWER = "newer"
    """When it is missing, and again and again: a tag that moved is drift, and the container is replaced."""


class Strategy(StrEnum):
    """How a container gives way to the next one."""

    RECREATE = "recreate"
    """The old one ends before the new one starts: what owns a file can only be one."""
    BLUE_GREEN = "blue-green"
    """The new one starts beside the old one, which goes on serving until the new one is ready."""


class HostNamespace(StrEnum):
    """What a container may share with the host, where the node's policy allows it; `network = "host"` beside them."""

    PID = "pid"
    IPC = "ipc"
    UTS = "uts"


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


class HealthSpec(Model):
    """How the agent finds out whether a container is well. One of `http`, `tcp` and `exec`."""

    http: Annotated[str, AfterValidator(_http_path)] | None = Field(default=None, description="A path to GET.")
    status: Annotated[int, Field(ge=100, le=599)] | None = Field(
        default=None, description="The status that is expected of it; default: any below 400."
    )
    tls: bool = Field(default=False, description="The GET is made over TLS; whose certificate it is does not matter.")
    tcp: bool = Field(default=False, description="A connection is made.")
    exec: tuple[Text, ...] = Field(default=(), description="A command that is run in the container and must exit 0.")
    route: Name | None = Field(default=None, description="Asked at this route's port; default: the first route.")
    port: Port | None = Field(default=None, description="Asked at this port of the container, one of `ports`.")
    interval: PositiveDuration = Field(default="10s", description="Between two checks.")
    timeout: PositiveDuration = Field(default="3s", description="A check that takes longer has failed.")
    retries: Annotated[int, Field(ge=1, le=100)] = Field(default=3, description="So many failures in a row count.")
    start_period: Duration = Field(default="0s", description="Failures so soon after the start do not count.")
    liveness: bool = Field(default=True, description="Whether failures restart the container.")

    @model_validator(mode="after")
    def _is_one_check(self) -> Self:
        kinds = [name for name, given in (("http", self.http), ("tcp", self.tcp), ("exec", self.exec)) if given]
        if len(kinds) != 1:
            said = " and ".join(kinds) if kinds else "none"
            raise ValueError(f"needs exactly one of http, tcp and exec, and has {said}")
        if self.exec and (self.route or self.port):
            raise ValueError("runs a command: route and port are for http and tcp")
        if self.route and self.port:
            raise ValueError("names a route and a port: name one of them")
        if self.http is None and (self.tls or self.status is not None):
            raise ValueError("has no http: tls and status are for http")
        return self


class UpdateSpec(Model):
    """How a changed container replaces the one before it."""

    strategy: Strategy = Strategy.RECREATE
    deadline: PositiveDuration = Field(default="5m", description="A new container that is not ready by then failed.")
    drain: Duration = Field(default="30s", description="The longest wait for open connections before an end.")


class ComponentSpec(Model):
    """One container of a service."""

    name: Name
    active: bool = Field(default=True, description="false: MCP keeps it stopped while the others run.")
    image: Image | None = Field(default=None, description="Default: derived from registry, service and version.")
    version: Version | None = Field(default=None, description="Tag of a derived image; overrides the service's.")
    network: Text | None = None
    user: Text | None = None
    restart: RestartPolicy | None = None
    pull: PullPolicy | None = None
    depends_on: tuple[Name, ...] = Field(default=(), description="Components of this service that are ready first.")
    ports: tuple[Annotated[str, AfterValidator(_port_mapping)], ...] = ()
    volumes: tuple[Annotated[str, AfterValidator(_volume)], ...] | None = Field(
        default=None, description="Default: /srv/<service>:/srv/<service>; an empty list means none."
    )
    cmd: tuple[Text, ...] = ()
    entrypoint: tuple[Text, ...] | None = Field(default=None, description="Default: the image's; empty: none.")
    working_dir: Annotated[str, AfterValidator(_absolute_path)] | None = None
    env: tuple[Annotated[str, AfterValidator(_environment)], ...] = ()
    secrets: tuple[Annotated[str, AfterValidator(_secret)], ...] = Field(
        default=(), description="Secrets of podman's that are files below /run/secrets, or where they say."
    )
    labels: Annotated[dict[str, Text], AfterValidator(_labels)] = Field(default_factory=dict)
    extra_hosts: tuple[Annotated[str, AfterValidator(_extra_host)], ...] = ()
    memory: Size | None = Field(default=None, description="The most that it may use.")
    cpus: Annotated[float, Field(gt=0, le=1024, allow_inf_nan=False)] | None = None
    pids: Annotated[int, Field(ge=1, le=4194304)] | None = None
    read_only: bool = Field(default=False, description="Whether the image's files cannot be written.")
    tmpfs: tuple[Annotated[str, AfterValidator(_tmpfs)], ...] = ()
    cap_drop: tuple[Annotated[str, AfterValidator(_capability)], ...] = ()
    cap_add: tuple[Annotated[str, AfterValidator(_capability)], ...] = ()
    privileged: bool = False
    host_namespaces: tuple[HostNamespace, ...] = ()
    stop_signal: Annotated[str, AfterValidator(_signal)] | None = Field(
        default=None, description="Default: the image's."
    )
    stop_timeout: Duration | None = Field(default=None, description="Between that signal and the end by force.")
    health: HealthSpec | None = None
    update: UpdateSpec | None = None
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
    depends_on: tuple[Name, ...] = Field(default=(), description="Services of this node that are ready first.")
    build: BuildSpec | None = None
    snapshot: SnapshotSpec | None = None
    components: tuple[ComponentSpec, ...] = Field(min_length=1)

    def runs(self, component: str) -> bool:
        """Whether that component is to run: its service is active, and so is it."""
        return self.active and any(one.name == component and one.active for one in self.components)

    @model_validator(mode="after")
    def _components_are_distinct(self) -> Self:
        _refuse_repeats("component", (component.name for component in self.components))
        return self

    @model_validator(mode="after")
    def _dependencies_lead_somewhere(self) -> Self:
        if self.name in self.depends_on:
            raise ValueError("depends_on names the service itself")
        needs = {component.name: component.depends_on for component in self.components}
        for name, needed in needs.items():
            for other in needed:
                if other not in needs:
                    raise ValueError(f'component "{name}" depends on "{other}", which is no component of this service')
        if cycle := find_cycle(needs):
            raise ValueError(f"components wait for each other in a circle: {' -> '.join(cycle)}")
        return self


def find_cycle(needs: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """The first circle among names and what each needs, closed; empty where there is none."""
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        return tuple(reversed(error.args[1]))
    return ()


def _refuse_repeats(what: str, names: Iterable[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f'there are {count} entries for {what} "{name}": give each a name of its own')


def container_name(service: str, component: str) -> str:
    """The deterministic name of a component's container: `mc-proxy`, not `mc-proxy-mc-proxy`."""
    return service if service == component else f"{service}-{component}"
