"""Fills in what a definition leaves to the node: the one place where defaults are derived."""

from datetime import timedelta

from pydantic import Field

from api.errors import InvalidSpec
from api.fields import PortMapping
from api.model import Model
from api.spec import (
    DEFAULT_ROUTE_KEY,
    ComponentSpec,
    HealthSpec,
    HostNamespace,
    PullPolicy,
    RestartPolicy,
    RouteMode,
    RouteSpec,
    ServiceSpec,
    Strategy,
    UpdateSpec,
    container_name,
)
from api.units import PositiveDuration, duration, size

UNNETWORKED = frozenset({"host", "none"})
"""Networks in which a container has no address of its own."""


class Defaults(Model):
    """What the agent adds to a definition that does not say otherwise."""

    network: str = Field(default="mcpnet", description="The container network.")
    user: str = Field(default="0:0", description="uid:gid inside the container.")
    restart: RestartPolicy = Field(
        default=RestartPolicy.UNLESS_STOPPED, description="When an ended container starts again."
    )
    registry: str = Field(default="", description="Prefix of derived images, host[:port][/path].")
    zone: str = Field(
        default="mcp.metacircular.net", description="DNS zone; hostnames default to <service>.svc.<zone>."
    )
    service_root: str = Field(default="/srv", description="Host folder of the derived volume <service_root>/<service>.")
    pull: PullPolicy = Field(default=PullPolicy.MISSING, description="When an image is asked of its registry.")
    stop_timeout: PositiveDuration = Field(default="10s", description="Between asking a container to end and force.")
    allow_latest: bool = Field(default=False, description="Whether an image may be tagged latest or not at all.")


class ResolvedRoute(Model):
    """A route with nothing left open."""

    component: str
    key: str
    listener: str
    hostname: str
    mode: RouteMode
    variables: tuple[str, ...]
    """The environment variables that carry its host port."""


class ResolvedHealth(Model):
    """A health check with nothing left open but the host port that it asks at. Times are in seconds."""

    http: str
    """The path; empty for another kind of check."""
    status: int | None
    tls: bool
    exec: tuple[str, ...]
    """The command; empty for a check over the network."""
    route: str
    """Key of the route at whose port it asks; empty where `port` says."""
    hostname: str
    """Of that route: the name that it is asked by; empty for a fixed port."""
    host: str
    port: int
    """Where it asks on the host, for a fixed port; 0 where `route` or `exec` says."""
    interval: float
    timeout: float
    retries: int
    start_period: float
    liveness: bool


class ResolvedUpdate(Model):
    """How a component is replaced, with nothing left open."""

    blue_green: bool
    deadline: timedelta
    drain: timedelta


class ResolvedComponent(Model):
    """A component with nothing left open but its host ports."""

    name: str
    active: bool
    """Whether it is to run."""
    container_name: str
    image: str
    network: str
    user: str
    restart: RestartPolicy
    pull: PullPolicy
    depends_on: tuple[str, ...]
    ports: tuple[PortMapping, ...]
    volumes: tuple[str, ...]
    derived_volume: str
    """Host folder of the derived volume, made when missing; empty where the definition names its own."""
    cmd: tuple[str, ...]
    entrypoint: tuple[str, ...] | None
    working_dir: str
    env: tuple[str, ...]
    secret_env: tuple[str, ...]
    """Names in `env` whose values are shown to nobody."""
    secrets: tuple[tuple[str, str], ...]
    """Of podman's that are files: name, and path in the container; an empty path is podman's own choice."""
    secret_variables: dict[str, str]
    """Of podman's that are variables: the variable's name, and the secret's."""
    labels: dict[str, str]
    extra_hosts: tuple[str, ...]
    memory: int
    """Bytes; 0: no limit."""
    cpus: float
    """Cores; 0: no limit."""
    pids: int
    """0: the engine's own limit."""
    read_only: bool
    tmpfs: tuple[str, ...]
    cap_drop: tuple[str, ...]
    cap_add: tuple[str, ...]
    privileged: bool
    host_namespaces: tuple[HostNamespace, ...]
    stop_signal: str
    stop_timeout: timedelta
    health: ResolvedHealth | None
    update: ResolvedUpdate
    routes: tuple[ResolvedRoute, ...]

    @property
    def slots(self) -> tuple[int, ...]:
        """The slots in which it needs ports: two where its containers take turns."""
        return (0, 1) if self.update.blue_green and self.routes else (0,)


