"""The definition of a service, as its operator wrote it.

One model serves the TOML file, the wire, the registry and the export. What is
absent here stays absent: defaults that depend on the node are filled in by
`api.resolve`, so that an exported definition equals the one applied.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from api.fields import (
    AbsolutePath,
    Capability,
    EnvironmentEntry,
    HostEntry,
    Hostname,
    HttpPath,
    Image,
    ImageName,
    Labels,
    Name,
    Port,
    PortEntry,
    SecretEntry,
    Signal,
    Text,
    TmpfsEntry,
    VariableName,
    Version,
    VolumeEntry,
)
from api.model import Model
from api.units import Duration, PositiveDuration, Size

DEFAULT_ROUTE_KEY = "default"


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

    http: HttpPath | None = Field(default=None, description="A path to GET.")
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
    ports: tuple[PortEntry, ...] = ()
    volumes: tuple[VolumeEntry, ...] | None = Field(
        default=None, description="Default: /srv/<service>:/srv/<service>; an empty list means none."
    )
    cmd: tuple[Text, ...] = ()
    entrypoint: tuple[Text, ...] | None = Field(default=None, description="Default: the image's; empty: none.")
    working_dir: AbsolutePath | None = None
    env: tuple[EnvironmentEntry, ...] = ()
    secret_env: tuple[VariableName, ...] = Field(
        default=(), description="Names in `env` whose values are shown to nobody; `********` keeps what is stored."
    )
    secrets: tuple[SecretEntry, ...] = Field(
        default=(), description="Secrets of podman's: files below /run/secrets, or where they say, or variables."
    )
    labels: Labels = Field(default_factory=dict)
    extra_hosts: tuple[HostEntry, ...] = ()
    memory: Size | None = Field(default=None, description="The most that it may use.")
    cpus: Annotated[float, Field(gt=0, le=1024, allow_inf_nan=False)] | None = None
    pids: Annotated[int, Field(ge=1, le=4194304)] | None = None
    read_only: bool = Field(default=False, description="Whether the image's files cannot be written.")
    tmpfs: tuple[TmpfsEntry, ...] = ()
    cap_drop: tuple[Capability, ...] = ()
    cap_add: tuple[Capability, ...] = ()
    privileged: bool = False
    host_namespaces: tuple[HostNamespace, ...] = ()
    stop_signal: Signal | None = Field(default=None, description="Default: the image's.")
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

    @field_validator("secret_env")
    @classmethod
    def _marks_what_is_set(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        given = _variables(info)
        for name in names if "env" in info.data else ():
            if given[name] != 1:
                raise ValueError(f'names "{name}", which env sets {"several times" if given[name] else "nowhere"}')
        return names

    @field_validator("secrets")
    @classmethod
    def _sets_each_variable_once(cls, entries: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        targets = (entry.partition(":")[2] for entry in entries)
        names = [target.removeprefix("env:") for target in targets if target.startswith("env:")]
        _refuse_repeats("variable", names)
        for name in names:
            if name in _variables(info):
                raise ValueError(f'sets the variable "{name}", and env does, too: keep one of them')
        return entries


class BuildSpec(Model):
    """How `mcp build` makes the images."""

    images: dict[ImageName, Text] = Field(
        default_factory=dict,
        description="Image name, the last part of what a component's image is called, to Dockerfile.",
    )


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


def _variables(info: ValidationInfo) -> Counter[str]:
    """How often `env` sets each variable; it is missing where it is wrong itself."""
    return Counter(entry.partition("=")[0] for entry in info.data.get("env", ()))


def _refuse_repeats(what: str, names: Iterable[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f'there are {count} entries for {what} "{name}": give each a name of its own')


def container_name(service: str, component: str) -> str:
    """The deterministic name of a component's container: `mc-proxy`, not `mc-proxy-mc-proxy`."""
    return service if service == component else f"{service}-{component}"
