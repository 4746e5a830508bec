"""The agent's own certificate: of its own CA, or one that it is given; looked at with each handshake.

So it is renewed, and a file that changed is read again, while the agent runs:
whoever connects next is shown the new one, and who is connected notices
nothing. No listener closes, and nothing waits for a day in three months.
"""

import ipaddress
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Final

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from api.errors import Refused
from controller.listen import Pair, Tls
from controller.settings import Settings
from reconcilers.base import Clock
from reconcilers.certs.ca import EmbeddedCa, private_pem
from reconcilers.certs.issuer import IssueFailed

LIFETIME: Final = timedelta(days=90)
"""Of what the own CA signs; it is renewed at two thirds."""

log = structlog.get_logger("api")


@dataclass(frozen=True, slots=True)
class Shown:
    """What callers are shown, and until when it holds."""

    pair: Pair
    not_after: datetime
    problem: str = ""
    """Why it is not the one that it should be."""


Source = Callable[[], Shown | None]
"""Another one than it said before; None: that one still. Raises Refused where there should be another."""


class ApiCertificate:
    """The certificate of now. May be asked from any thread, and is by gRPC's."""

    def __init__(self, source: Source) -> None:
        """Raises Refused where there is none to begin with."""
        first = source()
        if first is None:
            raise AssertionError("a source begins with a certificate")
        self._source = source
        self._shown = first
        self._lock = Lock()

    def shown(self) -> Shown:
        """The one that the next caller is shown. Where no other can be had, the old one stays."""
        with self._lock:
            before = self._shown
            try:
                self._shown = self._source() or before
            except Refused as error:
                self._shown = replace(before, problem=error.message)
                if before.problem != error.message:
                    log.error("certificate_stays", reason=error.message, until=before.not_after.isoformat())  # noqa: TRY400
            else:
                if self._shown is not before:
                    log.info("certificate_renewed", until=self._shown.not_after.isoformat())
            return self._shown

    def pair(self) -> Pair:
        """As a listener wants it."""
        return self.shown().pair


def check(settings: Settings) -> None:
    """Raises Refused where the files that the settings name could not be served. Blocks."""
    api = settings.api
    if bool(api.cert_file) != bool(api.key_file):
        raise Refused("[api] has one of cert_file and key_file: say both")
    if api.cert_file:
        Given(Path(api.cert_file), Path(api.key_file))()
    _client_ca(settings.auth.client_ca_file)


def open_certificate(settings: Settings, ca: EmbeddedCa, clock: Clock) -> ApiCertificate | None:
    """What TLS is served with; None where it is not. Blocks. Raises Refused."""
    check(settings)
    if not settings.api.listen:
        return None
    if settings.api.cert_file:
        return ApiCertificate(Given(Path(settings.api.cert_file), Path(settings.api.key_file)))
    return ApiCertificate(Signed(ca, tuple(_names(settings)), clock))


def make_tls(settings: Settings, certificate: ApiCertificate | None) -> Tls | None:
    """Where TLS is served, and with what. Blocks. Raises Refused."""
    if certificate is None:
        return None
    return Tls(settings.api.listen, certificate.pair, _client_ca(settings.auth.client_ca_file))


class Signed:
    """Has the agent's own CA sign for all names that the node goes by."""

    def __init__(self, ca: EmbeddedCa, names: tuple[x509.GeneralName, ...], clock: Clock) -> None:
        self._ca = ca
        self._names = names
        self._clock = clock
        self._due: datetime | None = None

    def __call__(self) -> Shown | None:
        """Another one at two thirds of its life."""
        now = self._clock()
        if self._due is not None and now < self._due:
            return None
        # Of all kinds of keys only this one lets the handshake refuse TLS 1.2; see cli.agent.
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            chain = self._ca.sign("localhost", key, LIFETIME, self._names)
        except IssueFailed as error:
            raise Refused(f"the API's certificate cannot be signed: {error}") from error
        self._due = now + LIFETIME * 2 / 3
        pem = b"".join(link.public_bytes(serialization.Encoding.PEM) for link in chain)
        return Shown(Pair(pem, private_pem(key)), chain[0].not_valid_after_utc)


class Given:
    """Reads the files that the settings name, whenever one of them has changed."""

    def __init__(self, chain: Path, key: Path) -> None:
        self._chain = chain
        self._key = key
        self._read: tuple[tuple[int, ...], ...] | None = None

    def __call__(self) -> Shown | None:
        """What the files hold now. Two that do not belong together are halfway through being replaced."""
        try:
            found = tuple(_state(path) for path in (self._chain, self._key))
            if found == self._read:
                return None
            self._read = found
            pair = Pair(self._chain.read_bytes(), self._key.read_bytes())
        except OSError as error:
            self._read = None
            raise Refused(f"api.cert_file, api.key_file: {error.filename}: {error.strerror}") from error
        return Shown(pair, _check(self._chain, self._key, pair))


def _state(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _check(chain: Path, key: Path, pair: Pair) -> datetime:
    """When the pair ends. Raises Refused where it could not be served, or would let TLS 1.2 in."""
    try:
        leaf = x509.load_pem_x509_certificates(pair.chain)[0]
    except ValueError as error:
        raise Refused(f"api.cert_file: {chain} holds no certificate: {error}") from error
    try:
        private = serialization.load_pem_private_key(pair.key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Refused(f"api.key_file: {key} holds no key that can be used: {error}") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise Refused(
            f"api.key_file: {key} holds no ECDSA key, and only with one TLS 1.2 is refused: have it made anew"
        )
    if leaf.public_key() != private.public_key():
        raise Refused(f"api.cert_file: the certificate in {chain} is of another key than {key}")
    return leaf.not_valid_after_utc


def _names(settings: Settings) -> Iterator[x509.GeneralName]:
    bound = settings.api.listen.rpartition(":")[0].strip("[]")
    for name in dict.fromkeys(
        ("127.0.0.1", "::1", settings.node, socket.gethostname(), socket.getfqdn(), bound, *settings.api.names)
    ):
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            # What a host calls itself need not be a name that others could ask for.
            if name.isascii() and name != "localhost" and name:
                yield x509.DNSName(name)
            continue
        if not address.is_unspecified:
            yield x509.IPAddress(address)


def _client_ca(path: str) -> bytes | None:
    if not path:
        return None
    try:
        data = Path(path).read_bytes()
        x509.load_pem_x509_certificates(data)
    except (OSError, ValueError) as error:
        raise Refused(f"auth.client_ca_file: {path} holds no certificate: {error}") from error
    return data
