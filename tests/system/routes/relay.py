"""A Unix socket in front of mc-proxy's own that is slow, mute or breaks off when it is told to. Knows no protocol."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Relay:
    """Passes bytes on in both directions, in threads of its own."""

    path: Path
    proxy: Path
    delay: float = 0.0
    """Seconds by which each piece of an answer is late."""
    _mute: threading.Event = field(default_factory=threading.Event)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _connections: set[socket.socket] = field(default_factory=set)

    def start(self) -> None:
        """Listens."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Ends with all its connections."""
        self._stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Ends what is under way; new connections are welcome."""
        for connection in tuple(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def mute(self) -> Iterator[None]:
        """The proxy hears and does everything, but its answers are lost."""
        self._mute.set()
        try:
            yield
        finally:
            self._mute.clear()
            self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            proxy = socket.socket(socket.AF_UNIX)
            with suppress(OSError):
                proxy.connect(str(self.proxy))
            self._connections |= {client, proxy}
            for source, sink, answers in ((client, proxy, False), (proxy, client, True)):
                threading.Thread(target=self._pass_on, args=(source, sink, answers), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if answers and self._mute.is_set():
                    continue
                if answers and self._stopped.wait(self.delay):
                    break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
