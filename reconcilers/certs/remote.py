"""What all issuers outside the agent have in common: a ledger, a limit, patience, and what is trusted of theirs."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeVar

from cryptography import x509

from reconcilers.base import Clock
from reconcilers.certs.beside import beside
from reconcilers.certs.budget import Budget
from reconcilers.certs.issuer import Chain, IssueFailed
from reconcilers.certs.ledger import Ledger
from reconcilers.certs.model import LONGEST_WAIT
from reconcilers.certs.path import read_anchors, verify_path

T = TypeVar("T")

_AT_A_TIME = 4
"""Orders under way side by side."""

_CALL = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """How an issuer is reached, and what it may be asked."""

    folder: Path
    """Where what must outlive the agent is kept."""
    url: str
    ca_file: str = ""
    """What its own TLS certificate must lead to; empty: what this host trusts."""
    root_file: str = ""
    """What the certificates that it issues must lead to; empty: the topmost that it sends."""
    per_hour: int = 60
    patience: timedelta = timedelta(seconds=90)
    """The longest that one certificate may take."""

    @property
    def call(self) -> timedelta:
        """The longest that it may be silent within one call."""
        return min(self.patience, _CALL)


@dataclass(slots=True)
class Remote:
    """One issuer that is reached over the network."""

    settings: RemoteSettings
    clock: Clock
    ledger: Ledger = field(init=False)
    budget: Budget = field(init=False)
    _anchors: tuple[x509.Certificate, ...] = field(init=False)
    _turns: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        """Reads what earlier agents left. Blocks. Raises OSError, ValueError."""
        self.settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.ledger = Ledger(self.settings.folder / "certificates")
        self.budget = Budget(self.settings.folder / "asked.json", self.settings.per_hour, self.clock)
        self._anchors = read_anchors(self.settings.root_file)
        self._turns = asyncio.Semaphore(_AT_A_TIME)

    async def ask(self, function: Callable[[], T]) -> T:
        """Its answer; only a few are asked at a time. Raises IssueFailed.

        The function ends by itself once `patience` is over, unless a call of it
        is never answered: that is not waited for.
        """
        patience = self.settings.patience + self.settings.call
        async with self._turns:
            try:
                return await beside(function, patience)
            except TimeoutError as error:
                raise IssueFailed(f"no answer within {patience.total_seconds():g} s") from error

    def verify(self, hostname: str, chain: Chain) -> None:
        """Raises IssueFailed unless a client that trusts its root accepts the chain now."""
        verify_path(hostname, chain, self._anchors or chain[-1:], self.clock())

    def heed(self, retry_after: str | None) -> timedelta | None:
        """What a Retry-After header asks for, from now on (RFC 9110, section 10.2.3); nothing is asked before that."""
        wait = waiting_time(retry_after, self.clock())
        if wait is not None:
            self.budget.close(wait)
        return wait


def waiting_time(retry_after: str | None, now: datetime) -> timedelta | None:
    """The wait that a Retry-After header asks for; None where it asks for none."""
    if not retry_after:
        return None
    try:
        wait = timedelta(seconds=int(retry_after))
    except (ValueError, OverflowError):
        try:
            wait = parsedate_to_datetime(retry_after) - now
        except (ValueError, TypeError, OverflowError):
            return None
    return min(wait, LONGEST_WAIT) if wait > timedelta() else None
