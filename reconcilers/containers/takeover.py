"""Writes the definition that running containers answer to, and what has to be known so that none is replaced. Pure.

A container of ours whose registry was lost says nearly all of it in its labels
and its request. Of a stranger's it is what podman says; what no definition can
ask for, and what goes on by itself, is told in notes.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice, permutations
from typing import Any, Final

from pydantic import ValidationError

from api.complaints import complaints
from api.errors import Refused
from api.resolve import UNNETWORKED, Defaults, default_hostname, resolve
from api.service import ContainerState, PortAllocation, Service
from api.spec import (
    DEFAULT_ROUTE_KEY,
    ComponentSpec,
    RestartPolicy,
    RouteSpec,
    ServiceSpec,
    Strategy,
    UpdateSpec,
    container_name,
)
from api.units import duration
from reconcilers.containers import model
from reconcilers.containers.engine.found import Json, found, port_text
from reconcilers.containers.engine.request import ContainerRequest, missing_ports, request_for
from reconcilers.containers.images.references import is_called, repository_of
from reconcilers.containers.model import ContainerObservation

_ORDERED: Final = {
    "cap_add": "cap_add",
    "cap_drop": "cap_drop",
    "hostadd": "extra_hosts",
    "mounts": "volumes",
    "portmappings": "ports",
    "secrets": "secrets",
}
"""Lists whose order an inspection does not tell, by the field of the request; see `changes_since`."""
_MOST_ORDERS: Final = 720

_UNTOLD: Final = {
    "Devices": "devices",
    "Dns": "name servers",
    "GroupAdd": "additional groups",
    "SecurityOpt": "security options",
    "VolumesFrom": "volumes of other containers",
}
"""What a definition cannot ask for, by libpod's name for it."""
_COMPOSE: Final = "com.docker.compose."


@dataclass(frozen=True, slots=True)
class Candidate:
    """A container that is to be a component of the service, and what the engine says of it and of its image."""

    component: str
    seen: ContainerObservation
    container: Json
    image: Json
    ours: bool
    """Whether MCP made it."""


@dataclass(frozen=True, slots=True)
class Draft:
    """What is written down when the containers are taken over."""

    spec: ServiceSpec
    ports: tuple[PortAllocation, ...]
    labels: Mapping[str, Mapping[str, str]]
    """By its id, what the labels of each container would be that does not have them."""
    requests: tuple[ContainerRequest, ...]
    """What the engine would be asked for, were the containers made now."""
    names: Mapping[str, str]
    """By its id, what each container must be called that is called otherwise."""
    containers: tuple[str, ...]
    """As they are called now."""
    notes: tuple[str, ...]
    """For a person: what podman does not tell, and what will be otherwise."""


Routes = Mapping[tuple[str, str], RouteSpec]
"""How people reach the routes, by component and route key."""


def draft(name: str, candidates: Sequence[Candidate], routes: Routes, node: str, defaults: Defaults) -> Draft:
    """The definition of a service of these containers. Raises Refused, InvalidSpec."""
    return _Takeover(name, candidates, routes, node, defaults).draft()


