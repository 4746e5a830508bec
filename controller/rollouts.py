"""Follows each generation from its write until it is ready: for the timeline and for the metrics."""

from contextlib import suppress
from typing import Final, Protocol

from api.conditions import ConditionType, Status
from api.errors import RegistryUnavailable
from api.service import Change, Convergence, Event, Service, convergence
from controller.metrics import Metrics
from controller.registry import ChangeKind, EventDraft, Report, Subscription
from controller.wakes import ALL

_READY: Final = "ready"
_ALL_EVENTS: Final = 1_000_000
"""More than the registry keeps."""


class RolloutRegistry(Protocol):
    """What is read and written of a rollout."""

    async def services(self) -> tuple[Service, ...]:
        """All services of the node."""
        ...

    async def events(self, service: str = "", *, limit: int = 100, after_id: int = 0) -> tuple[Event, ...]:
        """The newest events of all services, oldest first."""
        ...

    async def service(self, name: str) -> Service | None:
        """The service, or None."""
        ...

    async def report(self, service: str, report: Report) -> None:
        """Writes events."""
        ...


class Rollouts:
    """Watches those services only whose generation is on its way."""

    def __init__(self, registry: RolloutRegistry, metrics: Metrics) -> None:
        self._registry = registry
        self._metrics = metrics
        self._under_way: set[str] = set()

    async def run(self, changes: Subscription) -> None:
        """Follows rollouts for as long as there are changes; first those that an earlier agent left."""
        with suppress(RegistryUnavailable):  # only events of rollouts that nobody follows any more are lost
            await self._take_over()
        async for change in changes:
            if change.kind is ChangeKind.SPEC:
                self._under_way.add(change.service)
            elif change.kind is ChangeKind.CONDITION and change.service in self._under_way:
                with suppress(RegistryUnavailable):  # the next condition of this rollout has it looked at again
                    await self._look(change.service)

    async def _take_over(self) -> None:
        """Follows the generations whose end the timeline does not tell, though it tells their beginning."""
        open_ends: dict[str, int] = {}
        for event in await self._registry.events(limit=_ALL_EVENTS):
            # A container is created, too.
            if event.kind in (Change.CREATED, Change.CONFIGURED) and event.actor not in ALL:
                open_ends[event.service] = event.generation
            elif event.kind == _READY and open_ends.get(event.service) == event.generation:
                del open_ends[event.service]
        for service in await self._registry.services():
            if open_ends.get(service.name) == service.generation:
                self._under_way.add(service.name)
                await self._look(service.name)

    async def _look(self, name: str) -> None:
        service = await self._registry.service(name)
        if service is None or service.deleting:
            self._under_way.discard(name)
            return
        ready = service.condition(ConditionType.READY)
        if ready is None or convergence(service, service.generation)[0] is not Convergence.DONE:
            return
        self._under_way.discard(name)
        if ready.status is not Status.TRUE:
            # Stopped, as its definition says: that is no way of being ready.
            return
        seconds = (ready.last_transition - service.updated_at).total_seconds()
        if seconds < 0:
            message = f"{ready.message}: there was nothing to do"
        else:
            message = f"{ready.message}, after {seconds:.2f} s"
            self._metrics.time_to_ready.observe(seconds)
        event = EventDraft(_READY, message, "mcp-agent", service.generation)
        await self._registry.report(name, Report(events=(event,)))