class ResolvedService(Model):
    """A definition with nothing left open but its host ports."""

    name: str
    active: bool
    depends_on: tuple[str, ...]
    components: tuple[ResolvedComponent, ...]

    @property
    def routes(self) -> tuple[ResolvedRoute, ...]:
        """All routes, in the order of the definition."""
        return tuple(route for component in self.components for route in component.routes)


def resolve(spec: ServiceSpec, defaults: Defaults) -> ResolvedService:
    """The complete form of a definition on a node with these defaults.

    Raises InvalidSpec, naming the field, where something can be neither found
    nor derived, and where the node does not allow it.
    """
    components = tuple(_component(spec, index, component, defaults) for index, component in enumerate(spec.components))
    resolved = ResolvedService(name=spec.name, active=spec.active, depends_on=spec.depends_on, components=components)
    _refuse_repeated_names(resolved)
    return resolved


def _component(spec: ServiceSpec, index: int, component: ComponentSpec, defaults: Defaults) -> ResolvedComponent:
    folder = f"{defaults.service_root.rstrip('/')}/{spec.name}"
    derived = component.volumes is None
    network = component.network or defaults.network
    secrets = [_secret(entry) for entry in component.secrets]
    return ResolvedComponent(
        name=component.name,
        active=spec.runs(component.name),
        container_name=container_name(spec.name, component.name),
        image=image_reference(spec, index, defaults),
        network=network,
        user=component.user or defaults.user,
        restart=component.restart or defaults.restart,
        pull=component.pull or defaults.pull,
        depends_on=component.depends_on,
        ports=tuple(PortMapping.parse(port) for port in component.ports),
        volumes=(f"{folder}:/srv/{spec.name}",) if component.volumes is None else component.volumes,
        derived_volume=folder if derived else "",
        cmd=component.cmd,
        entrypoint=component.entrypoint,
        working_dir=component.working_dir or "",
        env=component.env,
        secret_env=component.secret_env,
        secrets=tuple((name, place) for name, place in secrets if not place.startswith("env:")),
        secret_variables={place.removeprefix("env:"): name for name, place in secrets if place.startswith("env:")},
        labels=component.labels,
        extra_hosts=component.extra_hosts,
        memory=size(component.memory) if component.memory else 0,
        cpus=component.cpus or 0,
        pids=component.pids or 0,
        read_only=component.read_only,
        tmpfs=component.tmpfs,
        cap_drop=component.cap_drop,
        cap_add=component.cap_add,
        privileged=component.privileged,
        host_namespaces=component.host_namespaces,
        stop_signal=component.stop_signal or "",
        stop_timeout=duration(component.stop_timeout or defaults.stop_timeout),
        health=_health(spec, index, component, component.health, defaults) if component.health else None,
        update=_update(index, component, network),
        routes=tuple(_route(spec, component, route, defaults) for route in component.routes),
    )


def _secret(entry: str) -> tuple[str, str]:
    name, _, place = entry.partition(":")
    return name, place


def _health(
    spec: ServiceSpec, index: int, component: ComponentSpec, health: HealthSpec, defaults: Defaults
) -> ResolvedHealth:
    mapping = _published(index, component, health.port) if health.port else None
    key = "" if health.exec or mapping else _asked_route(index, component, health.route)
    hostnames = {route.key: route.hostname or default_hostname(spec.name, defaults.zone) for route in component.routes}
    return ResolvedHealth(
        http=health.http or "",
        status=health.status,
        tls=health.tls,
        exec=health.exec,
        route=key,
        hostname=hostnames.get(key, ""),
        host=_reachable(mapping.host) if mapping else "",
        port=mapping.host_port if mapping else 0,
        interval=duration(health.interval).total_seconds(),
        timeout=duration(health.timeout).total_seconds(),
        retries=health.retries,
        start_period=duration(health.start_period).total_seconds(),
        liveness=health.liveness,
    )


