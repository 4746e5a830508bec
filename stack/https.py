"""JSON over real HTTPS on loopback, for stand-ins of services that we cannot have: with a CA of its own."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from reconcilers.certs.ca import EmbeddedCa, private_pem

Answer = Callable[[str, str, Mapping[str, Any]], tuple[int, Mapping[str, Any]]]
"""From path, bearer token and body to status and body."""


@contextmanager
def serving(folder: Path, answer: Answer, port: int = 0) -> Iterator[str]:
    """Answers until the block ends, at the URL that it gives; `folder`/ca.pem is what the certificate leads to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(make_pair(folder))
    server = ThreadingHTTPServer(("127.0.0.1", port), _handler(answer))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"https://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def make_pair(folder: Path) -> Path:
    """A file with the key and the certificate of localhost, by a CA that is made below `folder` where there is none."""
    ca = EmbeddedCa.open(folder, "stand-in", lambda: datetime.now(UTC))
    key = ec.generate_private_key(ec.SECP256R1())
    chain = ca.sign("localhost", key, timedelta(days=1))
    pair = folder / "tls.pem"
    pair.write_bytes(private_pem(key) + b"".join(link.public_bytes(Encoding.PEM) for link in chain))
    return pair


def _handler(answer: Answer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            status, document = answer(self.path, token, body)
            data = b"" if status == 204 else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET  # noqa: N815  # its base has it so

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its base has it so
            """A request is not worth a line."""

    return Handler
