"""A CA over real HTTPS that the tests themselves play: Metacrypt's REST interface, and ACME Renewal Information."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from reconcilers.certs.ca import EmbeddedCa, private_pem
from reconcilers.certs.issuer import PrivateKey


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class StandIn:
    """What it says to whom; `answers` go out instead of a certificate, one a request, while there are any."""

    folder: Path
    token: str = "open-sesame"
    answers: list[tuple[int, dict[str, str], bytes]] = field(default_factory=list)
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    rsa: bool = False
    lifetime: timedelta = timedelta(days=90)
    window: tuple[datetime, datetime] = field(default_factory=lambda: (now(), now()))
    url: str = ""

    def __post_init__(self) -> None:
        self.ca = EmbeddedCa.open(self.folder / "stand-in", "metacrypt", now)

    @property
    def ca_file(self) -> Path:
        return self.folder / "stand-in" / "ca.pem"

    @contextmanager
    def serving(self) -> Iterator["StandIn"]:
        """Answers on a port of its own until the block ends."""
        key = ec.generate_private_key(ec.SECP256R1())
        (self.folder / "tls.pem").write_bytes(
            private_pem(key) + _pem(self.ca.sign("localhost", key, timedelta(days=1)))
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "tls.pem")
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.socket = context.wrap_socket(server.socket, server_side=True)
        self.url = f"https://localhost:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def post(self, authorization: str, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        """Answers POST /v1/engine/request."""
        self.requests.append((authorization, body))
        if self.answers:
            return self.answers.pop(0)
        if authorization != f"Bearer {self.token}":
            return 401, {}, b'{"error": "unauthorized"}'
        (hostname,) = body["data"]["dns_names"]
        key: PrivateKey = ec.generate_private_key(ec.SECP256R1())
        if self.rsa:
            key = rsa.generate_private_key(65537, 2048)
        leaf, root = self.ca.sign(hostname, key, self.lifetime)
        parts = {"certificate": _pem((leaf,)), "chain": _pem((leaf, root)), "key": private_pem(key)}
        return 200, {}, json.dumps({name: part.decode() for name, part in parts.items()}).encode()

    def get(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Answers the directory of an ACME server, and what it says of a renewal."""
        self.requests.append((path, {}))
        if path == "/directory":
            document: dict[str, Any] = {"newNonce": f"{self.url}/nonce", "renewalInfo": f"{self.url}/renewal"}
            return 200, {}, json.dumps(document).encode()
        start, end = (moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in self.window)
        return (
            200,
            {"Retry-After": "21600"},
            json.dumps({"suggestedWindow": {"start": start, "end": end}}).encode(),
        )


def _pem(chain: tuple[Any, ...]) -> bytes:
    return b"".join(link.public_bytes(Encoding.PEM) for link in chain)


def _handler(stand_in: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/engine/request"
            self._send(*stand_in.post(self.headers["Authorization"], body))

        def do_GET(self) -> None:
            self._send(*stand_in.get(self.path))

        def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its base has it so
            pass

    return Handler
