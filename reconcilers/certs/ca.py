"""The embedded CA: a root of the agent's own, so that a node needs nobody to serve TLS.

Below its folder lie `ca.pem`, for everybody to trust, and `private/ca.key`,
for nobody else to read. They are made on the first start. One that is damaged
is never replaced silently: every client that trusts it would have to be told.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from reconcilers.base import Clock
from reconcilers.certs.files import Content, Files, read
from reconcilers.certs.issuer import Chain, Issued, IssueFailed, PrivateKey, Window
from reconcilers.certs.path import verify_path

_CA_LIFE = timedelta(days=3652)
_CA_BACKDATE = timedelta(days=1)
# A client's clock may be a little behind ours; in proportion, so that short lives stay mostly ahead.
_BACKDATE = 1 / 100
_MOST_BACKDATE = timedelta(hours=1)
_COMMON_NAME_MOST = 64


class CaUnusable(Exception):
    """The CA on disk can be neither used nor made; the sentence is for the operator."""


class EmbeddedCa:
    """Issues from a root certificate. Implements reconcilers.certs.issuer.Issuer."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, clock: Clock) -> None:
        self.certificate = certificate
        self._key = key
        self._clock = clock

    @classmethod
    def open(cls, folder: Path, node: str, clock: Clock) -> Self:
        """The CA below `folder`, made there if there is none yet. Blocks. Raises CaUnusable."""
        try:
            key = _load_or_make_key(folder / "private" / "ca.key", folder / "ca.pem")
            certificate = _load_or_make_certificate(folder / "ca.pem", key, node, clock())
        except OSError as error:
            raise CaUnusable(f"the CA below {folder} cannot be read or made: {error}") from error
        return cls(certificate, key, clock)

    @property
    def name(self) -> str:
        """Its subject."""
        return self.certificate.subject.rfc4514_string()

    @property
    def at_hand(self) -> bool:
        """Always."""
        return True

    async def issue(self, hostname: str, lifetime: timedelta) -> Issued:
        """A certificate with a new key."""
        key = ec.generate_private_key(ec.SECP256R1())
        return Issued(key, self.sign(hostname, key, lifetime))

    def sign(
        self, hostname: str, key: PrivateKey, lifetime: timedelta, others: Sequence[x509.GeneralName] = ()
    ) -> Chain:
        """Leaf and root; the root is sent too, as a leaf alone fails with proxies that want the full chain.

        `others` are further names and addresses of the same server. Raises IssueFailed once the CA has expired.
        """
        now = self._clock()
        last = self.certificate.not_valid_after_utc
        if now >= last:
            raise IssueFailed(f"the CA expired on {last:%Y-%m-%d}: take its folder away for a new CA")
        leaf = (
            x509.CertificateBuilder()
            .subject_name(_subject(hostname))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - min(lifetime * _BACKDATE, _MOST_BACKDATE))
            .not_valid_after(min(now + lifetime, last))
            .add_extension(
                x509.SubjectAlternativeName([x509.DNSName(hostname), *others]), critical=not _subject(hostname)
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        return leaf.sign(self._key, hashes.SHA256()), self.certificate

    def issued(self, leaf: x509.Certificate) -> bool:
        """Whether our key signed it."""
        try:
            leaf.verify_directly_issued_by(self.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    def verify(self, hostname: str, chain: Chain) -> None:
        """Raises IssueFailed unless a TLS client that trusts our root accepts the chain at this moment."""
        verify_path(hostname, chain, [self.certificate], self._clock())

    async def window(self, leaf: x509.Certificate) -> Window | None:  # noqa: ARG002  # the protocol's
        """None: it has no reason to have one renewed early."""
        return None

    def settle(self, hostname: str) -> None:
        """Nothing: it has no orders."""


def _load_or_make_key(path: Path, certificate: Path) -> ec.EllipticCurvePrivateKey:
    data = read(path)
    if data is not None:
        return _parse_key(path, data)
    if read(certificate) is not None:
        raise CaUnusable(f"{path} is gone, but {certificate} is there: restore the key, or take both away for a new CA")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    Files().replace([Content(path, private_pem(key), 0o600)])
    return key


def _parse_key(path: Path, data: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CaUnusable(
            f"{path} is damaged ({error}): restore it, or take the CA's folder away for a new CA"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise CaUnusable(f"{path} holds no ECDSA key: restore it, or take the CA's folder away for a new CA")
    return key


def _load_or_make_certificate(
    path: Path, key: ec.EllipticCurvePrivateKey, node: str, now: datetime
) -> x509.Certificate:
    data = read(path)
    if data is None:
        # First start, or one that died between the two files.
        certificate = _root(key, node, now)
        Files().replace([Content(path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)])
        return certificate
    try:
        certificate = x509.load_pem_x509_certificate(data)
    except ValueError as error:
        raise CaUnusable(
            f"{path} is damaged ({error}): restore it, or take the CA's folder away for a new CA"
        ) from error
    if certificate.public_key() != key.public_key():
        raise CaUnusable(f"{path} does not belong to its key: restore both, or take the CA's folder away for a new CA")
    return certificate


def _root(key: ec.EllipticCurvePrivateKey, node: str, now: datetime) -> x509.Certificate:
    name = _subject(f"MCP CA of {node}"[:_COMMON_NAME_MOST])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CA_BACKDATE)
        .not_valid_after(now + _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )


def private_pem(key: PrivateKey) -> bytes:
    """PKCS#8, not encrypted: its protection is the file's mode."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _subject(common_name: str) -> x509.Name:
    """RFC 5280 allows 64 characters; a longer hostname stands in the alternative names alone."""
    if len(common_name) > _COMMON_NAME_MOST:
        return x509.Name([])
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