@dataclass(frozen=True, slots=True)
class _Takeover:
    name: str
    candidates: Sequence[Candidate]
    routes: Routes
    node: str
    defaults: Defaults
    notes: list[str] = field(default_factory=list)

    def draft(self) -> Draft:
        """See above."""
        self._refuse_pods()
        ports = tuple(port for one in self.candidates for port in _allocations(one))
        running = any(map(_runs, self.candidates))
        components = [self._component(one, running) for one in self.candidates]
        self._note_what_is_not_told()
        spec = self._valid({"name": self.name, "active": running, "components": components})
        spec = self._with_environment(spec, ports)
        for one in self.candidates:
            spec = self._ordered(spec, ports, one)
        requests = {one.component: self._known_request(spec, ports, one) for one in self.candidates}
        labels = {
            one.seen.id: _labels(requests[one.component]) for one in self.candidates if self._lacks(one, requests)
        }
        return Draft(
            spec=spec,
            ports=ports,
            labels=labels,
            requests=tuple(requests.values()),
            names={one.seen.id: self._called(one) for one in self.candidates if self._is_misnamed(one)},
            containers=tuple(one.seen.name for one in self.candidates),
            notes=tuple(self.notes),
        )

    def _called(self, one: Candidate) -> str:
        return container_name(self.name, one.component)

    def _is_misnamed(self, one: Candidate) -> bool:
        # One of ours may be called otherwise while it takes another's place.
        if one.ours or one.seen.name == self._called(one):
            return False
        self.notes.append(f"{one.seen.name} is called {self._called(one)} from now on")
        return True

    def _refuse_pods(self) -> None:
        for one in self.candidates:
            mode = str(one.container["HostConfig"].get("NetworkMode") or "")
            if one.container.get("Pod") or mode.startswith(("container:", "ns:")):
                raise Refused(
                    f"container {one.seen.name} shares the network of a pod or of another container, "
                    "which no definition can ask for: define the service anew instead"
                )

    def _note_what_is_not_told(self) -> None:
        if any(one.ours for one in self.candidates):
            self.notes.append(
                "no container tells of depends_on, health, pull, restart, update.deadline and update.drain, "
                "nor of version, path, build and snapshot: say again what was said of them"
            )

    def _component(self, one: Candidate, running: bool) -> dict[str, Any]:
        told = found(one.container, one.image)
        config, host = one.container["Config"], one.container["HostConfig"]
        fields: dict[str, Any] = told.model_dump(mode="json", exclude_defaults=True) | {"name": one.component}
        fields |= self._named_defaults(one, told)
        fields["labels"] = {key: value for key, value in told.labels.items() if not key.startswith(_COMPOSE)}
        fields["active"] = _runs(one) or not running
        fields["routes"] = [route.model_dump(mode="json") for route in self._routes(one)]
        served = {
            port_text("127.0.0.1", at.port, inside, "tcp")
            for at, inside in zip(one.seen.routes, one.seen.listens_on, strict=True)
        }
        fields["ports"] = [port for port in told.ports if port not in served]
        if one.seen.slot:
            fields["update"] = UpdateSpec(strategy=Strategy.BLUE_GREEN).model_dump(mode="json")
        if not one.ours:
            self._note_what_a_stranger_keeps(one)
        if config.get("Secrets"):
            self.notes.append(f"{one.seen.name}: podman does not tell at which paths its secrets lie: see to secrets")
        if unknown := [words for key, words in _UNTOLD.items() if host.get(key)]:
            self.notes.append(f"{one.seen.name}: the next change loses what it has of {', '.join(unknown)}")
        return fields

    def _named_defaults(self, one: Candidate, told: ComponentSpec) -> dict[str, Any]:
        """Fields whose absence means the node's value and not podman's."""
        config = one.container["Config"]
        derived = f"{self.defaults.service_root.rstrip('/')}/{self.name}:/srv/{self.name}"
        policy = None if one.ours else told.restart or RestartPolicy.NO
        stop = f"{config.get('StopTimeout', 10)}s"
        fields: dict[str, Any] = {
            "image": one.container.get("ImageName") if one.ours else _pinned(one),
            "network": _unless(self._network(one, told), self.defaults.network),
            "user": _unless(config.get("User") or one.image.get("User") or "0:0", self.defaults.user),
            "restart": _unless(policy, self.defaults.restart),
            "stop_timeout": None if duration(stop) == duration(self.defaults.stop_timeout) else stop,
            "volumes": None if told.volumes == (derived,) else list(told.volumes or ()),
        }
        return fields

    def _network(self, one: Candidate, told: ComponentSpec) -> str:
        joined = sorted((one.container.get("NetworkSettings") or {}).get("Networks") or {})
        if not joined:
            mode = told.network or ""
            if mode in UNNETWORKED:
                return mode
            self.notes.append(f"{one.seen.name}: the next change moves it from podman's {mode or 'default'} network")
            return self.defaults.network
        if joined[1:]:
            self.notes.append(f"{one.seen.name}: the next change takes it from the networks {', '.join(joined[1:])}")
        return str(joined[0])

    def _routes(self, one: Candidate) -> Iterator[RouteSpec]:
        for served in one.seen.routes:
            known = self.routes.get((one.component, served.route))
            if known is None:
                raise Refused(
                    f"nobody knows by which name and port people reach route {one.component}/{served.route} of "
                    f"container {one.seen.name}, as mc-proxy leads nowhere to 127.0.0.1:{served.port}: "
                    f"say --route {one.component}/{served.route}=PORT[:MODE[:HOSTNAME]]"
                )
            name = None if served.route == DEFAULT_ROUTE_KEY else served.route
            default = default_hostname(self.name, self.defaults.zone)
            yield known.model_copy(update={"name": name, "hostname": _unless(known.hostname, default)})

    def _note_what_a_stranger_keeps(self, one: Candidate) -> None:
        called, config = one.seen.name, one.container["Config"]
        policy = (one.container["HostConfig"].get("RestartPolicy") or {}).get("Name") or "no"
        if policy != "no":
            self.notes.append(
                f"{called}: podman goes on restarting it by itself (restart policy {policy}) until the next change"
            )
        if unit := (config.get("Labels") or {}).get("PODMAN_SYSTEMD_UNIT"):
            self.notes.append(f"{called}: systemd has a unit {unit} for it: disable that, or two will have their way")
        if config.get("Healthcheck"):
            self.notes.append(f"{called}: podman's health check of it is not taken over: see to health")
        for mount in one.container.get("Mounts") or ():
            if mount["Type"] == "volume":
                self.notes.append(
                    f"{called}: what lies at {mount['Destination']} is podman's volume {mount.get('Name', '')}, "
                    f"that is {mount['Source']}"
                )

    def _valid(self, fields: Mapping[str, Any]) -> ServiceSpec:
        try:
            # As JSON, in which lists are tuples and texts are enums.
            return ServiceSpec.model_validate_json(json.dumps(fields))
        except ValidationError as error:
            first = complaints(error)[0]
            raise Refused(
                f"what runs cannot be defined: {first.field}: {first.message}; "
                "--container NAME=COMPONENT says what is to be taken over, and as what"
            ) from error

    def _with_environment(self, spec: ServiceSpec, ports: tuple[PortAllocation, ...]) -> ServiceSpec:
        """Without the variables by which MCP tells its containers what they are."""
        bare = _with(spec, {component.name: {"env": ()} for component in spec.components})
        kept = {}
        for one in self.candidates:
            if one.ours and (request := self._request(bare, ports, one)) is not None:
                told = json.loads(request.body)["env"]
                env = _component_of(spec, one.component).env
                kept[one.component] = {"env": tuple(entry for entry in env if entry.partition("=")[0] not in told)}
        return _with(spec, kept)

    def _ordered(self, spec: ServiceSpec, ports: tuple[PortAllocation, ...], one: Candidate) -> ServiceSpec:
        """With lists in the order in which the container was asked for."""
        if not one.ours:
            return spec
        for changed, name in _ORDERED.items():
            values = getattr(_component_of(spec, one.component), name) or ()
            for order in islice(permutations(values), _MOST_ORDERS):
                tried = _with(spec, {one.component: {name: order}}) if values else spec
                request = self._request(tried, ports, one)
                if request is None or changed not in request.changes_since(one.seen.labels):
                    spec = tried
                    break
        return spec

    def _lacks(self, one: Candidate, requests: Mapping[str, ContainerRequest]) -> bool:
        """Whether its own labels do not say that it is what is defined."""
        request = requests[one.component]
        if not one.ours:
            return True
        if one.seen.labels.get(model.SPEC_HASH) == request.spec_hash:
            return False
        fields = ", ".join(request.changes_since(one.seen.labels)) or "its definition"
        self.notes.append(f"{one.seen.name}: what podman says is not all that it was made from ({fields})")
        return True

    def _known_request(self, spec: ServiceSpec, ports: tuple[PortAllocation, ...], one: Candidate) -> ContainerRequest:
        request = self._request(spec, ports, one)
        if request is None:
            raise Refused(f"the ports of container {one.seen.name} are not those that its labels say")
        return request

    def _request(self, spec: ServiceSpec, ports: tuple[PortAllocation, ...], one: Candidate) -> ContainerRequest | None:
        now = datetime.now(UTC)
        service = Service(
            uid="", name=spec.name, node=self.node, generation=1, spec=spec, created_at=now, updated_at=now, ports=ports
        )
        resolved = resolve(spec, self.defaults)
        component = next(component for component in resolved.components if component.name == one.component)
        if missing_ports(service, component, one.seen.slot):
            return None
        return request_for(service, resolved, component, self.node, one.seen.slot)


