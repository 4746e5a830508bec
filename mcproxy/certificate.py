"""Reads a route's certificate and key and proves that they fit, because HAProxy's refusal would name no route."""

import hashlib
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from mcproxy.errors import InvalidArgument
from mcproxy.model import Bundle

_MAX_FILE = 1 << 20


def _read(path: str, what: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidArgument(f"{what} {path}: {reason}") from error
    if len(data) > _MAX_FILE:
        raise InvalidArgument(f"{what} {path}: larger than 1 MiB")
    return data


def load_bundle(cert_path: str, key_path: str) -> Bundle:
    """The full chain (leaf first) and its unencrypted key.

    Raises InvalidArgument, naming the path and the reason, when a file is missing, unparsable, or not the other's.
    """
    cert_pem, key_pem = _read(cert_path, "tls_cert"), _read(key_path, "tls_key")
    try:
        leaf = x509.load_pem_x509_certificates(cert_pem)[0]
        public = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidArgument(f"tls_cert {cert_path}: not a PEM certificate: {error}") from error
    try:
        # Validating an RSA key's numbers takes longer than the whole call; HAProxy checks them once more anyway.
        key = load_pem_private_key(key_pem, password=None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidArgument(f"tls_key {key_path}: not an unencrypted PEM private key: {error}") from error
    if key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != public:
        raise InvalidArgument(f"tls_key {key_path}: does not belong to the first certificate of {cert_path}")
    pem = cert_pem.rstrip() + b"\n" + key_pem.rstrip() + b"\n"
    return Bundle(hashlib.sha256(pem).hexdigest(), pem)
