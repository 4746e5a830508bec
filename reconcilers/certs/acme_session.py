"""One conversation with an ACME server, by the `acme` library. Everything here blocks."""

import base64
import math
import ssl
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any

import requests
from acme import challenges, client, crypto_util, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from api.model import Model
from reconcilers.certs.ca import private_pem
from reconcilers.certs.challenges import Responder
from reconcilers.certs.files import Content, Files, read
from reconcilers.certs.issuer import Issued, PrivateKey
from reconcilers.certs.ledger import Entry

_NONCES = 10
"""How often a request is repeated whose nonce the server does not like any more."""

_LOST = {400, 401, 403, 404}
"""What a server answers about an order that it will not go on with; the other codes pass."""

_FIRST_LOOK, _LONGEST_LOOK = 0.1, 2.0
"""Seconds between two looks at a challenge: doubling from the one to the other."""


class OrderLost(Exception):
    """The order leads nowhere any more; the sentence says why."""


class _Registered(Model):
    url: str


class Account:
    """Our key and our account with one server, on disk. Safe to use from several threads."""

    def __init__(self, folder: Path, contact: str, eab_key_id: str, eab_hmac_file: str) -> None:
        self._key_path = folder / "account.key"
        self._path = folder / "account.json"
        self._contact = contact
        self._eab_key_id = eab_key_id
        self._eab_hmac_file = eab_hmac_file
        self._lock = Lock()

    def sign_in(self, acme: client.ClientV2) -> None:
        """Has requests signed, registering first where that was never done. Raises what the library does; OSError."""
        with self._lock:
            key = JWKEC(key=self._key())
            # Who registers signs with the key itself, and with no account that the server forgot.
            acme.net.key, acme.net.account = key, None
            known = read(self._path)
            url = _Registered.model_validate_json(known).url if known else self._register(acme, key)
            acme.net.account = messages.RegistrationResource(uri=url, body=messages.Registration())

    def forget(self) -> None:
        """The server does not know the account: it is made anew next time. Raises OSError."""
        with self._lock:
            Files().remove(self._path)

    def _register(self, acme: client.ClientV2, key: JWKEC) -> str:
        binding: dict[str, Any] | None = None
        if self._eab_key_id:
            secret = Path(self._eab_hmac_file).read_text().strip()
            binding = messages.ExternalAccountBinding.from_data(
                key.public_key(), self._eab_key_id, secret, acme.directory
            )
        wanted = messages.NewRegistration.from_data(
            email=self._contact or None, terms_of_service_agreed=True, external_account_binding=binding
        )
        try:
            url = str(acme.new_account(wanted).uri)
        except errors.ConflictError as known:
            # An earlier agent died between being registered and writing it down.
            url = known.location
        Files().replace([Content(self._path, _Registered(url=url).model_dump_json().encode(), 0o600)])
        return url

    def _key(self) -> ec.EllipticCurvePrivateKey:
        data = read(self._key_path)
        if data is not None:
            return load_ecdsa_key(data)
        key = ec.generate_private_key(ec.SECP256R1())
        Files().replace([Content(self._key_path, private_pem(key), 0o600)])
        return key


def load_ecdsa_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """A key that we wrote. Raises ValueError where it is not that any more."""
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an ECDSA key")  # noqa: TRY004  # what it is was read from a file
    return key