def _labels(request: ContainerRequest) -> dict[str, str]:
    labels: dict[str, str] = json.loads(request.body)["labels"]
    return labels


def _runs(one: Candidate) -> bool:
    return one.seen.state in (ContainerState.RUNNING, ContainerState.PAUSED)


def _allocations(one: Candidate) -> Iterator[PortAllocation]:
    for served, inside in zip(one.seen.routes, one.seen.listens_on, strict=True):
        if one.seen.slot:
            # Inside, a route is at the port of the first slot in both.
            yield PortAllocation(component=one.component, route=served.route, port=inside)
        yield PortAllocation(component=one.component, route=served.route, port=served.port, slot=one.seen.slot)


def _pinned(one: Candidate) -> str:
    """The image by a tag that stands for it, or by its digest."""
    name = str(one.container.get("ImageName") or "")
    tags = [str(tag) for tag in one.image.get("RepoTags") or ()]
    digests = [str(digest) for digest in one.image.get("RepoDigests") or ()]
    if "@" in name or (_is_pinned(name) and any(is_called(tag, name) for tag in tags)):
        return name
    same = [tag for tag in tags if _is_pinned(tag) and repository_of(tag) == repository_of(name)]
    known = [digest for digest in digests if repository_of(digest) == repository_of(name)]
    return next(iter([*same, *known, *filter(_is_pinned, tags), *digests]), name)


def _is_pinned(name: str) -> bool:
    return name.rpartition("/")[2].partition(":")[2] not in ("", "latest")


def _unless(value: Any, default: Any) -> Any:
    return None if value == default else value


def _component_of(spec: ServiceSpec, name: str) -> ComponentSpec:
    return next(component for component in spec.components if component.name == name)


def _with(spec: ServiceSpec, updates: Mapping[str, Mapping[str, Any]]) -> ServiceSpec:
    components = tuple(one.model_copy(update=dict(updates.get(one.name, {}))) for one in spec.components)
    return spec.model_copy(update={"components": components})
