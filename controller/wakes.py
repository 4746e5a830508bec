"""Who looks again when something in the registry changes."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Protocol

from api.conditions import ConditionType, Status
from api.errors import RegistryUnavailable
from api.service import Service
from controller.queue import Priority, WorkQueue
from controller.registry import ChangeKind, Subscription

ALL: Final = ("ports", "certs", "containers", "routes")

WAKES: Final[Mapping[ChangeKind, tuple[str, ...]]] = {
    ChangeKind.SPEC: ALL,
    ChangeKind.FINALIZER: ALL,
    ChangeKind.PORTS: ("containers",),
    ChangeKind.CONTESTED: ("ports", "containers"),
    ChangeKind.CERTIFICATE: ("routes",),
    ChangeKind.BACKEND: ("routes", "ports"),
}
"""By reconciler; what is not here wakes nobody, or is released for whoever waits."""


class Services(Protocol):
    """Where services are read."""

    async def services(self) -> tuple[Service, ...]:
        """All services of the node."""
        ...


class Wakes:
    """Turns registry changes into work, and sees to it that everything is looked at in the end."""

    def __init__(self, queues: Mapping[str, WorkQueue], registry: Services) -> None:
        self._queues = queues
        self._registry = registry

    async def run(self, changes: Subscription) -> None:
        """Queues whoever depends on a change, for as long as there are changes."""
        async for change in changes:
            if change.kind is ChangeKind.CLAIM_RELEASED:
                with suppress(RegistryUnavailable):  # the resync wakes them too, later
                    await self._wake_waiting()
            for reconciler in WAKES.get(change.kind, ()):
                self._queues[reconciler].add(change.service)

    async def resync(self) -> None:
        """Has every service looked at by everyone: after a start, and as the safety net below all events."""
        for service in await self._registry.services():
            for queue in self._queues.values():
                queue.add(service.name, Priority.RESYNC)

    async def _wake_waiting(self) -> None:
        for service in await self._registry.services():
            if _may_wait_for_a_name(service):
                self._queues["routes"].add(service.name)


def _may_wait_for_a_name(service: Service) -> bool:
    """Whether its routes are not all there: that one of them is in conflict may not be written yet."""
    routes = service.condition(ConditionType.ROUTES_PROGRAMMED)
    return routes is None or routes.status is not Status.TRUE or routes.observed_generation < service.generation
