"""What issues certificates: the agent's own CA, an ACME server, Metacrypt."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

Chain = tuple[x509.Certificate, ...]
"""Leaf first, each signed by the next."""

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its private key, and all that a server must send."""

    key: PrivateKey
    chain: Chain


@dataclass(frozen=True, slots=True)
class Window:
    """When an issuer suggests to renew a certificate (RFC 9773, section 4.2)."""

    start: datetime
    end: datetime
    ask_again: timedelta


class IssueFailed(Exception):
    """No certificate could be had; the sentence says why."""

    def __init__(self, message: str, *, retry_after: timedelta | None = None, counts: bool = True) -> None:
        """`retry_after` is the issuer's own wish; one that does not count was not even tried."""
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after
        self.counts = counts


class Issuer(Protocol):
    """A source of certificates for host names."""

    @property
    def name(self) -> str:
        """What a record of its certificates calls it."""
        ...

    @property
    def at_hand(self) -> bool:
        """Whether it answers at once and asking it costs nobody anything."""
        ...

    async def issue(self, hostname: str, lifetime: timedelta) -> Issued:
        """A certificate for one hostname; asked again after a death, it goes on with what was begun.

        `lifetime` is a wish. Raises IssueFailed.
        """
        ...

    def issued(self, leaf: x509.Certificate) -> bool:
        """Whether this certificate is known to come from it, through us."""
        ...

    def verify(self, hostname: str, chain: Chain) -> None:
        """Raises IssueFailed unless a client that trusts this issuer would accept the chain now."""
        ...

    async def window(self, leaf: x509.Certificate) -> Window | None:
        """When it suggests to renew that certificate; None where it suggests nothing. Raises IssueFailed."""
        ...

    def settle(self, hostname: str) -> None:
        """What was issued last lies in its place: the next `issue` begins anew. Blocks. Raises OSError."""
        ...
