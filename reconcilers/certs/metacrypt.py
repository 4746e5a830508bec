"""Certificates by Metacrypt's own REST interface: one request, and the answer holds certificate, chain and key.

The paths and fields are those of its documentation and are all in this module.
"""

import json
import math
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from reconcilers.base import Clock
from reconcilers.certs.issuer import Chain, Issued, IssueFailed, PrivateKey, Window
from reconcilers.certs.remote import Remote, RemoteSettings

_LONGEST_ANSWER = 1 << 20
_LONGEST_REASON = 200


@dataclass(frozen=True, slots=True)
class MetacryptSettings:
    """Which CA of a Metacrypt is asked, and as whom."""

    remote: RemoteSettings
    """`url` is Metacrypt's, without a path."""
    issuer: str
    token_file: str
    mount: str = "pki"
    profile: str = "server"


class Metacrypt:
    """One CA of a Metacrypt. Implements reconcilers.certs.issuer.Issuer."""

    def __init__(self, settings: MetacryptSettings, clock: Clock) -> None:
        """Reads what earlier agents left. Blocks. Raises OSError, ValueError."""
        self._settings = settings
        self._remote = Remote(settings.remote, clock)

    @property
    def name(self) -> str:
        """With where it is and which CA of it: another one is another issuer."""
        return f"Metacrypt {self._settings.remote.url} {self._settings.issuer}"

    @property
    def at_hand(self) -> bool:
        """Never: it is reached over the network."""
        return False

    async def issue(self, hostname: str, lifetime: timedelta) -> Issued:
        """A certificate with the key that Metacrypt made for it."""
        return await self._remote.ask(lambda: self._issue(hostname, lifetime))

    def issued(self, leaf: x509.Certificate) -> bool:
        """Whether it is one of the last of some hostname."""
        return self._remote.ledger.issued(leaf)

    def verify(self, hostname: str, chain: Chain) -> None:
        """Raises IssueFailed unless a client that trusts its root accepts the chain now."""
        self._remote.verify(hostname, chain)

    async def window(self, leaf: x509.Certificate) -> Window | None:  # noqa: ARG002  # the protocol's
        """None: its REST interface says nothing of renewal."""
        return None

    def settle(self, hostname: str) -> None:
        """Nothing: it has no orders."""

    def _issue(self, hostname: str, lifetime: timedelta) -> Issued:
        try:
            token = Path(self._settings.token_file).read_text().strip()
            self._remote.budget.spend()
            issued = _parsed(self._post(token, hostname, lifetime))
            self._remote.ledger.note_issued(hostname, issued.chain[0])
        except HTTPError as error:
            with error:
                wait = self._remote.heed(error.headers.get("Retry-After"))
                raise IssueFailed(f"HTTP {error.code}: {_reason(error)}", retry_after=wait) from error
        except (OSError, HTTPException) as error:
            raise IssueFailed(str(error) or type(error).__name__) from error
        return issued

    def _post(self, token: str, hostname: str, lifetime: timedelta) -> bytes:
        settings = self._settings
        body = {
            "mount": settings.mount,
            "operation": "issue",
            "path": settings.issuer,
            "data": {
                "issuer": settings.issuer,
                "common_name": hostname,
                "profile": settings.profile,
                "dns_names": [hostname],
                "ip_addresses": [],
                "ttl": f"{math.ceil(lifetime.total_seconds() / 3600)}h",
            },
        }
        request = Request(  # noqa: S310  # the settings admit https alone
            f"{settings.remote.url.rstrip('/')}/v1/engine/request",
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        patience = settings.remote.call.total_seconds()
        context = ssl.create_default_context(cafile=settings.remote.ca_file or None)
        with build_opener(HTTPSHandler(context=context), _NoRedirects).open(request, timeout=patience) as answer:
            data: bytes = answer.read(_LONGEST_ANSWER)
            return data


class _NoRedirects(HTTPRedirectHandler):
    """Our token is for one host alone."""

    def redirect_request(
        self,
        req: Request,  # noqa: ARG002
        fp: Any,  # noqa: ARG002
        code: int,  # noqa: ARG002
        msg: str,  # noqa: ARG002
        headers: Message,  # noqa: ARG002
        newurl: str,  # noqa: ARG002
    ) -> None:
        """Makes a redirect the error that it is here."""
        return


def _reason(error: HTTPError) -> str:
    text = error.read(_LONGEST_ANSWER).decode(errors="replace")
    with suppress(ValueError, KeyError, TypeError):
        text = str(json.loads(text)["error"])
    return " ".join(text.split())[:_LONGEST_REASON] or str(error.reason)


def _parsed(answer: bytes) -> Issued:
    """What an answer holds. Raises IssueFailed where that is no certificate with its chain and key."""
    try:
        document = json.loads(answer)
        (leaf,) = x509.load_pem_x509_certificates(_pem(document, "certificate"))
        chain = x509.load_pem_x509_certificates(_pem(document, "chain"))
        key = serialization.load_pem_private_key(_pem(document, "key"), password=None)
    except (ValueError, KeyError, TypeError, UnsupportedAlgorithm) as error:
        raise IssueFailed(f"its answer holds no certificate with chain and key: {error}") from error
    return Issued(_usable(key), (leaf, *(link for link in chain if link != leaf)))


def _pem(document: Mapping[str, Any], name: str) -> bytes:
    value = document[name]
    return "\n".join(value if isinstance(value, list) else [value]).encode()


def _usable(key: object) -> PrivateKey:
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise IssueFailed("its key is neither ECDSA nor RSA")
    return key
