"""Observes the node's ports, has the choice made, and writes it to the registry."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import ClassVar

from api.conditions import ConditionType, Reason
from api.resolve import Defaults, ResolvedService
from api.service import Finalizer, Service
from reconcilers.base import Action, Plan, PortTaken, Registry, Terminal, Transient
from reconcilers.definition import resolved
from reconcilers.ports import plan as planner
from reconcilers.ports.linux import ephemeral_ports, is_bindable
from reconcilers.ports.plan import Allocate, Node, Reallocate, Release

_AT_ONCE = timedelta(milliseconds=10)
_MOST_AHEAD = 1024
"""Ports looked at together, at 20 microseconds each."""


@dataclass(frozen=True, slots=True)
class PortSettings:
    """The ports that may be given: from `low` to `high`, both included."""

    low: int = 10000
    high: int = 60000


class Ports:
    """Gives each route a free host port, in each slot that it needs. Implements reconcilers.base.Reconciler.

    `wake` is called with the name of each service that must be looked at
    again. `is_free` says whether anybody uses a port now; it raises OSError
    where it cannot know.
    """

    name: ClassVar[str] = "ports"
    condition: ClassVar[ConditionType] = ConditionType.PORTS_ALLOCATED
    finalizer: ClassVar[Finalizer] = Finalizer.PORTS

    def __init__(
        self,
        registry: Registry,
        defaults: Defaults,
        settings: PortSettings,
        wake: Callable[[str], None],
        is_free: Callable[[int], bool] = is_bindable,
    ) -> None:
        self._registry = registry
        self._defaults = defaults
        self._settings = settings
        self._wake = wake
        self._is_free = is_free
        # Only faster: the driver looks at them again by itself, ever more seldom.
        self._short_of_ports: set[str] = set()

    async def plan(self, service: Service, *, attend: bool = True) -> Plan:
        """What to do about the service's ports. Raises Terminal when none is left."""
        if service.deleting:
            return planner.plan_deletion(service)
        desired = resolved(service, self._defaults)
        try:
            return await self._choose(service, desired)
        except Terminal:
            if attend:
                self._short_of_ports.add(service.name)
            raise
        except OSError as error:
            raise Transient(Reason.INTERNAL_ERROR, f"cannot see which ports are in use: {error}") from error

    async def execute(self, service: Service, action: Action) -> None:
        """Writes one allocation or release. Raises Transient when another service was quicker."""
        match action:
            case Allocate() | Reallocate():
                place = (service.name, action.component, action.route, action.port, action.slot)
                try:
                    await self._registry.allocate_port(*place)
                except PortTaken as error:
                    message = f"port {action.port} was given to another route meanwhile: choosing again"
                    raise Transient(Reason.PORT_IN_USE, message, delay=_AT_ONCE) from error
            case Release():
                await self._registry.release_port(service.name, action.component, action.route, action.slot)
                self._wake_those_who_wait()
            case _:
                raise TypeError(f"not an action of {self.name}: {action!r}")

    def assume(self, service: Service, actions: Sequence[Action]) -> Service:
        """The service once `actions` worked."""
        return planner.assume(service, actions)

    async def _choose(self, service: Service, desired: ResolvedService) -> Plan:
        """Plans until every port that is chosen turns out to be free."""
        node = await self._node(service, desired)
        ahead = 1
        while True:
            plan = planner.plan(service, desired, node)
            in_use = await self._in_use(planner.given(plan), ahead)
            if not in_use:
                return plan
            node = replace(node, taken=node.taken | in_use)
            # Who has many ports has them in a row: a whole range of them is found in a few rounds.
            ahead = min(2 * ahead, _MOST_AHEAD)

    async def _node(self, service: Service, desired: ResolvedService) -> Node:
        taken: frozenset[int] = frozenset()
        if not planner.is_settled(service, desired):
            taken = await self._registry.allocated_ports() - {allocation.port for allocation in service.ports}
        return Node(self._settings.low, self._settings.high, taken, ephemeral_ports())

    async def _in_use(self, chosen: Collection[int], ahead: int) -> frozenset[int]:
        """Which of the chosen ports somebody has or wants; where any is, also of the `ahead` that follow each."""
        named = {port.mapping.host_port for port in await self._registry.fixed_ports(chosen)} if chosen else set()
        in_use = named.union(port for port in chosen if not self._is_free(port))
        if ahead > 1 and in_use:
            end = self._settings.high + 1
            following = {near for port in in_use for near in range(port + 1, min(port + ahead, end))}
            in_use |= await asyncio.to_thread(lambda: {port for port in following if not self._is_free(port)})
        return frozenset(in_use)

    def _wake_those_who_wait(self) -> None:
        waiting, self._short_of_ports = self._short_of_ports, set()
        for service in waiting:
            self._wake(service)
