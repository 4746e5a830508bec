"""Answers http-01 challenges (RFC 8555, section 8.3) while there are any, and listens at no other time."""

import socket
import socketserver
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from threading import Lock, Thread

_POLL = 0.05
"""Seconds that the server takes at most to notice that it shall end."""


class AddressUnavailable(Exception):
    """Challenges cannot be answered; the sentence says where and why."""


class Responder:
    """Serves the answers of all orders under way on one address. Safe to use from several threads."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._answers: dict[str, bytes] = {}
        self._lock = Lock()
        self._server: _Server | None = None

    @contextmanager
    def serving(self, path: str, answer: str) -> Iterator[None]:
        """Answers requests for that path until the block ends. Raises AddressUnavailable."""
        with self._lock:
            if self._server is None:
                self._server = self._listen()
            self._answers[path] = answer.encode()
        try:
            yield
        finally:
            with self._lock:
                self._answers.pop(path, None)
                if not self._answers and self._server is not None:
                    self._server.end()
                    self._server = None

    def _listen(self) -> "_Server":
        host, port = self._address
        try:
            return _Server(self._address, self._answers)
        except OSError as error:
            reason = error.strerror or str(error)
            raise AddressUnavailable(f"http-01 challenges cannot be answered on {host}:{port}: {reason}") from error


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], answers: dict[str, bytes]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.answers = answers
        super().__init__(address, _Handler)
        self._thread = Thread(target=self.serve_forever, args=(_POLL,), name="http-01", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Frees the address."""
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: a stranger who hangs up is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = 5

    def do_GET(self) -> None:
        """The answer for that path, or 404."""
        answer = self.server.answers.get(self.path)
        self.send_response(HTTPStatus.NOT_FOUND if answer is None else HTTPStatus.OK)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(answer or b"")))
        self.end_headers()
        self.wfile.write(answer or b"")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its base has it so
        """Nothing: anybody can send requests here."""
