"""Slows down addresses from which nobody came too often, or too many come at once, in bounded memory."""

import ipaddress
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

_FREE: Final = 5
"""Failures that cost nothing: people mistype."""

_LONGEST: Final = 60.0
"""Seconds."""

_FORGOTTEN: Final = 600.0
"""Seconds without another failure."""

_REMEMBERED: Final = 4096
"""Addresses."""


_AT_ONCE: Final = 64
"""Callers of one address about whom somebody is asked."""


@dataclass(slots=True)
class _Failures:
    count: int
    last: float


class Throttle:
    """How long an address has to wait before anybody is asked about its callers again.

    After a few failures that is a second, and twice as long with each further
    one. Who shows what is known to hold never waits: others may share the address.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._failures: OrderedDict[str, _Failures] = OrderedDict()
        self._asking: Counter[str] = Counter()

    @contextmanager
    def asking(self, address: str) -> Iterator[bool]:
        """Whether somebody may be asked about a caller from there; it counts as one about whom one asks meanwhile."""
        key = _network(address)
        if self.wait(address) > 0 or self._asking[key] >= _AT_ONCE:
            yield False
            return
        self._asking[key] += 1
        try:
            yield True
        finally:
            self._asking[key] -= 1
            if not self._asking[key]:
                del self._asking[key]

    def wait(self, address: str) -> float:
        """Seconds that it still has to wait; 0: none."""
        failures = self._failures.get(_network(address))
        if failures is None or failures.count < _FREE:
            return 0.0
        pause = min(2.0 ** min(failures.count - _FREE, 30), _LONGEST)
        return max(0.0, failures.last + pause - self._monotonic())

    def failed(self, address: str) -> None:
        """Notes a failure."""
        key, now = _network(address), self._monotonic()
        failures = self._failures.pop(key, None)
        if failures is None or now - failures.last > _FORGOTTEN:
            failures = _Failures(0, now)
        self._failures[key] = _Failures(failures.count + 1, now)
        while len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)


def _network(address: str) -> str:
    """What one customer has: an IPv4 address, or the /64 of an IPv6 one."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 6:
        return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
    return str(found)
