"""A certificate authority for tests."""

import datetime
import ssl
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


class Files(NamedTuple):
    """A certificate chain and its key on disk."""

    cert: Path
    key: Path


class Authority:
    """Issues server certificates into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
        self._root = self._sign(self._name, self._key.public_key(), x509.BasicConstraints(ca=True, path_length=None))
        self.pem = self._root.public_bytes(Encoding.PEM).decode()

    def issue(self, hostname: str) -> Files:
        """A fresh certificate for the hostname, replacing the files of one issued before."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64])])
        leaf = self._sign(name, key.public_key(), x509.SubjectAlternativeName([x509.DNSName(hostname)]))
        stem = hostname[-200:]
        files = Files(self._folder / f"{stem}.pem", self._folder / f"{stem}.key")
        files.cert.write_bytes(leaf.public_bytes(Encoding.PEM) + self.pem.encode())
        files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return files

    def client(self, *alpn: str) -> ssl.SSLContext:
        """A client's context that trusts this authority alone."""
        context = ssl.create_default_context(cadata=self.pem)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def server(self, hostname: str, *alpn: str) -> ssl.SSLContext:
        """A backend's context with a certificate of its own."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue(hostname))
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def _sign(
        self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey, extension: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .sign(self._key, hashes.SHA256())
        )
