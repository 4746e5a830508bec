"""The issuer that is named, and the one that stands in for it; what either gives is checked here and nowhere else."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import structlog
from cryptography import x509

from reconcilers.certs import pairs
from reconcilers.certs.issuer import Issued, IssueFailed, Issuer

log = structlog.get_logger("certs")


@dataclass(frozen=True, slots=True)
class Obtained:
    """A certificate that can serve, and where it is from."""

    issued: Issued
    issuer: Issuer
    failure: IssueFailed | None = None
    """Why the first issuer could not be had, where the second stood in."""


@dataclass(frozen=True, slots=True)
class Issuers:
    """One or two issuers, in the order in which they are asked."""

    first: Issuer
    second: Issuer | None = None

    @property
    def at_hand(self) -> bool:
        """Whether a certificate is there at once."""
        return self.second is None and self.first.at_hand

    def of(self, leaf: x509.Certificate) -> Issuer | None:
        """Whose certificate it is; None where it came from neither through us."""
        return next((issuer for issuer in (self.first, self.second) if issuer and issuer.issued(leaf)), None)

    def origin(self, leaf: x509.Certificate) -> tuple[bool, str]:
        """Whether it is from one of them, and the name of the second where it is from that one."""
        issuer = self.of(leaf)
        return issuer is not None, issuer.name if issuer is not None and issuer is self.second else ""

    def settle(self, hostname: str) -> None:
        """What either was asked for is in its place, or not wanted any more. Blocks. Raises OSError."""
        for issuer in (self.first, self.second):
            if issuer is not None:
                issuer.settle(hostname)

    async def obtain(self, hostname: str, lifetime: timedelta, *, urgent: bool) -> Obtained:
        """A certificate from the first, or from the second where it is urgent. Raises IssueFailed."""
        try:
            return Obtained(await _checked(self.first, hostname, lifetime), self.first)
        except IssueFailed as failure:
            if self.second is None or not urgent:
                raise
            log.warning("issuer_failed", hostname=hostname, error=failure.message)
            return await _stand_in(self.second, hostname, lifetime, failure)


async def _stand_in(second: Issuer, hostname: str, lifetime: timedelta, failure: IssueFailed) -> Obtained:
    try:
        return Obtained(await _checked(second, hostname, lifetime), second, failure)
    except IssueFailed as another:
        message = f"{failure.message}; {another.message}"
        raise IssueFailed(message, retry_after=failure.retry_after, counts=failure.counts) from another


async def _checked(issuer: Issuer, hostname: str, lifetime: timedelta) -> Issued:
    """What the issuer gives, if it can serve. Raises IssueFailed, with the issuer's name, where it cannot."""
    try:
        issued = await issuer.issue(hostname, lifetime)
        try:
            _check(issuer, hostname, issued)
        except IssueFailed:
            # It would only be given again.
            await asyncio.to_thread(issuer.settle, hostname)
            raise
    except IssueFailed as error:
        raise IssueFailed(
            f"{issuer.name}: {error.message}", retry_after=error.retry_after, counts=error.counts
        ) from error
    return issued


def _check(issuer: Issuer, hostname: str, issued: Issued) -> None:
    if issued.chain[0].public_key() != issued.key.public_key():
        raise IssueFailed(f"the certificate issued for {hostname} is for another key")
    if problem := pairs.chain_problem(hostname, issued.chain):
        raise IssueFailed(f"the certificate issued for {hostname} cannot serve: {problem}")
    issuer.verify(hostname, issued.chain)
