"""Observes the node's ports, has the choice made, and writes it to the registry."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from api.conditions import ConditionType, Reason
from api.errors import InvalidSpec
from api.resolve import Defaults, resolve
from api.service import Finalizer, Service
from reconcilers.base import Action, Plan, PortTaken, Registry, Terminal, Transient
from reconcilers.ports import plan as planner
from reconcilers.ports.linux import ephemeral_ports, ports_in_use
from reconcilers.ports.plan import Allocate, Node, Reallocate, Release

_AT_ONCE = timedelta(milliseconds=10)


@dataclass(frozen=True, slots=True)
class PortSettings:
    """The ports that may be given: from `low` to `high`, both included."""

    low: int = 10000
    high: int = 60000


class Ports:
    """Gives each route a free host port. Implements reconcilers.base.Reconciler.

    `listening` returns the ports that anybody uses now and may block; it
    raises OSError.
    """

    name: ClassVar[str] = "ports"
    condition: ClassVar[ConditionType] = ConditionType.PORTS_ALLOCATED
    finalizer: ClassVar[Finalizer] = Finalizer.PORTS

    def __init__(
        self,
        registry: Registry,
        defaults: Defaults,
        settings: PortSettings,
        listening: Callable[[], frozenset[int]] = ports_in_use,
    ) -> None:
        self._registry = registry
        self._defaults = defaults
        self._settings = settings
        self._listening = listening

    async def plan(self, service: Service) -> Plan:
        """What to do about the service's ports. Raises Terminal when none is left."""
        if service.deleting:
            return planner.plan_deletion(service)
        try:
            desired = resolve(service.spec, self._defaults)
        except InvalidSpec as error:
            raise Terminal(Reason.INVALID_SPEC, str(error)) from error
        # Only faster: the kernel's table is long on a busy host, and almost always there is nothing to choose.
        node = self._node(frozenset()) if planner.is_settled(service, desired) else await self._observe()
        return planner.plan(service, desired, node)

    async def execute(self, service: Service, action: Action) -> None:
        """Writes one allocation or release. Raises Transient when another service was quicker."""
        match action:
            case Allocate() | Reallocate():
                try:
                    await self._registry.allocate_port(service.name, action.component, action.route, action.port)
                except PortTaken as error:
                    message = f"port {action.port} was given to another route meanwhile: choosing again"
                    raise Transient(Reason.PORT_IN_USE, message, delay=_AT_ONCE) from error
            case Release():
                await self._registry.release_port(service.name, action.component, action.route)
            case _:
                raise TypeError(f"not an action of {self.name}: {action!r}")

    def assume(self, service: Service, actions: Sequence[Action]) -> Service:
        """The service once `actions` worked."""
        return planner.assume(service, actions)

    async def _observe(self) -> Node:
        try:
            used = await asyncio.to_thread(self._listening)
            return self._node(used | await self._registry.allocated_ports(), await asyncio.to_thread(ephemeral_ports))
        except OSError as error:
            raise Transient(Reason.INTERNAL_ERROR, f"cannot see which ports are in use: {error}") from error

    def _node(self, taken: frozenset[int], ephemeral: range = range(0)) -> Node:
        return Node(self._settings.low, self._settings.high, taken, ephemeral)
