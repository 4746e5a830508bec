"""Certificates by ACME (RFC 8555) with http-01 challenges: Let's Encrypt, step-ca, Metacrypt, pebble.

Everything that an order needs is on disk before the server hears of it, so
that an agent killed at any moment goes on where it was. The `acme` library
blocks: each certificate is obtained in a thread of its own.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from acme import errors, messages
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.errors import Error as JoseError

from reconcilers.base import Clock
from reconcilers.certs.acme_session import Account, OrderLost, Session
from reconcilers.certs.ca import private_pem
from reconcilers.certs.challenges import AddressUnavailable, Responder
from reconcilers.certs.issuer import Chain, Issued, IssueFailed, Window
from reconcilers.certs.model import due
from reconcilers.certs.remote import Remote, RemoteSettings, waiting_time

T = TypeVar("T")

_ASK_AGAIN = timedelta(hours=6)
_SOONEST, _LATEST = timedelta(minutes=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class AcmeSettings:
    """An ACME server, and who we are to it."""

    remote: RemoteSettings
    """`url` is the directory's."""
    challenge_host: str
    challenge_port: int
    contact: str = ""
    eab_key_id: str = ""
    eab_hmac_file: str = ""


def folder_of(directory: str) -> str:
    """What an issuer's folder is called: one account for each directory."""
    return f"{urlsplit(directory).hostname or 'acme'}-{sha256(directory.encode()).hexdigest()[:8]}"


class Acme:
    """One ACME server. Implements reconcilers.certs.issuer.Issuer."""

    def __init__(self, settings: AcmeSettings, clock: Clock) -> None:
        """Reads what earlier agents left. Blocks. Raises OSError, ValueError."""
        self._settings = settings
        self._clock = clock
        self._remote = Remote(settings.remote, clock)
        self._responder = Responder(settings.challenge_host, settings.challenge_port)
        self._account = Account(settings.remote.folder, settings.contact, settings.eab_key_id, settings.eab_hmac_file)

    @property
    def name(self) -> str:
        """With its directory: another one is another issuer."""
        return f"ACME {self._settings.remote.url}"

    @property
    def at_hand(self) -> bool:
        """Never: it takes seconds, and its operator counts."""
        return False

    async def issue(self, hostname: str, lifetime: timedelta) -> Issued:  # noqa: ARG002  # most servers refuse a wish
        """The certificate of the open order, or of a new one."""
        return await self._remote.ask(lambda: self._translated(lambda session: self._issue(session, hostname)))

    def issued(self, leaf: x509.Certificate) -> bool:
        """Whether it is one of the last of some hostname."""
        return self._remote.ledger.issued(leaf)

    def verify(self, hostname: str, chain: Chain) -> None:
        """Raises IssueFailed unless a client that trusts its root accepts the chain now."""
        self._remote.verify(hostname, chain)

    async def window(self, leaf: x509.Certificate) -> Window | None:
        """The window of its renewal information (RFC 9773), where the server has any."""
        return await self._remote.ask(lambda: self._translated(lambda session: _window(session, leaf)))

    def settle(self, hostname: str) -> None:
        """The order's key is in its place."""
        self._remote.ledger.close_order(hostname)

    def _issue(self, session: Session, hostname: str) -> Issued:
        ledger = self._remote.ledger
        session.sign_in(self._account)
        if ledger.entry(hostname).order:
            with suppress(OrderLost):
                resumed = self._finish(session, hostname)
                leaf = resumed.chain[0]
                # One that was laid down long ago: a death kept its order from being closed.
                if self._clock() < due(leaf.not_valid_before_utc, leaf.not_valid_after_utc):
                    return resumed
            ledger.close_order(hostname)
        self._remote.budget.spend()
        key = ec.generate_private_key(ec.SECP256R1())
        order = session.order(hostname, key)
        ledger.note(hostname, order=order.uri, body=order.body.to_json(), key=private_pem(key).decode())
        try:
            return self._finish(session, hostname)
        except OrderLost as lost:
            raise IssueFailed(str(lost)) from lost

    def _finish(self, session: Session, hostname: str) -> Issued:
        """The certificate of the order in the ledger. Raises OrderLost, and closes it, where it leads nowhere."""
        ledger = self._remote.ledger
        try:
            issued = session.finish(ledger.entry(hostname), self._responder)
        except OrderLost:
            ledger.close_order(hostname)
            raise
        ledger.note_issued(hostname, issued.chain[0])
        return issued

    def _registered(self, session: Session, work: Callable[[Session], T]) -> T:
        try:
            return work(session)
        except messages.Error as error:
            if error.code != "accountDoesNotExist":
                raise
        # A CA that was set up anew: we register anew, once.
        self._account.forget()
        return work(session)

    def _translated(self, work: Callable[[Session], T]) -> T:
        remote = self._settings.remote
        session = Session(remote.url, remote.ca_file, remote.patience, remote.call)
        try:
            session.open()
            return self._registered(session, work)
        except messages.Error as error:
            raise IssueFailed(_sentence(error), retry_after=self._remote.heed(session.retry_after)) from error
        except errors.TimeoutError as error:
            raise IssueFailed("the order was not ready in time; it goes on with the next attempt") from error
        except (errors.Error, JoseError, KeyError, ValueError) as error:
            wait = self._remote.heed(session.retry_after)
            raise IssueFailed(f"{type(error).__name__}: {error}", retry_after=wait) from error
        except OSError as error:
            # Those of the network too, as requests has them.
            raise IssueFailed(_innermost(error), retry_after=self._remote.heed(session.retry_after)) from error
        except AddressUnavailable as error:
            raise IssueFailed(str(error)) from error
        finally:
            session.close()


def _innermost(error: BaseException) -> str:
    """What the operating system or TLS said, without the layers that wrapped it."""
    while (inner := error.__cause__ or error.__context__) is not None and not isinstance(inner, errors.Error):
        error = inner
    return str(error) or type(error).__name__


def _window(session: Session, leaf: x509.Certificate) -> Window | None:
    answer = session.renewal_info(leaf)
    if answer is None:
        return None
    info, retry_after = answer
    window = info.suggested_window
    if window.start is None or window.end is None or window.end <= window.start:
        return None
    wait = waiting_time(retry_after, window.start) or _ASK_AGAIN
    return Window(window.start, window.end, min(max(wait, _SOONEST), _LATEST))


def _sentence(error: messages.Error) -> str:
    return f"{error.detail or error.title or error.description or 'refused'} ({error.code or error.typ})"


def state_folder(state_dir: Path, directory: str) -> Path:
    """Where what belongs to one ACME server is kept."""
    return state_dir / "acme" / folder_of(directory)
