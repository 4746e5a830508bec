"""Whether a chain of certificates would be accepted by a TLS client."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.x509 import verification

from reconcilers.certs.issuer import Chain, IssueFailed


def verify_path(hostname: str, chain: Chain, anchors: Sequence[x509.Certificate], now: datetime) -> None:
    """Raises IssueFailed unless a client that trusts `anchors` accepts the chain for the hostname at that moment."""
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store(list(anchors)))
        .time(now)
        .build_server_verifier(x509.DNSName(hostname))
    )
    try:
        verifier.verify(chain[0], list(chain[1:]))
    except verification.VerificationError as error:
        raise IssueFailed(f"the certificate issued for {hostname} does not hold: {error}") from error


def read_anchors(path: str) -> tuple[x509.Certificate, ...]:
    """The certificates in a PEM file; none for no file. Raises OSError, ValueError."""
    return tuple(x509.load_pem_x509_certificates(Path(path).read_bytes())) if path else ()
