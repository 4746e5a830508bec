"""Observes mc-proxy, has it decided which routes it should hold, and tells it."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import ClassVar

from api.conditions import ConditionType, Reason
from api.resolve import Defaults, ResolvedService
from api.service import Finalizer, RouteClaim, Service
from reconcilers.base import Action, Claimed, Plan, Registry, Terminal
from reconcilers.definition import resolved
from reconcilers.routes import plan as planner
from reconcilers.routes.mcproxy import McProxy
from reconcilers.routes.model import NOTHING, Hold, Key, Listing, Observed, Program, Withdraw
from reconcilers.routes.picture import Picture


class Routes:
    """Keeps one route in mc-proxy for each that is defined and ready. Implements reconcilers.base.Reconciler.

    `proxy` is None on a node that has no mc-proxy; `interval` is the time
    between two looks at its routes.
    """

    name: ClassVar[str] = "routes"
    condition: ClassVar[ConditionType] = ConditionType.ROUTES_PROGRAMMED
    finalizer: ClassVar[Finalizer] = Finalizer.ROUTES

    def __init__(
        self,
        registry: Registry,
        proxy: McProxy | None,
        defaults: Defaults,
        interval: timedelta = timedelta(seconds=2),
    ) -> None:
        self._registry = registry
        self._defaults = defaults
        self._picture = Picture(proxy, interval) if proxy else None
        self._refused: set[Key] = set()

    async def plan(self, service: Service, *, attend: bool = True) -> Plan:
        """What to do about the service's routes. Raises Transient while mc-proxy cannot be seen."""
        if service.deleting:
            return planner.plan_deletion(service)
        desired = resolved(service, self._defaults)
        keys = {(claim.listener, claim.hostname) for claim in service.claims}
        keys |= {(route.listener, route.hostname) for route in planner.wanted(desired)}
        observed = Observed(
            listing=await self._look(service, keys, attend=attend),
            holders=await self._holders(service, desired),
            refused=frozenset(self._refused),
        )
        return planner.plan(service, desired, observed)

    async def execute(self, service: Service, action: Action) -> None:
        """Carries out one action. Raises Transient, or Terminal where another service was quicker."""
        match action:
            case Hold():
                await self._claim(service, action.claim)
            case Program():
                await self._program(service, action)
            case Withdraw():
                await self._withdraw(service, action)
            case _:
                raise TypeError(f"not an action of {self.name}: {action!r}")

    def assume(self, service: Service, actions: Sequence[Action]) -> Service:
        """The service once `actions` worked."""
        return planner.assume(service, actions)

    async def watch(self, wake: Callable[[str], None]) -> None:
        """Wakes a service when mc-proxy's routes are not what it saw last; runs until cancelled."""
        if self._picture is not None:
            await self._picture.watch(wake)

    def _proxy(self) -> Picture:
        if self._picture is None:
            message = "there are routes, but this agent knows no mc-proxy: set mcproxy.socket in its settings"
            raise Terminal(Reason.PROXY_NOT_CONFIGURED, message)
        return self._picture

    async def _look(self, service: Service, keys: set[Key], *, attend: bool) -> Listing:
        if keys and attend:
            return await self._proxy().look(service.name, keys)
        if keys:
            return await self._proxy().fresh()
        # Whoever neither has nor wants a route does well without a proxy.
        if attend and self._picture is not None:
            self._picture.forget(service.name)
        return NOTHING

    async def _holders(self, service: Service, desired: ResolvedService) -> dict[Key, str]:
        own = {(claim.listener, claim.hostname) for claim in service.claims}
        holders = {
            (route.listener, route.hostname): await self._registry.claim_holder(route.listener, route.hostname)
            for route in planner.wanted(desired)
            if (route.listener, route.hostname) not in own
        }
        return {key: holder for key, holder in holders.items() if holder is not None and holder != service.name}

    async def _program(self, service: Service, action: Program) -> None:
        key, proxy = action.route.key, self._proxy()
        try:
            await proxy.add(service.name, action.route)
        except Terminal:
            self._refused.add(key)
            raise
        self._refused.discard(key)
        # Last, as it says what mc-proxy knows: noted any earlier, a death would leave it with the old certificate.
        await self._claim(service, action.claim)

    async def _withdraw(self, service: Service, action: Withdraw) -> None:
        await self._proxy().remove(service.name, (action.listener, action.hostname))
        if action.kept is not None:
            await self._claim(service, action.kept)
        else:
            await self._registry.release_route(service.name, action.listener, action.hostname)
        self._refused.discard((action.listener, action.hostname))

    async def _claim(self, service: Service, claim: RouteClaim) -> None:
        try:
            await self._registry.claim_route(service.name, claim)
        except Claimed as error:
            message = f'{claim.hostname}{claim.listener} is held by service "{error.holder}"'
            raise Terminal(Reason.CONFLICT, message) from error