class _Network(client.ClientNetwork):
    """Repeats what a server refuses for its nonce alone, as RFC 8555, section 6.5 wants; the library does so once."""

    deadline = math.inf

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        for _ in range(_NONCES):
            if time.monotonic() > self.deadline:
                # Nobody waits for us any more, and another attempt may be under way.
                raise errors.TimeoutError
            try:
                return super().post(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return super().post(*args, **kwargs)


@dataclass
class Session:
    """Ends with `close`. All its methods raise what the library and requests do."""

    directory: str
    ca_file: str
    patience: timedelta
    call: timedelta
    status: int = 0
    """Of the last answer that was an error."""
    retry_after: str | None = None
    """Its header."""
    _network: _Network = field(init=False)
    _client: client.ClientV2 = field(init=False)

    def open(self) -> None:
        """Asks for the directory."""
        seconds = math.ceil(self.call.total_seconds())
        self._network = _Network(alg=ES256, user_agent="metacircular-mcp", timeout=seconds)
        self._network.deadline = time.monotonic() + self.patience.total_seconds()
        # What this host trusts, where nothing else is said: requests would bring a list of its own.
        trusted = ssl.get_default_verify_paths()
        verify = self.ca_file or trusted.cafile or trusted.capath or True
        # The library sets it on each request, over what its session has.
        self._network.verify_ssl = verify  # type: ignore[assignment]
        self._network.session.hooks["response"].append(self._heed)
        self._client = client.ClientV2(client.ClientV2.get_directory(self.directory, self._network), self._network)

    def close(self) -> None:
        """Frees its connections."""
        if hasattr(self, "_network"):
            self._network.session.close()

    def sign_in(self, account: Account) -> None:
        """Has what follows signed."""
        account.sign_in(self._client)

    def order(self, hostname: str, key: ec.EllipticCurvePrivateKey) -> messages.OrderResource:
        """A new order."""
        return self._client.new_order(crypto_util.make_csr(private_pem(key), [hostname]))

    def finish(self, entry: Entry, responder: Responder) -> Issued:
        """The certificate of an order, whatever was done for it already. Raises OrderLost, AddressUnavailable."""
        key, order = _restored(entry)
        try:
            for url in order.body.authorizations:
                self._authorize(url, responder)
            deadline = datetime.now() + timedelta(seconds=self._left())  # noqa: DTZ005  # as the library wants it
            order = self._client.finalize_order(order, deadline)
        except errors.IssuanceError as error:
            raise OrderLost(str(error.error)) from error
        except messages.Error as error:
            if self.status in _LOST and error.code != "badNonce":
                raise OrderLost(error.detail or str(error)) from error
            raise
        except errors.Error as error:
            # The library has no type of its own for an order that became invalid without a reason.
            if type(error) is errors.Error:
                raise OrderLost(str(error)) from error
            raise
        return Issued(key, tuple(x509.load_pem_x509_certificates(order.fullchain_pem.encode())))

    def renewal_info(self, leaf: x509.Certificate) -> tuple[messages.RenewalInfo, str | None] | None:
        """What the server says of a certificate's renewal, and its Retry-After; None where it says nothing of any."""
        identifiers = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        try:
            base = self._client.directory["renewalInfo"]
        except KeyError:
            return None
        # RFC 9773, section 4.1; the serial as DER has it, with room for a sign.
        serial = leaf.serial_number.to_bytes(leaf.serial_number.bit_length() // 8 + 1, "big")
        name = ".".join(
            base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (identifiers.key_identifier or b"", serial)
        )
        answer = self._network.get(f"{base}/{name}")
        return messages.RenewalInfo.from_json(answer.json()), answer.headers.get("Retry-After")

    def _authorize(self, url: str, responder: Responder) -> None:
        """Returns once the server has seen that the name is ours. Raises OrderLost where it does not think so."""
        known = self._look(url)
        if known.body.status == messages.STATUS_PENDING:
            challenge = next((c for c in known.body.challenges if isinstance(c.chall, challenges.HTTP01)), None)
            if challenge is None:
                raise OrderLost("the server offers no http-01 challenge for it")
            response, validation = challenge.chall.response_and_validation(self._network.key)
            with responder.serving(challenge.chall.path, validation):
                if challenge.status == messages.STATUS_PENDING:
                    self._client.answer_challenge(challenge, response)
                known = self._settled(url)
        if known.body.status != messages.STATUS_VALID:
            reasons = [str(challenge.error.detail) for challenge in known.body.challenges if challenge.error]
            raise OrderLost("; ".join(reasons) or f"its authorization is {known.body.status.name}")

    def _settled(self, url: str) -> messages.AuthorizationResource:
        pause = _FIRST_LOOK
        while (known := self._look(url)).body.status == messages.STATUS_PENDING:
            if self._left() < pause:
                raise errors.TimeoutError
            time.sleep(pause)  # the protocol has no event to wait for, and this thread nothing else to do
            pause = min(2 * pause, _LONGEST_LOOK)
        return known

    def _look(self, url: str) -> messages.AuthorizationResource:
        authorization = messages.AuthorizationResource(uri=url, body=messages.Authorization())
        return self._client.poll(authorization)[0]

    def _left(self) -> float:
        return max(0.0, self._network.deadline - time.monotonic())

    def _heed(self, response: requests.Response, *_: object, **__: object) -> None:
        if not response.ok:
            self.status = response.status_code
            self.retry_after = response.headers.get("Retry-After")


def _restored(entry: Entry) -> tuple[PrivateKey, messages.OrderResource]:
    key = load_ecdsa_key(entry.key.encode())
    body = messages.Order.from_json(dict(entry.body))
    names = [identifier.value for identifier in body.identifiers]
    csr = crypto_util.make_csr(private_pem(key), names)
    return key, messages.OrderResource(body=body, uri=entry.order, csr_pem=csr)
