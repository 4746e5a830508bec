"""A certificate of somebody else's CA, in files that are replaced."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controller.registry import utc_now
from reconcilers.certs.ca import private_pem


class Files:
    """A certificate and a key of the operator's own, and the CA that signed it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.cert, self.key = folder / "cert.pem", folder / "key.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._ca = self._signed("their CA", self._key, ca=True)
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self._ca.public_bytes(serialization.Encoding.PEM))

    def make(self, key: Any = None) -> tuple[bytes, bytes, int]:
        """A new pair, and its serial number."""
        key = key or ec.generate_private_key(ec.SECP256R1())
        leaf = self._signed("localhost", key)
        return leaf.public_bytes(serialization.Encoding.PEM), private_pem(key), leaf.serial_number

    def write(self, key: Any = None) -> int:
        """Puts a new pair there; its serial number."""
        chain, pem, number = self.make(key)
        self.cert.write_bytes(chain)
        self.key.write_bytes(pem)
        return number

    def _signed(self, name: str, key: Any, *, ca: bool = False) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "their CA")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(utc_now() - timedelta(hours=1))
            .not_valid_after(utc_now() + timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
