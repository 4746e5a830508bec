"""Takes over containers that run without a definition: looks for them, has one written, and makes them known as ours.

Nothing is restarted, and nothing but what MCP made itself, or what somebody
named, is touched. Of a stranger's container all that changes is its name, where
that is not the component's.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from pydantic import ValidationError

from api.complaints import complaints
from api.errors import NotFound, Refused, Unreachable
from api.resolve import Defaults
from api.service import Service
from api.spec import RouteMode, RouteSpec, container_name
from controller.registry import Adoption, Registry
from reconcilers.base import PortTaken, Terminal, Transient
from reconcilers.containers import model
from reconcilers.containers.engine.adoptions import Adoptions
from reconcilers.containers.engine.transport import EngineError
from reconcilers.containers.guard import Guard
from reconcilers.containers.model import ContainerObservation, Observation
from reconcilers.containers.takeover import Candidate, Draft, draft
from reconcilers.routes.model import NOTHING, Listing

_LEAST_ID: Final = 12
"""Characters by which a container's id is known."""


class Engine(Protocol):
    """What is asked of the engine; see reconcilers.containers.engine.podman."""

    adoptions: Adoptions

    async def inspect(self, container_id: str) -> dict[str, Any]:
        """All of one container."""
        ...

    async def inspect_image(self, image: str) -> dict[str, Any]:
        """All of an image."""
        ...

    async def rename(self, container_id: str, name: str) -> None:
        """Gives a container another name."""
        ...


class Picture(Protocol):
    """What runs on the node; see reconcilers.containers.watching.picture."""

    async def refresh(self, *ids: str) -> Observation:
        """As it is after another look."""
        ...


