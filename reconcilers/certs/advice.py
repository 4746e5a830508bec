"""When issuers want their certificates renewed (ACME Renewal Information, RFC 9773), asked beside the workers.

It can only make a renewal earlier. What cannot be had changes nothing, and is
asked again later.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import structlog
from cryptography import x509

from reconcilers.base import Clock
from reconcilers.certs.issuer import IssueFailed, Issuer, Window
from reconcilers.certs.ledger import fingerprint_of

log = structlog.get_logger("certs")

_ASK_AGAIN = timedelta(hours=6)
_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Advice:
    """What is known of the certificates that are in use; it is asked anew after a restart."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._suggested: dict[str, datetime] = {}
        self._ask_at: dict[str, datetime] = {}
        self._wanted: asyncio.Queue[tuple[str, Issuer, x509.Certificate]] = asyncio.Queue()

    @property
    def suggested(self) -> dict[str, datetime]:
        """By fingerprint: when the certificate is to be renewed."""
        return dict(self._suggested)

    def is_due(self, fingerprint: str) -> bool:
        """Whether it is time to ask for that certificate."""
        return self._clock() >= self._ask_at.get(fingerprint, _LONG_AGO)

    def want(self, service: str, issuer: Issuer, leaf: x509.Certificate) -> None:
        """Has the issuer asked."""
        now = self._clock()
        self._ask_at[fingerprint_of(leaf)] = now + _ASK_AGAIN
        # After its end an issuer must not be asked any more (RFC 9773, section 4.3).
        if now < leaf.not_valid_after_utc:
            self._wanted.put_nowait((service, issuer, leaf))

    async def run(self, wake: Callable[[str], None]) -> None:
        """Asks what is wanted until it is cancelled; wakes the services that learn something new."""
        while True:
            service, issuer, leaf = await self._wanted.get()
            fingerprint = fingerprint_of(leaf)
            try:
                window = await issuer.window(leaf)
            except IssueFailed as error:
                log.info("no_renewal_information", issuer=issuer.name, error=error.message)
                continue
            except Exception:  # advice is never worth the agent
                log.exception("defect", issuer=issuer.name)
                continue
            if window is not None:
                self._ask_at[fingerprint] = self._clock() + window.ask_again
                moment = _moment(window, fingerprint)
                if self._suggested.get(fingerprint) != moment:
                    self._suggested[fingerprint] = moment
                    wake(service)


def _moment(window: Window, fingerprint: str) -> datetime:
    """A moment of the window that is the same whenever it is asked, and spread over all certificates."""
    return window.start + (window.end - window.start) * (int(fingerprint[:8], 16) / (1 << 32))
