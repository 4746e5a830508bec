"""Observes the node's ports, has the choice made, and writes it to the registry."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import ClassVar

from api.conditions import ConditionType, Reason
from api.errors import InvalidSpec
from api.resolve import Defaults, ResolvedService, resolve
from api.service import Finalizer, Service
from reconcilers.base import Action, Plan, PortTaken, Registry, Terminal, Transient
from reconcilers.ports import plan as planner
from reconcilers.ports.linux import ephemeral_ports, is_bindable
from reconcilers.ports.plan import Allocate, Node, Reallocate, Release

_AT_ONCE = timedelta(milliseconds=10)


@dataclass(frozen=True, slots=True)
class PortSettings:
    """The ports that may be given: from `low` to `high`, both included."""

    low: int = 10000
    high: int = 60000


class Ports:
    """Gives each route a free host port, in each slot that it needs. Implements reconcilers.base.Reconciler.

    `is_free` says whether anybody uses a port now; it raises OSError where it
    cannot know.
    """

    name: ClassVar[str] = "ports"
    condition: ClassVar[ConditionType] = ConditionType.PORTS_ALLOCATED
    finalizer: ClassVar[Finalizer] = Finalizer.PORTS

    def __init__(
        self,
        registry: Registry,
        defaults: Defaults,
        settings: PortSettings,
        is_free: Callable[[int], bool] = is_bindable,
    ) -> None:
        self._registry = registry
        self._defaults = defaults
        self._settings = settings
        self._is_free = is_free

    async def plan(self, service: Service) -> Plan:
        """What to do about the service's ports. Raises Terminal when none is left."""
        if service.deleting:
            return planner.plan_deletion(service)
        try:
            desired = resolve(service.spec, self._defaults)
        except InvalidSpec as error:
            raise Terminal(Reason.INVALID_SPEC, str(error)) from error
        try:
            return await self._choose(service, desired)
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
            case _:
                raise TypeError(f"not an action of {self.name}: {action!r}")

    def assume(self, service: Service, actions: Sequence[Action]) -> Service:
        """The service once `actions` worked."""
        return planner.assume(service, actions)

    async def _choose(self, service: Service, desired: ResolvedService) -> Plan:
        """Plans until every port that is chosen turns out to be free."""
        node = Node(self._settings.low, self._settings.high, await self._registry.allocated_ports(), ephemeral_ports())
        while True:
            plan = planner.plan(service, desired, node)
            in_use = {port for port in planner.given(plan) if not self._is_free(port)}
            if not in_use:
                return plan
            node = replace(node, taken=node.taken | in_use)