class Proxy(Protocol):
    """The proxy's table."""

    async def listing(self) -> Listing:
        """All routes."""
        ...


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be taken over, and how."""

    service: str
    containers: Mapping[str, str]
    """By the name or id of a container that MCP did not make, the component that it is to be; empty: by their names."""
    routes: Mapping[str, str]
    """By `component/route`, `PORT[:MODE[:HOSTNAME]]`, where the proxy does not know it."""


@dataclass(frozen=True, slots=True)
class Adopter:
    """The adoptions of one node."""

    node: str
    defaults: Defaults
    registry: Registry
    engine: Engine
    picture: Picture
    proxy: Proxy | None
    guard: Guard

    async def draft(self, wish: Wish) -> Draft:
        """The definition of what is to be taken over. Raises NotFound, Refused, InvalidSpec, Unreachable."""
        try:
            observation = await self.picture.refresh()
            chosen = dict(await self._chosen(wish, observation))
            if not chosen:
                raise NotFound(
                    f"no container is called {wish.service} or {wish.service}-COMPONENT without having a definition: "
                    "mcp ps shows what there is, --container NAME=COMPONENT takes over one that is called otherwise"
                )
            order = sorted(chosen, key=lambda component: (component != wish.service, component))
            candidates = [await self._candidate(component, chosen[component]) for component in order]
            routes = await self._routes(candidates) | _given(wish.routes)
            drafted = draft(wish.service, candidates, routes, self.node, self.defaults)
        except Transient as failure:
            raise Unreachable(failure.message) from failure
        except (EngineError, Terminal) as failure:
            raise Refused(failure.message) from failure
        for container_id, name in drafted.names.items():
            holder = observation.named(name)
            if holder is not None and holder.id != container_id:
                raise Refused(f"another container is called {name}: rename or remove it first")
        return replace(drafted, notes=(*drafted.notes, *self._forbidden(drafted)))

    def _forbidden(self, drafted: Draft) -> Iterator[str]:
        for request in drafted.requests:
            try:
                self.guard.check(request)
            except Terminal as refusal:
                yield f"{refusal.message}; it runs on, and the next change waits for that"

    async def take(self, drafted: Draft, actor: str) -> Service:
        """Makes the containers known as the new service's. Raises Refused, StaleGeneration, Unreachable."""
        renamed: dict[str, str] = {}
        before = {one.id: one.name for one in await self._look()}
        # Before anybody looks for the containers of that service: they are found, and as they are wanted.
        self.engine.adoptions.remember(drafted.labels)
        try:
            for container_id, name in drafted.names.items():
                await self.engine.rename(container_id, name)
                renamed[container_id] = before.get(container_id, "")
            await self._look()
            return await self.registry.adopt(Adoption(drafted.spec, drafted.ports, drafted.labels), actor=actor)
        except BaseException as error:
            self.engine.adoptions.forget(drafted.labels)
            for container_id, name in renamed.items():
                with suppress(EngineError, Transient):
                    await self.engine.rename(container_id, name)
            with suppress(Unreachable):
                await self._look()
            if isinstance(error, EngineError | PortTaken):
                raise Refused(f"nothing was taken over: {error}") from error
            raise

    async def _look(self) -> Observation:
        try:
            return await self.picture.refresh()
        except Transient as failure:
            raise Unreachable(failure.message) from failure

    async def _chosen(self, wish: Wish, observation: Observation) -> Iterator[tuple[str, ContainerObservation]]:
        ours: dict[str, ContainerObservation] = {}
        for one in observation.owned(self.node, wish.service):
            if one.component not in ours or one.name == container_name(wish.service, one.component):
                ours[one.component] = one
        if wish.containers:
            others = [(component, self._named(name, observation)) for name, component in wish.containers.items()]
        else:
            others = list(_by_name(wish.service, observation, await self._defined()))
        for component, one in others:
            if component in ours and ours[component].id != one.id:
                raise Refused(f"containers {ours[component].name} and {one.name} both want to be {component}")
            ours[component] = one
        return iter(ours.items())

    def _named(self, name: str, observation: Observation) -> ContainerObservation:
        found = observation.named(name)
        if found is None and len(name) >= _LEAST_ID:
            found = next((one for one in observation if one.id.startswith(name)), None)
        if found is None:
            raise NotFound(f"there is no container {name} on node {self.node}: mcp ps shows what there is")
        if found.owned_by(self.node):
            raise Refused(f"container {name} is of service {found.service}: mcp adopt {found.service} takes it over")
        return found

    async def _defined(self) -> frozenset[str]:
        """The names of the containers that other services have, or wait for."""
        services = await self.registry.services()
        return frozenset(container_name(one.name, part.name) for one in services for part in one.spec.components)

    async def _candidate(self, component: str, seen: ContainerObservation) -> Candidate:
        container = await self.engine.inspect(seen.id)
        image = await self.engine.inspect_image(container["Image"])
        return Candidate(component, seen, container, image, seen.owned_by(self.node))

    async def _routes(self, candidates: list[Candidate]) -> dict[tuple[str, str], RouteSpec]:
        """How the proxy leads to the routes that the containers' labels name."""
        served = {f"127.0.0.1:{at.port}": (one.component, at.route) for one in candidates for at in one.seen.routes}
        listing = await self.proxy.listing() if served and self.proxy is not None else NOTHING
        found: dict[tuple[str, str], RouteSpec] = {}
        for route in sorted(listing.routes.values(), key=lambda route: route.key):
            key, port = served.get(route.backend), route.listener.rpartition(":")[2]
            if key is not None and port.isdecimal():
                found.setdefault(key, RouteSpec(port=int(port), mode=route.mode, hostname=route.hostname))
        return found


def _by_name(
    service: str, observation: Observation, defined: frozenset[str]
) -> Iterator[tuple[str, ContainerObservation]]:
    """The containers that nobody's MCP made and whose names say that they are the service's."""
    for one in observation:
        if model.MANAGED_BY in one.labels or one.name in defined:
            continue
        if one.name == service:
            yield service, one
        elif one.name.startswith(f"{service}-"):
            yield one.name.removeprefix(f"{service}-"), one


def _given(routes: Mapping[str, str]) -> dict[tuple[str, str], RouteSpec]:
    found = {}
    for name, value in routes.items():
        component, _, key = name.partition("/")
        port, _, rest = value.partition(":")
        mode, _, hostname = rest.partition(":")
        try:
            route = RouteSpec.model_validate(
                {"port": int(port), "mode": RouteMode(mode or RouteMode.L4), "hostname": hostname or None}
            )
        except ValidationError as error:
            raise Refused(f"route {name}: {complaints(error)[0].message}") from error
        except ValueError as error:
            raise Refused(f'route {name}: "{value}" is not of the form PORT[:MODE[:HOSTNAME]]') from error
        found[component, key or "default"] = route
    return found
