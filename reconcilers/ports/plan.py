"""Which route gets which host port: the whole decision, and nothing but the decision.

A component whose containers take turns needs two ports for each route, one a
slot: the old container and the new one run side by side.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import chain
from typing import ClassVar

from api.conditions import Reason, Status
from api.resolve import ResolvedService
from api.service import FieldChange, Finalizer, PortAllocation, Service
from reconcilers.base import CONVERGED, NOT_NEEDED, Action, Outcome, Plan, Terminal

# Whatever may still lead to a port has to go before the port is given to somebody else.
_GO_FIRST = frozenset({Finalizer.ROUTES, Finalizer.CONTAINERS, Finalizer.CERTS})
_LOOK_AGAIN = timedelta(seconds=1)
_SOON = timedelta(milliseconds=10)

_Key = tuple[str, str, int]
"""Component, route and slot: what a port is given to."""


@dataclass(frozen=True, slots=True)
class PortAction(Action):
    """Something to do with the port of one route of one component."""

    component: str
    route: str
    port: int
    slot: int = field(default=0, kw_only=True)

    @property
    def subject(self) -> str:
        """`component/route`, and the slot where it is not the first."""
        return f"{self.component}/{self.route}" + (f" (slot {self.slot})" if self.slot else "")


@dataclass(frozen=True, slots=True)
class Allocate(PortAction):
    """Gives a port to a route that has none in that slot."""

    verb: ClassVar[str] = "allocated"

    def describe(self) -> str:
        """One line for a person."""
        return f"allocate port {self.port} to {self.subject}"


@dataclass(frozen=True, slots=True)
class Reallocate(PortAction):
    """Gives another port to a route whose port `old` turned out to be somebody else's, or the same once more."""

    old: int
    verb: ClassVar[str] = "reallocated"

    def describe(self) -> str:
        """One line for a person."""
        if self.port == self.old:
            return f"try port {self.port} for {self.subject} once more"
        return f"allocate port {self.port} to {self.subject} (port {self.old} is taken by somebody else)"

    def differences(self) -> tuple[FieldChange, ...]:
        """The port, where it is another one."""
        return () if self.port == self.old else (FieldChange(path="port", old=str(self.old), new=str(self.port)),)


@dataclass(frozen=True, slots=True)
class Release(PortAction):
    """Takes a port back."""

    verb: ClassVar[str] = "released"

    def describe(self) -> str:
        """One line for a person."""
        return f"release port {self.port} of {self.subject}"


@dataclass(frozen=True, slots=True)
class Node:
    """The ports of the node, as far as they matter to a choice."""

    low: int
    high: int
    """First and last port that may be given."""
    taken: frozenset[int]
    """Given to a route of another service, or found in use."""
    ephemeral: range
    """Where the kernel takes the ports of outgoing connections from: given only when no other is left."""


def plan(service: Service, desired: ResolvedService, node: Node) -> Plan:
    """What to do for a service that is wanted, running or not.

    An allocation that stands is never moved: what listens on it is our own
    container. Raises Terminal when no port is left.
    """
    wanted = _wanted(desired)
    dropped = [allocation for allocation in service.ports if _key(allocation) not in wanted]
    # The proxy may still lead there: a port given away now would carry one service's name to another.
    routed = [allocation for allocation in dropped if _is_routed(service, allocation)]
    routes = {(component, route) for component, route, _ in wanted}
    used = [allocation for allocation in dropped if _is_used(service, allocation, routes)]
    releases = tuple(_release(allocation) for allocation in dropped if allocation not in routed + used)
    try:
        chosen = tuple(_choose(service, desired, node))
    except Terminal:
        if not releases:
            raise
        what_is_left = Outcome(Status.FALSE, Reason.PROGRESSING, "no port is free: gives back its own first", _SOON)
        return Plan(releases, what_is_left)
    outcome = CONVERGED if wanted else NOT_NEEDED
    if routed:
        outcome = Outcome(outcome.status, outcome.reason, "a dropped route is still in the proxy", _LOOK_AGAIN)
    return Plan((*chosen, *releases), outcome)


def is_settled(service: Service, desired: ResolvedService) -> bool:
    """Whether every route has its ports: what the node has does not matter then."""
    fixed = _fixed(desired)
    return all(_holds(service.port(*key), fixed) for key in _wanted(desired))


