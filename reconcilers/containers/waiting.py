"""Remembers who waits for whom, so that they are looked at when it matters and at no other time.

It is only faster than the next look of the safety net: whoever plans notes
again what it waits for.
"""

from collections import defaultdict
from collections.abc import Collection


class Waiting:
    """Which services wait for other services to be ready, and which for their own routes to move."""

    def __init__(self) -> None:
        self._for_services: dict[str, set[str]] = defaultdict(set)
        self._for_routes: set[str] = set()

    def note(self, service: str, *, services: Collection[str], routes: bool) -> None:
        """What `service` waits for now, in place of what it waited for before."""
        for name in [name for name, waiting in self._for_services.items() if service in waiting]:
            self._for_services[name].discard(service)
            if not self._for_services[name]:
                del self._for_services[name]
        for name in services:
            self._for_services[name].add(service)
        if routes:
            self._for_routes.add(service)
        else:
            self._for_routes.discard(service)

    def waiting_for(self, name: str) -> frozenset[str]:
        """Who waits for that service to be ready."""
        return frozenset(self._for_services.get(name, ()))

    def waiting_for_routes_of(self, service: str) -> frozenset[str]:
        """The service itself, where it waits for its routes."""
        return frozenset({service} & self._for_routes)
