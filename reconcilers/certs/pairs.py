"""Certificate and key as they lie on disk: what is there, whether it can serve, and laying it down."""

from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from reconcilers.certs.ca import private_pem
from reconcilers.certs.files import Content, Files, read
from reconcilers.certs.issuer import Chain, Issued
from reconcilers.certs.ledger import fingerprint_of
from reconcilers.certs.model import Pair, Site


class Origins(Protocol):
    """Who knows where certificates are from."""

    def origin(self, leaf: x509.Certificate) -> tuple[bool, str]:
        """Whether it is ours, and the name of its issuer where that only stands in."""
        ...


def observe(site: Site, origins: Origins) -> Pair:
    """What lies at a site. Raises OSError where that cannot be known, which is never the same as nothing."""
    certificate, key = read(Path(site.cert_path)), read(Path(site.key_path))
    if certificate is None:
        problem = "" if key is None else "its certificate file is missing"
        return Pair(has_key=key is not None, problem=problem)
    try:
        chain = tuple(x509.load_pem_x509_certificates(certificate))
    except ValueError:
        digest = sha256(certificate).hexdigest()
        return Pair(True, key is not None, digest, problem="its certificate file holds no certificate")
    problem = "its key file is missing"
    if key is not None:
        problem = key_problem(chain[0], key) or chain_problem(site.hostname, chain)
    return of_chain(chain, origins, problem=problem, has_key=key is not None)


def leaf_at(site: Site) -> x509.Certificate | None:
    """The certificate at a site; None where there is none that can be read. Raises OSError."""
    try:
        return x509.load_pem_x509_certificate(read(Path(site.cert_path)) or b"")
    except ValueError:
        return None


def of_chain(chain: Chain, origins: Origins, *, problem: str = "", has_key: bool = True) -> Pair:
    """What the planner knows of a chain that lies at a site."""
    leaf = chain[0]
    ours, stands_in = origins.origin(leaf)
    return Pair(
        has_cert=True,
        has_key=has_key,
        fingerprint=fingerprint_of(leaf),
        problem=problem,
        ours=ours,
        stands_in=stands_in,
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        serial=f"{leaf.serial_number:x}",
    )


def key_problem(leaf: x509.Certificate, key: bytes) -> str:
    """What is wrong with a private key file beside this certificate, if anything."""
    try:
        private = serialization.load_pem_private_key(key, password=None)
        matches = private.public_key() == leaf.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return "its key file holds no private key that can be read"
    return "" if matches else "it does not match its key"


def chain_problem(hostname: str, chain: Chain) -> str:
    """What keeps a chain from being accepted for the hostname, if anything; its time is not looked at."""
    if not _covers(chain[0], hostname):
        return "it is for other names"
    # A self-signed certificate is complete by itself.
    links = pairwise(chain) if len(chain) > 1 else [(chain[0], chain[0])]
    return "" if all(_signed(lower, upper) for lower, upper in links) else "its chain is incomplete"


def lay_down(files: Files, site: Site, issued: Issued) -> None:
    """Puts a pair in place, making the folder where it is missing. Raises OSError.

    The key goes first: nobody meets the new certificate without it. Dying in
    between leaves a pair that does not match, which is seen and mended.
    """
    certificate = b"".join(link.public_bytes(serialization.Encoding.PEM) for link in issued.chain)
    Path(site.cert_path).parent.mkdir(parents=True, exist_ok=True)
    key = Content(Path(site.key_path), private_pem(issued.key), 0o600)
    files.replace([key, Content(Path(site.cert_path), certificate, 0o644)])


def take_away(files: Files, site: Site) -> None:
    """Removes a pair, the key first: what is left by dying in between still says whose it is. Raises OSError."""
    files.remove(Path(site.key_path), Path(site.cert_path))


def clear_away(files: Files, site: Site) -> None:
    """Removes what a death left of a pair that is not there. Raises OSError."""
    files.clear(Path(site.key_path), Path(site.cert_path))


def _covers(leaf: x509.Certificate, hostname: str) -> bool:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    wildcard = f"*.{hostname.partition('.')[2]}"
    return any(name.lower() in (hostname, wildcard) for name in names.get_values_for_type(x509.DNSName))


def _signed(lower: x509.Certificate, upper: x509.Certificate) -> bool:
    try:
        lower.verify_directly_issued_by(upper)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True
