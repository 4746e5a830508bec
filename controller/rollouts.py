"""Follows each generation until it is ready, and each failure until it is over: for the timeline and the metrics."""

from contextlib import suppress
from typing import Final, Protocol

from api.conditions import Condition, ConditionType, Status
from api.errors import RegistryUnavailable
from api.service import Change, Convergence, Event, Service, convergence
from controller.kinds import READY, RECOVERED, needs_a_person
from controller.metrics import Metrics
from controller.registry import ChangeKind, EventDraft, Subscription
from controller.wakes import ALL

_ACTOR: Final = "mcp-agent"
_TELLING: Final = frozenset({ChangeKind.CONDITION, ChangeKind.COMPONENT})
"""With which a rollout, or a failure, may be over: the latter once restarts are forgotten."""
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

    async def tell(self, service: str, event: EventDraft, *, holds: Condition) -> bool:
        """Writes an event, unless the condition that it follows from is another one by now."""
        ...


class Rollouts:
    """Watches those services only whose generation is on its way, or failed."""

    def __init__(self, registry: RolloutRegistry, metrics: Metrics) -> None:
        self._registry = registry
        self._metrics = metrics
        self._under_way: set[str] = set()
        self._told: dict[str, int] = {}
        """The generations that nothing is to be told of any more, as they were ready once or nobody follows them."""
        self._failed: set[str] = set()
        """Those that a person was needed for, and that are not as defined since."""

    async def run(self, changes: Subscription) -> None:
        """Follows rollouts for as long as there are changes; first those that an earlier agent left."""
        with suppress(RegistryUnavailable):  # only events of rollouts that nobody follows any more are lost
            await self._take_over()
        async for change in changes:
            if change.kind is ChangeKind.SPEC:
                self._under_way.add(change.service)
            elif change.kind is ChangeKind.GONE:
                # The next service of that name begins at the first generation.
                self._forget(change.service)
                self._told.pop(change.service, None)
            elif change.event is not None and needs_a_person(change.event):
                self._failed.add(change.service)
            elif change.kind in _TELLING and self._follows(change.service):
                with suppress(RegistryUnavailable):  # the next change of this service has it looked at again
                    await self._look(change.service)

    async def _take_over(self) -> None:
        """Follows the generations and failures whose beginning the timeline tells, and not their end."""
        # In this order: of a generation that comes in between, the changes tell.
        services = await self._registry.services()
        open_ends: dict[str, int] = {}
        for event in await self._registry.events(limit=_ALL_EVENTS):
            # A container is created, too.
            if event.kind in (Change.CREATED, Change.CONFIGURED) and event.actor not in ALL:
                open_ends[event.service] = event.generation
            elif event.kind == READY and open_ends.get(event.service) == event.generation:
                del open_ends[event.service]
            if needs_a_person(event):
                self._failed.add(event.service)
            elif event.kind in (READY, RECOVERED):
                self._failed.discard(event.service)
        for service in services:
            if open_ends.get(service.name) == service.generation:
                self._under_way.add(service.name)
            else:
                self._told[service.name] = service.generation
            if self._follows(service.name):
                await self._look(service.name)

    async def _look(self, name: str) -> None:
        service = await self._registry.service(name)
        if service is None or service.deleting:
            self._forget(name)
            return
        ready = service.condition(ConditionType.READY)
        if ready is None or convergence(service, service.generation)[0] is not Convergence.DONE:
            return
        # The same definition once more is a change, too, and no rollout.
        under_way = name in self._under_way and service.generation > self._told.get(name, 0)
        if not under_way and any(component.restarts for component in service.components):
            # With each start it seems to be over. It is once the restarts are forgotten.
            return
        # To be stopped, as its definition says, is no way of being ready.
        told = True
        if ready.status is Status.TRUE and under_way:
            told = await self._tell_ready(service, ready)
        elif ready.status is Status.TRUE and name in self._failed:
            told = await self._tell(service, RECOVERED, f"{ready.message} again", ready)
        # What could not be written, or was over before it was, is looked at with the next change.
        if told:
            self._forget(name)

    def _follows(self, name: str) -> bool:
        return name in self._under_way or name in self._failed

    def _forget(self, name: str) -> None:
        self._under_way.discard(name)
        self._failed.discard(name)

    async def _tell_ready(self, service: Service, ready: Condition) -> bool:
        seconds = (ready.last_transition - service.updated_at).total_seconds()
        after = ": there was nothing to do" if seconds < 0 else f", after {seconds:.2f} s"
        if not await self._tell(service, READY, f"{ready.message}{after}", ready):
            return False
        self._told[service.name] = service.generation
        if seconds >= 0:
            self._metrics.time_to_ready.observe(seconds)
        return True

    async def _tell(self, service: Service, kind: str, message: str, ready: Condition) -> bool:
        event = EventDraft(kind, message, _ACTOR, service.generation)
        return await self._registry.tell(service.name, event, holds=ready)
