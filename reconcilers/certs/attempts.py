"""Obtains certificates beside the reconcilers' workers: a CA may take minutes, and others must not wait for it.

Whoever needs a certificate begins an attempt; it is woken when that has ended,
and finds here how. What was obtained stays here until it is laid down.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from reconcilers.base import Clock
from reconcilers.certs.issuer import IssueFailed
from reconcilers.certs.issuers import Issuers, Obtained
from reconcilers.certs.model import Attempt

log = structlog.get_logger("certs")

_STALE = timedelta(hours=1)
"""An end that nobody wanted to know of for so long is no news any more."""

_Key = tuple[str, str]


@dataclass(slots=True)
class _Attempt:
    urgent: bool
    obtained: Obtained | None = None
    failure: IssueFailed | None = None
    ended_at: datetime | None = None


class Attempts:
    """All attempts of one node, one at a time for each service and hostname."""

    def __init__(self, issuers: Issuers, lifetime: timedelta, clock: Clock) -> None:
        self._issuers = issuers
        self._lifetime = lifetime
        self._clock = clock
        self._attempts: dict[_Key, _Attempt] = {}
        self._begun: asyncio.Queue[_Key] = asyncio.Queue()

    def begin(self, service: str, hostname: str, *, urgent: bool) -> None:
        """Has a certificate obtained, unless that is under way."""
        key = (service, hostname)
        if not self._runs(key):
            self._attempts[key] = _Attempt(urgent)
            self._begun.put_nowait(key)

    def of(self, service: str) -> dict[str, Attempt]:
        """By hostname: what is under way for a service, or how it ended."""
        now = self._clock()
        return {
            hostname: _told(attempt)
            for (owner, hostname), attempt in self._attempts.items()
            if owner == service and (attempt.ended_at is None or now - attempt.ended_at < _STALE)
        }

    def obtained(self, service: str, hostname: str) -> Obtained | None:
        """The certificate that waits to be laid down."""
        attempt = self._attempts.get((service, hostname))
        return attempt.obtained if attempt is not None else None

    def end(self, service: str, hostname: str) -> None:
        """What came of the attempt is taken care of, or of no use any more."""
        if not self._runs((service, hostname)):
            self._attempts.pop((service, hostname), None)

    async def run(self, wake: Callable[[str], None]) -> None:
        """Carries out what is begun until it is cancelled; what is cut off then is begun again by the next agent."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                key = await self._begun.get()
                tasks.create_task(self._obtain(key, wake), name=f"certificate-{key[1]}")

    def _runs(self, key: _Key) -> bool:
        attempt = self._attempts.get(key)
        return attempt is not None and attempt.ended_at is None

    async def _obtain(self, key: _Key, wake: Callable[[str], None]) -> None:
        service, hostname = key
        attempt = self._attempts[key]
        try:
            attempt.obtained = await self._issuers.obtain(hostname, self._lifetime, urgent=attempt.urgent)
        except IssueFailed as failure:
            attempt.failure = failure
        except Exception as error:  # a defect of one issuer is one attempt's failure
            log.exception("defect", hostname=hostname)
            attempt.failure = IssueFailed(f"{self._issuers.first.name}: {type(error).__name__}: {error}")
        attempt.ended_at = self._clock()
        wake(service)


def _told(attempt: _Attempt) -> Attempt:
    if attempt.failure is None:
        return Attempt(running=attempt.ended_at is None)
    return Attempt(False, attempt.failure.message, attempt.failure.retry_after, attempt.failure.counts)
