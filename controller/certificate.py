"""The agent's own certificate: issued anew at each start by its own CA, for all names that the node goes by."""

import ipaddress
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from api.errors import Refused
from controller.listen import Tls
from controller.settings import Settings
from reconcilers.certs.ca import EmbeddedCa, private_pem

_LIFETIME = timedelta(days=825)


def make_tls(settings: Settings, ca: EmbeddedCa) -> Tls | None:
    """Where and with which pair TLS is served; None where it is not. Blocks. Raises Refused."""
    if not settings.api.listen:
        return None
    # Of all kinds of keys only this one lets the handshake refuse TLS 1.2; see cli.agent.
    key = ec.generate_private_key(ec.SECP256R1())
    chain = ca.sign("localhost", key, _LIFETIME, list(_names(settings)))
    pem = b"".join(link.public_bytes(serialization.Encoding.PEM) for link in chain)
    return Tls(settings.api.listen, pem, private_pem(key), _client_ca(settings.auth.client_ca_file))


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
