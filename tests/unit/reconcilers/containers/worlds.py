"""Worlds to plan in: a service, the containers that there are, and what becomes of them when a plan is carried out."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from api.resolve import Defaults, resolve
from api.service import Component, ContainerState, PortAllocation, RouteClaim, Service
from api.spec import ComponentSpec, RouteMode, RouteSpec, ServiceSpec
from reconcilers.base import Action, Plan
from reconcilers.containers import plan as planner
from reconcilers.containers.actions import (
    Create,
    Drain,
    GiveUp,
    Promote,
    Remove,
    Replace,
    Restore,
    Start,
    Stop,
    Unpause,
)
from reconcilers.containers.engine.request import ContainerRequest, request_for
from reconcilers.containers.model import ContainerObservation, Observation
from reconcilers.containers.restarts import RestartBackoff
from reconcilers.containers.watching.record import observed
from reconcilers.containers.world import World
from tests.unit.reconcilers.memory import newborn

NODE = "rift"
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
BACKOFF = RestartBackoff()
DEFAULTS = Defaults(registry="reg")


def spec(*components: ComponentSpec, active: bool = True) -> ServiceSpec:
    """The service `shop`; of one component `web` with one route where none is given."""
    return ServiceSpec(name="shop", active=active, components=components or (web(),))


def web(**fields: object) -> ComponentSpec:
    """The component `web` with one route."""
    return ComponentSpec.model_validate({"name": "web", "image": "i:1", "routes": [RouteSpec(port=443)], **fields})


def task(**fields: object) -> ComponentSpec:
    """The component `task`, without routes."""
    return ComponentSpec.model_validate({"name": "task", "image": "i:1", **fields})


def with_ports(service: Service, *slots: int) -> Service:
    """The service with a port for each route in these slots."""
    routes = [(component.name, route.key) for component in service.spec.components for route in component.routes]
    given = (
        PortAllocation(component=component, route=route, slot=slot, port=10000 + n + 1000 * slot)
        for n, (component, route) in enumerate(routes)
        for slot in slots
    )
    return service.model_copy(update={"ports": tuple(given)})


def shop(*components: ComponentSpec, active: bool = True, **changes: object) -> Service:
    """A service whose routes have ports."""
    return with_ports(newborn(spec(*components, active=active), **changes), 0)


def requests(service: Service, slot: int = 0) -> dict[str, ContainerRequest]:
    """What is asked for each component."""
    resolved = resolve(service.spec, DEFAULTS)
    return {component.name: request_for(service, resolved, component, NODE, slot) for component in resolved.components}


def container(
    request: ContainerRequest, state: ContainerState = ContainerState.RUNNING, **fields: object
) -> ContainerObservation:
    """The container that the engine shows after it was asked for that."""
    body = json.loads(request.body)
    shown = ContainerObservation(
        id=f"id-{request.called}",
        name=request.called,
        image=request.image,
        state=state,
        exit_code=3 if state is ContainerState.EXITED else None,
        pid=42 if state is ContainerState.RUNNING else 0,
        labels=body["labels"],
        networks=tuple(body.get("networks", ())),
        created_at=NOW - timedelta(hours=1),
        started_at=None if state is ContainerState.CREATED else NOW - timedelta(minutes=1),
        ended_at=NOW if state is ContainerState.EXITED else None,
    )
    return replace(shown, **fields)


def stranger(name: str, container_id: str = "id-stranger") -> ContainerObservation:
    """A container that nobody of ours made."""
    return ContainerObservation(id=container_id, name=name, image="x:1", state=ContainerState.RUNNING, pid=7)


def world(*containers: ContainerObservation, ready: bool = True, now: datetime = NOW) -> World:
    """What there is; all that runs is ready unless told otherwise."""
    running = frozenset(c.id for c in containers if c.running) if ready else frozenset()
    return World(NODE, Observation({c.id: c for c in containers}), running, now)


def decide(service: Service, seen: World) -> Plan:
    """The plan for a service that may be on its way out."""
    resolved = resolve(service.spec, DEFAULTS)
    if service.deleting:
        return planner.plan_deletion(service, {c.name: c for c in resolved.components}, seen)
    return planner.plan(service, resolved, seen, BACKOFF)


def noted(service: Service, seen: World, restarts: dict[str, int] | None = None) -> Service:
    """The service with its components as the recorder writes them."""
    components: tuple[Component, ...] = observed(service, seen, BACKOFF)
    counted = (c.model_copy(update={"restarts": (restarts or {}).get(c.name, c.restarts)}) for c in components)
    return service.model_copy(update={"components": tuple(counted)})


def carried_out(seen: World, actions: Iterable[Action]) -> World:
    """The world once all of it worked, and all that was started listens."""
    containers, draining = dict(seen.observation.containers), dict(seen.draining)
    for action in actions:
        match action:
            case Create():
                made = container(action.request)
                containers[made.id] = made
            case Replace():
                before = containers.pop(action.container_id)
                if action.aside:
                    containers[before.id] = replace(before, name=action.aside, state=ContainerState.EXITED, pid=0)
                made = container(action.request, id=f"{action.container_id}+")
                containers[made.id] = made
            case Promote() | Restore():
                before = containers[action.container_id]
                containers[before.id] = replace(before, name=action.name)
                if isinstance(action, Restore):
                    containers[before.id] = replace(containers[before.id], state=ContainerState.RUNNING, pid=44)
            case GiveUp():
                containers.pop(action.container_id, None)
            case Drain():
                draining[action.container_id] = seen.now
            case Start() | Unpause():
                before = containers[action.container_id]
                containers[before.id] = replace(before, state=ContainerState.RUNNING, pid=43, started_at=seen.now)
            case Stop():
                before = containers[action.container_id]
                containers[before.id] = replace(before, state=ContainerState.EXITED, pid=0, exit_code=143)
            case Remove():
                del containers[action.container_id]
    running = frozenset(c.id for c in containers.values() if c.running)
    return replace(seen, observation=Observation(containers), ready=running, draining=draining)


def story(service: Service, seen: World, limit: int = 10) -> Iterator[tuple[Service, World, Plan]]:
    """Plan after plan, until there is nothing to do: routes follow, and time passes where a plan waits for it."""
    for _ in range(limit):
        service = routed(noted(service, seen))
        plan = decide(service, seen)
        yield service, seen, plan
        if not plan.actions and plan.outcome.requeue_after is None:
            return
        seen = carried_out(seen, plan.actions)
        if not plan.actions and plan.outcome.requeue_after is not None:
            seen = replace(seen, now=seen.now + plan.outcome.requeue_after)
    raise AssertionError(f"after {limit} plans there is still {plan}")


def settled(service: Service, seen: World) -> tuple[Service, World]:
    """The service and its world once plans have nothing to do any more."""
    *_, (service, seen, _) = story(service, seen)
    return service, seen


def routed(service: Service) -> Service:
    """The service whose routes lead to where its components are."""
    claims = tuple(
        RouteClaim(
            listener=":443",
            hostname=f"{component.name}.{served.route}.test",
            component=component.name,
            route=served.route,
            mode=RouteMode.L4,
            backend=f"127.0.0.1:{served.port}",
        )
        for component in service.components
        for served in component.ports
        if component.ready and service.spec.active
    )
    return service.model_copy(update={"claims": claims})
