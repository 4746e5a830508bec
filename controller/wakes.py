"""Who looks again when something in the registry changes."""

import asyncio
import random
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import Final, Protocol

from api.conditions import ConditionType, Status
from api.errors import RegistryUnavailable
from api.service import Service
from controller.queue import Priority, WorkQueue
from controller.registry import ChangeKind, Subscription

ALL: Final = ("ports", "certs", "files", "containers", "routes")

WAKES: Final[Mapping[ChangeKind, tuple[str, ...]]] = {
    ChangeKind.SPEC: ALL,
    ChangeKind.SUSPENSION: ALL,
    ChangeKind.FINALIZER: ALL,
    ChangeKind.PORTS: ("containers",),
    ChangeKind.CONTESTED: ("ports", "containers"),
    ChangeKind.CERTIFICATE: ("routes",),
    ChangeKind.FILES: ("files",),
    # A container may wait for its routes to move before it ends, or takes over.
    ChangeKind.CLAIM: ("containers",),
    ChangeKind.CLAIM_RELEASED: ("containers",),
    ChangeKind.BACKEND: ("routes", "ports"),
}
"""By reconciler; what is not here wakes nobody, or is released for whoever waits."""


class Waiters(Protocol):
    """Who waits for something that another service does; see reconcilers.containers.watching.waiting."""

    def waiting_for(self, service: str) -> Collection[str]:
        """Who waits for that service to exist, to run, and to be ready."""
        ...


class Services(Protocol):
    """Where services are read."""

    async def services(self) -> tuple[Service, ...]:
        """All services of the node."""
        ...


_RELEASED: Final[Mapping[ChangeKind, tuple[str, ConditionType]]] = {
    ChangeKind.CLAIM_RELEASED: ("routes", ConditionType.ROUTES_PROGRAMMED),
    ChangeKind.PATH_RELEASED: ("certs", ConditionType.CERTIFICATES_READY),
}
"""Whose services may wait for what is free now, and by which condition that is seen."""

_JITTER: Final = 0.004
"""Seconds, at the most, between two services of a resync."""

_OF_SERVICES: Final = frozenset({ChangeKind.SPEC, ChangeKind.GONE})


class Wakes:
    """Turns registry changes into work, and sees to it that everything is looked at in the end."""

    def __init__(self, queues: Mapping[str, WorkQueue], registry: Services, waiters: Waiters) -> None:
        self._queues = queues
        self._registry = registry
        self._waiters = waiters

    async def run(self, changes: Subscription) -> None:
        """Queues whoever depends on a change, for as long as there are changes."""
        async for change in changes:
            if change.kind in _RELEASED:
                with suppress(RegistryUnavailable):  # the resync wakes them too, later
                    await self._wake_waiting(*_RELEASED[change.kind])
            for reconciler in WAKES.get(change.kind, ()):
                self._queues[reconciler].add(change.service)
            if change.kind in _OF_SERVICES:
                self._wake_containers_of(self._waiters.waiting_for(change.service))

    def _wake_containers_of(self, services: Iterable[str]) -> None:
        for service in services:
            self._queues["containers"].add(service)

    async def resync(self) -> None:
        """Has every service looked at by everyone: after a start, and as the safety net below all events.

        In no order, and not all at the same moment: after a reboot the engine has enough to do.
        """
        services = list(await self._registry.services())
        random.shuffle(services)
        for service in services:
            for queue in self._queues.values():
                queue.add(service.name, Priority.RESYNC)
            await asyncio.sleep(random.uniform(0, _JITTER))  # noqa: S311  # no secret depends on it

    async def _wake_waiting(self, reconciler: str, kind: ConditionType) -> None:
        # The oldest first: it waits with the better right.
        for service in sorted(await self._registry.services(), key=lambda service: service.created_at):
            if _may_wait(service, kind):
                self._queues[reconciler].add(service.name)


def _may_wait(service: Service, kind: ConditionType) -> bool:
    """Whether not all is there that it wants: that it is in conflict may not be written yet."""
    condition = service.condition(kind)
    return (
        condition is None or condition.status is not Status.TRUE or condition.observed_generation < service.generation
    )