def plan_deletion(service: Service) -> Plan:
    """What to do for a service on its way out: keep the ports until nothing can lead to them."""
    waiting = [finalizer for finalizer in service.finalizers if finalizer in _GO_FIRST]
    if waiting:
        return Plan((), Outcome(Status.FALSE, Reason.TERMINATING, f"waits until its {', '.join(waiting)} are gone"))
    return Plan(tuple(_release(allocation) for allocation in service.ports), NOT_NEEDED)


def given(plan: Plan) -> frozenset[int]:
    """The ports that a plan gives to routes."""
    return frozenset(action.port for action in plan.actions if isinstance(action, Allocate | Reallocate))


def assume(service: Service, actions: Iterable[Action]) -> Service:
    """The service with the allocations that `actions` leave behind."""
    ports = {_key(allocation): allocation for allocation in service.ports}
    for action in actions:
        match action:
            case Allocate() | Reallocate():
                allocation = PortAllocation(
                    component=action.component, route=action.route, slot=action.slot, port=action.port
                )
                ports[_key(allocation)] = allocation
            case Release():
                ports.pop((action.component, action.route, action.slot), None)
    return service.model_copy(update={"ports": tuple(ports.values())})


def _choose(service: Service, desired: ResolvedService, node: Node) -> Iterator[PortAction]:
    fixed = _fixed(desired)
    taken = node.taken.union(fixed, (allocation.port for allocation in service.ports))
    for component, route, slot in sorted(_wanted(desired)):
        current = service.port(component, route, slot)
        if _holds(current, fixed):
            continue
        place = f"{service.name}/{component}/{route}" + (f"/{slot}" if slot else "")
        free = (port for port in _candidates(place, node) if port not in taken)
        port = next(free, None)
        if port is None and current is not None and current.port not in fixed and current.port not in node.taken:
            # There is no other, and whoever took this one may be gone by now.
            port = current.port
        if port is None:
            raise Terminal(
                Reason.PORTS_EXHAUSTED,
                f"no port is free between {node.low} and {node.high}: widen [ports] in the agent's settings",
            )
        taken |= {port}
        if current is None:
            yield Allocate(component, route, port, slot=slot)
        else:
            yield Reallocate(component, route, port, old=current.port, slot=slot)


def _candidates(key: str, node: Node) -> Iterator[int]:
    """Every port from a place of the key's own on, so that a service applied anew tends to get those it had."""
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])
    below = range(node.low, min(node.high + 1, node.ephemeral.start))
    above = range(max(node.low, node.ephemeral.stop), node.high + 1)
    inside = range(max(node.low, node.ephemeral.start), min(node.high + 1, node.ephemeral.stop))
    return chain(_turned(place, below, above), _turned(place, inside))


def _turned(place: int, *ranges: range) -> Iterator[int]:
    """Every number of the ranges once, beginning at some place among them."""
    count = sum(map(len, ranges))
    for index in range(place, place + count):
        left = index % count
        for numbers in ranges:
            if left < len(numbers):
                yield numbers[left]
                break
            left -= len(numbers)


def _wanted(desired: ResolvedService) -> frozenset[_Key]:
    return frozenset(
        (component.name, route.key, slot)
        for component in desired.components
        for route in component.routes
        for slot in component.slots
    )


def _fixed(desired: ResolvedService) -> frozenset[int]:
    """The host ports that the definition names itself. Whichever address they are on, there are others."""
    return frozenset(mapping.host_port for component in desired.components for mapping in component.ports)


def _holds(allocation: PortAllocation | None, fixed: Collection[int]) -> bool:
    return allocation is not None and not allocation.contested and allocation.port not in fixed


def _is_routed(service: Service, allocation: PortAllocation) -> bool:
    """Whether the proxy may lead to the port. What a claim says nothing of yet may lead to any port of its route."""
    backend = f"127.0.0.1:{allocation.port}"
    return any(
        claim.backend == backend
        or (not claim.backend and (claim.component, claim.route) == (allocation.component, allocation.route))
        for claim in service.claims
    )


def _is_used(service: Service, allocation: PortAllocation, routes: Collection[tuple[str, str]]) -> bool:
    """Whether the component's container still is in a slot that is not needed any more."""
    component = service.component(allocation.component)
    kept = (allocation.component, allocation.route) in routes
    return kept and component is not None and component.slot == allocation.slot


def _key(allocation: PortAllocation) -> _Key:
    return allocation.component, allocation.route, allocation.slot


def _release(allocation: PortAllocation) -> Release:
    return Release(allocation.component, allocation.route, allocation.port, slot=allocation.slot)
