"""Fills in what a definition leaves to the node: the one place where defaults are derived."""

from pydantic import Field

from api.errors import InvalidSpec
from api.model import Model
from api.spec import (
    DEFAULT_ROUTE_KEY,
    ComponentSpec,
    PortMapping,
    RestartPolicy,
    RouteMode,
    RouteSpec,
    ServiceSpec,
    container_name,
)


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


class ResolvedComponent(Model):
    """A component with nothing left open but its host ports."""

    name: str
    container_name: str
    image: str
    network: str
    user: str
    restart: RestartPolicy
    ports: tuple[PortMapping, ...]
    volumes: tuple[str, ...]
    derived_volume: str
    """Host folder of the derived volume, made when missing; empty where the definition names its own."""
    cmd: tuple[str, ...]
    env: tuple[str, ...]
    routes: tuple[ResolvedRoute, ...]


class ResolvedService(Model):
    """A definition with nothing left open but its host ports."""

    name: str
    active: bool
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
    resolved = ResolvedService(name=spec.name, active=spec.active, components=components)
    _refuse_repeated_names(resolved)
    return resolved


def _component(spec: ServiceSpec, index: int, component: ComponentSpec, defaults: Defaults) -> ResolvedComponent:
    folder = f"{defaults.service_root.rstrip('/')}/{spec.name}"
    derived = component.volumes is None
    return ResolvedComponent(
        name=component.name,
        container_name=container_name(spec.name, component.name),
        image=_image(spec, index, component, defaults),
        network=component.network or defaults.network,
        user=component.user or defaults.user,
        restart=component.restart or defaults.restart,
        ports=tuple(PortMapping.parse(port) for port in component.ports),
        volumes=(f"{folder}:/srv/{spec.name}",) if component.volumes is None else component.volumes,
        derived_volume=folder if derived else "",
        cmd=component.cmd,
        env=component.env,
        routes=tuple(_route(spec, component, route, defaults) for route in component.routes),
    )


def _image(spec: ServiceSpec, index: int, component: ComponentSpec, defaults: Defaults) -> str:
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
    name = spec.name if index == 0 else f"{spec.name}-{component.name}"
    return f"{defaults.registry.rstrip('/')}/{name}:{version}"


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
