"""A socket in front of podman's own, or of a registry's, that misbehaves when it is told to: both on their bad days."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_HEAD_END = b"\r\n\r\n"
_TLS = b"\x16"
"""Begins a greeting in TLS, which is spoken nowhere here."""
_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)

Address = Path | tuple[str, int]
"""A Unix socket's path, or host and port."""

Fault = Callable[[socket.socket, Callable[[], bytes]], None]
"""Answers on the client's connection instead of the engine; the callable asks the engine and gives its whole answer."""


def hangs(client: socket.socket, ask: Callable[[], bytes]) -> None:
    """Takes the request and never answers; the engine does not hear of it."""
    with suppress(OSError):
        client.recv(1)


def fails_after_the_work(client: socket.socket, ask: Callable[[], bytes]) -> None:
    """The engine does what it is asked, and answers 500 with a sentence."""
    ask()
    body = b'{"cause":"bad day","message":"it broke: bad day","response":500}'
    client.sendall(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def breaks_off(client: socket.socket, ask: Callable[[], bytes]) -> None:
    """The engine does what it is asked, and hangs up in the middle of its answer."""
    head, _, body = ask().partition(_HEAD_END)
    client.sendall(head + _HEAD_END + body[: len(body) // 2])


def hangs_up(client: socket.socket, ask: Callable[[], bytes]) -> None:
    """The engine does what it is asked, and hangs up without a word."""
    ask()


def says(body: bytes) -> Fault:
    """Answers 200 with that body; the engine does not hear of the request."""

    def answer(client: socket.socket, ask: Callable[[], bytes]) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    return answer


@dataclass
class _Rule:
    pattern: re.Pattern[str]
    fault: Fault
    times: int
    hits: int = 0


@dataclass
class FaultySocket:
    """Passes each request on to `engine`, unless a rule says otherwise. Runs in threads of its own."""

    path: Address
    engine: Address
    requests: list[str] = field(default_factory=list)
    """The first line of each request, in the order in which they came."""
    _rules: list[_Rule] = field(default_factory=list)
    _listener: socket.socket | None = None
    _connections: set[socket.socket] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _hit: threading.Condition = field(default_factory=threading.Condition)

    def start(self) -> None:
        """Listens."""
        self._listener = socket.socket(_family(self.path))
        self._listener.bind(_sockaddr(self.path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Dies: the socket is gone, and so is every connection."""
        if self._listener is not None:
            # A blocked accept is woken by this alone.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
            if isinstance(self.path, Path):
                self.path.unlink(missing_ok=True)
        self.cut_connections()

    def cut_connections(self) -> None:
        """Ends what is under way; new connections are welcome."""
        with self._lock:
            for connection in self._connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def misbehaving(self, pattern: str, fault: Fault, *, times: int = 1_000_000) -> Iterator[Callable[[], int]]:
        """Answers requests like `pattern` (`POST .*/start`) by `fault`, so often; gives a count of them."""
        rule = _Rule(re.compile(pattern), fault, times)
        self._rules.append(rule)
        try:
            yield lambda: rule.hits
        finally:
            self._rules.remove(rule)
            if fault is hangs:
                self.cut_connections()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """One request for each connection: what is said of one connection is said of one call."""
        with client, self._known(client), suppress(OSError):
            request = _request(client)
            line = request.partition(b"\r\n")[0].decode(errors="replace")
            self.requests.append(line)
            rule = self._rule_for(line)
            if rule is not None:
                rule.fault(client, lambda: b"".join(self._answer(request)))
                return
            for piece in self._answer(request):
                client.sendall(piece)

    def _rule_for(self, line: str) -> _Rule | None:
        with self._lock:
            for rule in self._rules:
                if rule.hits < rule.times and rule.pattern.match(line):
                    rule.hits += 1
                    return rule
        return None

    def _answer(self, request: bytes) -> Iterator[bytes]:
        with socket.socket(_family(self.engine)) as engine, self._known(engine):
            engine.connect(_sockaddr(self.engine))
            engine.sendall(request)
            while piece := engine.recv(1 << 16):
                yield piece

    @contextmanager
    def _known(self, connection: socket.socket) -> Iterator[None]:
        with self._lock:
            self._connections.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._connections.discard(connection)


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET


def _sockaddr(address: Address) -> str | tuple[str, int]:
    return str(address) if isinstance(address, Path) else address


def _request(client: socket.socket) -> bytes:
    """A whole request that asks for the connection to end with its answer."""
    data = b""
    while _HEAD_END not in data:
        piece = client.recv(1 << 16)
        if not piece or (data or piece).startswith(_TLS):
            raise OSError
        data += piece
    head, _, body = data.partition(_HEAD_END)
    length = _LENGTH.search(head)
    while length is not None and len(body) < int(length[1]):
        body += client.recv(1 << 16)
    kept = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*kept, b"Connection: close"]) + _HEAD_END + body
