"""What issues certificates: the embedded CA today, an ACME server tomorrow."""

from datetime import timedelta
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

Chain = tuple[x509.Certificate, ...]
"""Leaf first, each signed by the next."""


class Issuer(Protocol):
    """A source of certificates for host names."""

    @property
    def name(self) -> str:
        """What a record of its certificates calls it."""
        ...

    async def issue(self, hostname: str, key: ec.EllipticCurvePrivateKey, lifetime: timedelta) -> Chain:
        """A certificate for one hostname and the public half of `key`, with all that a server must send.

        `lifetime` is a wish. Raises IssueFailed.
        """
        ...

    def issued(self, leaf: x509.Certificate) -> bool:
        """Whether it signed this certificate, with the key that it uses now."""
        ...

    def verify(self, hostname: str, chain: Chain) -> None:
        """Raises IssueFailed unless a client that trusts this issuer would accept the chain now."""
        ...


class IssueFailed(Exception):
    """No certificate could be had; the sentence says why."""
