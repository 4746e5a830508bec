"""Remembers who waits for whom, so that they are looked at when it matters and at no other time.

It is only faster than the next look of the safety net: whoever plans notes
again what it waits for.
"""

from collections import defaultdict
from collections.abc import Collection


class Waiting:
    """Which services wait for other services to be ready."""

    def __init__(self) -> None:
        self._for_services: dict[str, set[str]] = defaultdict(set)

    def note(self, service: str, services: Collection[str]) -> None:
        """What `service` waits for now, in place of what it waited for before."""
        for name in [name for name, waiting in self._for_services.items() if service in waiting]:
            self._for_services[name].discard(service)
            if not self._for_services[name]:
                del self._for_services[name]
        for name in services:
            self._for_services[name].add(service)

    def waiting_for(self, name: str) -> frozenset[str]:
        """Who waits for that service to be ready."""
        return frozenset(self._for_services.get(name, ()))
