"""HTTPS in front of a pebble that misbehaves when it is told to: a CA on its bad days."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stack.pebble import Pebble
from stack.web import free_port
from tests.system.faults import FaultySocket


class FaultyCa(FaultySocket):
    """Passes each request on to the pebble, unless a rule says otherwise; all URLs that pebble gives lead here."""

    def __init__(self, pebble: Pebble) -> None:
        super().__init__(Path("/nonexistent"), Path("/nonexistent"))
        self.port = free_port()
        self._pebble = pebble

    @property
    def directory(self) -> str:
        """URL of the ACME directory, by way of this."""
        return f"https://localhost:{self.port}/dir"

    def start(self) -> None:
        """Listens."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        root = self._pebble.layout.root
        context.load_cert_chain(root / "tls.pem", root / "tls.key")
        plain = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self._listener = context.wrap_socket(plain, server_side=True)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _answer(self, request: bytes) -> Iterator[bytes]:
        trusting = ssl.create_default_context(cafile=str(self._pebble.ca_file))
        with (
            socket.create_connection(("127.0.0.1", self._pebble.port)) as raw,
            trusting.wrap_socket(raw, server_hostname="localhost") as upstream,
            self._known(upstream),
        ):
            upstream.sendall(request)
            while piece := upstream.recv(1 << 16):
                yield piece


@contextmanager
def faulty_ca(pebble: Pebble) -> Iterator[FaultyCa]:
    """One that is gone afterwards."""
    made = FaultyCa(pebble)
    made.start()
    try:
        yield made
    finally:
        made.stop()
