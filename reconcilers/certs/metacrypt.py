"""Certificates by Metacrypt's own REST interface: one request, and the answer holds certificate, chain and key.

The paths and fields are those of its documentation and are all in this module.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from api.https import Answer, NoAnswer, Server
from reconcilers.base import Clock
from reconcilers.certs.issuer import Chain, Issued, IssueFailed, PrivateKey, Window
from reconcilers.certs.remote import Remote, RemoteSettings

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
        remote = settings.remote
        self._server = Server(remote.url, remote.ca_file, remote.call.total_seconds())

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
            answer = self._server.ask("/v1/engine/request", token=token, body=self._request(hostname, lifetime))
            if answer.status != HTTPStatus.OK:
                wait = self._remote.heed(answer.retry_after)
                raise IssueFailed(f"HTTP {answer.status}: {_reason(answer)}", retry_after=wait)
            issued = _parsed(answer)
            self._remote.ledger.note_issued(hostname, issued.chain[0])
        except (OSError, NoAnswer) as error:
            raise IssueFailed(str(error) or type(error).__name__) from error
        return issued

    def _request(self, hostname: str, lifetime: timedelta) -> dict[str, object]:
        return {
            "mount": self._settings.mount,
            "operation": "issue",
            "path": self._settings.issuer,
            "data": {
                "issuer": self._settings.issuer,
                "common_name": hostname,
                "profile": self._settings.profile,
                "dns_names": [hostname],
                "ip_addresses": [],
                "ttl": f"{math.ceil(lifetime.total_seconds() / 3600)}h",
            },
        }


def _reason(answer: Answer) -> str:
    said = str(answer.body.get("error") or answer.text)
    return " ".join(said.split())[:_LONGEST_REASON] or "it gives no reason"


def _parsed(answer: Answer) -> Issued:
    """What an answer holds. Raises IssueFailed where that is no certificate with its chain and key."""
    try:
        (leaf,) = x509.load_pem_x509_certificates(_pem(answer.body, "certificate"))
        chain = x509.load_pem_x509_certificates(_pem(answer.body, "chain"))
        key = serialization.load_pem_private_key(_pem(answer.body, "key"), password=None)
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
