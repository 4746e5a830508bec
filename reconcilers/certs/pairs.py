"""Certificate and key as they lie on disk: what is there, whether it can serve, and laying it down."""

from hashlib import sha256
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from reconcilers.certs.ca import private_pem
from reconcilers.certs.files import Content, Files, read
from reconcilers.certs.issuer import Chain, Issuer
from reconcilers.certs.plan import Pair, Site


def observe(site: Site, issuer: Issuer) -> Pair:
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
    problem = "its key file is missing" if key is None else key_problem(chain[0], key) or chain_problem(site, chain)
    return of_chain(chain, issuer, problem=problem, has_key=key is not None)


def of_chain(chain: Chain, issuer: Issuer, *, problem: str = "", has_key: bool = True) -> Pair:
    """What the planner knows of a chain that lies at a site."""
    leaf = chain[0]
    return Pair(
        has_cert=True,
        has_key=has_key,
        fingerprint=leaf.fingerprint(hashes.SHA256()).hex(),
        problem=problem,
        ours=issuer.issued(leaf),
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


def chain_problem(site: Site, chain: Chain) -> str:
    """What keeps a chain from being accepted for the site's hostname, if anything; its time is not looked at."""
    if not _covers(chain[0], site.hostname):
        return "it is for other names"
    # A self-signed certificate is complete by itself.
    links = pairwise(chain) if len(chain) > 1 else [(chain[0], chain[0])]
    return "" if all(_signed(lower, upper) for lower, upper in links) else "its chain is incomplete"


def lay_down(files: Files, site: Site, key: ec.EllipticCurvePrivateKey, chain: Chain) -> None:
    """Puts a pair in place, making the folder where it is missing. Raises OSError.

    The key goes first: nobody meets the new certificate without it. Dying in
    between leaves a pair that does not match, which is seen and mended.
    """
    certificate = b"".join(link.public_bytes(serialization.Encoding.PEM) for link in chain)
    Path(site.cert_path).parent.mkdir(parents=True, exist_ok=True)
    files.replace(
        [Content(Path(site.key_path), private_pem(key), 0o600), Content(Path(site.cert_path), certificate, 0o644)]
    )


def take_away(files: Files, site: Site) -> None:
    """Removes a pair, the key first: what is left by dying in between still says whose it is. Raises OSError."""
    files.remove(Path(site.key_path), Path(site.cert_path))


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
