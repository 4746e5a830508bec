"""Follows each generation from its write until it is ready: for the timeline and for the metrics."""

from contextlib import suppress
from typing import Protocol

from api.conditions import ConditionType, Status
from api.errors import RegistryUnavailable
from api.service import Convergence, Service, convergence
from controller.metrics import Metrics
from controller.registry import ChangeKind, EventDraft, Report, Subscription


class RolloutRegistry(Protocol):
    """What is read and written of a rollout."""

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
        """Follows rollouts for as long as there are changes."""
        async for change in changes:
            if change.kind is ChangeKind.SPEC:
                self._under_way.add(change.service)
            elif change.kind is ChangeKind.CONDITION and change.service in self._under_way:
                with suppress(RegistryUnavailable):  # the next condition of this rollout has it looked at again
                    await self._look(change.service)

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
            # Ready all the while: the new generation asked for nothing that had to be done.
            return
        self._metrics.time_to_ready.observe(seconds)
        event = EventDraft("ready", f"{ready.message}, after {seconds:.2f} s", "mcp-agent", service.generation)
        await self._registry.report(name, Report(events=(event,)))