def _asked_route(index: int, component: ComponentSpec, name: str | None) -> str:
    keys = [route.key for route in component.routes]
    if name is not None and name not in keys:
        raise InvalidSpec(
            f"components[{index}].health.route", f'component "{component.name}" has no route "{name}" to be asked at'
        )
    if not keys:
        raise InvalidSpec(
            f"components[{index}].health",
            f'component "{component.name}" has no route to be asked at: name a port of its ports, or use exec',
        )
    return name or keys[0]


def _published(index: int, component: ComponentSpec, port: int) -> PortMapping:
    mappings = [PortMapping.parse(text) for text in component.ports]
    found = next((one for one in mappings if one.container_port == port and one.protocol == "tcp"), None)
    if found is None:
        raise InvalidSpec(
            f"components[{index}].health.port",
            f'component "{component.name}" publishes no TCP port {port} in its ports',
        )
    return found


def _reachable(host: str) -> str:
    """Where a port that is published on `host` is found from the host itself."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # read, not bound


def _update(index: int, component: ComponentSpec, network: str) -> ResolvedUpdate:
    update = component.update or UpdateSpec()
    blue_green = update.strategy is Strategy.BLUE_GREEN
    field = f"components[{index}].update.strategy"
    if blue_green and network in UNNETWORKED:
        raise InvalidSpec(field, f'blue-green needs a network of its own, and the network is "{network}"')
    if blue_green and component.ports:
        raise InvalidSpec(field, "blue-green cannot share fixed ports between two containers: use routes instead")
    return ResolvedUpdate(blue_green=blue_green, deadline=duration(update.deadline), drain=duration(update.drain))


def image_reference(spec: ServiceSpec, index: int, defaults: Defaults) -> str:
    """What that component's image is called in full. Raises InvalidSpec where nothing says so, or pins nothing."""
    component = spec.components[index]
    field = f"components[{index}].image"
    image = component.image or _derived_image(spec, index, component, defaults)
    if "@" in image:
        return image
    tag = image.rpartition("/")[2].partition(":")[2]
    if tag in ("", "latest") and not defaults.allow_latest:
        problem = "is tagged latest" if tag else "has no tag"
        raise InvalidSpec(field, f'image "{image}" {problem}: pin a tag such as :v1.0.0 or a digest')
    return image if tag else f"{image}:latest"


def _derived_image(spec: ServiceSpec, index: int, component: ComponentSpec, defaults: Defaults) -> str:
    field = f"components[{index}].image"
    version = component.version or spec.version
    if version is None:
        raise InvalidSpec(
            field, f'component "{component.name}" has neither an image nor a version to derive it from: set one'
        )
    if not defaults.registry:
        raise InvalidSpec(
            field,
            f'component "{component.name}" names no image and the agent has no defaults.registry to derive it from',
        )
    return f"{defaults.registry.rstrip('/')}/{derived_image_name(spec, index)}:{version}"


def derived_image_name(spec: ServiceSpec, index: int) -> str:
    """What a derived image of that component is called, without registry and tag."""
    return spec.name if index == 0 else f"{spec.name}-{spec.components[index].name}"


def _route(spec: ServiceSpec, component: ComponentSpec, route: RouteSpec, defaults: Defaults) -> ResolvedRoute:
    names = []
    if len(component.routes) == 1 or route.key == DEFAULT_ROUTE_KEY:
        names.append("PORT")
    if route.name is not None:
        names.append("PORT_" + route.name.upper().replace("-", "_"))
    return ResolvedRoute(
        component=component.name,
        key=route.key,
        listener=f":{route.port}",
        hostname=route.hostname or default_hostname(spec.name, defaults.zone),
        mode=route.mode,
        variables=tuple(names),
    )


def default_hostname(service: str, zone: str) -> str:
    """The name of a service in its node's zone."""
    return f"{service}.svc.{zone}".lower()


def _refuse_repeated_names(service: ResolvedService) -> None:
    seen: dict[tuple[str, str], ResolvedRoute] = {}
    for route in service.routes:
        other = seen.setdefault((route.listener, route.hostname), route)
        if other is not route:
            raise InvalidSpec(
                "components.routes",
                f'routes "{other.component}/{other.key}" and "{route.component}/{route.key}" both want '
                f"{route.hostname} on listener {route.listener}: give one another hostname or port",
            )
