"""Requests as a client of the proxy makes them: by hostname, trusting one CA, to an address on loopback."""

import http.client
import random
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Self

from stack.processes import StackError


def fetch(address: tuple[str, int], hostname: str, ca: Path, path: str = "/", *, seconds: float = 5) -> str:
    """The body of `https://hostname/path` as the server at `address` gives it, over TLS that `ca` verifies.

    Raises OSError when nobody answers within `seconds`, ssl.SSLError when the certificate is not to be trusted, and
    StackError when the answer is not 200.
    """
    trusting = ssl.create_default_context(cafile=str(ca))
    with (
        socket.create_connection(address, timeout=seconds) as raw,
        trusting.wrap_socket(raw, server_hostname=hostname) as tls,
    ):
        connection = http.client.HTTPConnection(hostname)
        connection.sock = tls
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read().decode()
    if answer.status != http.HTTPStatus.OK:
        raise StackError(f"https://{hostname}{path} answered {answer.status}: {body.strip()}")
    return body


def answers(address: tuple[str, int], hostname: str, ca: Path) -> bool:
    """Whether `fetch` succeeds, and soon: a request to a container that just died may never be answered."""
    with suppress(OSError, http.client.HTTPException, StackError):
        return bool(fetch(address, hostname, ca, seconds=0.25))
    return False


class Visitor:
    """Somebody who asks for a page again and again, one request after the other, for as long as this is entered."""

    def __init__(self, address: tuple[str, int], hostname: str, ca: Path) -> None:
        self._fetch = partial(fetch, address, hostname, ca)
        self._leaves = threading.Event()
        self._thread = threading.Thread(target=self._visit, name="visitor")
        self.answers: list[str] = []
        self.failures: list[str] = []
        self.longest_gap = 0.0
        """Between two answers, in seconds."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaves.set()
        self._thread.join()

    def _visit(self) -> None:
        last = time.monotonic()
        while not self._leaves.is_set():
            try:
                self.answers.append(self._fetch())
            except (OSError, http.client.HTTPException, StackError) as error:
                self.failures.append(str(error))
            now = time.monotonic()
            self.longest_gap, last = max(self.longest_gap, now - last), now


def is_ok(url: str) -> bool:
    """Whether a plain HTTP address on loopback answers 200."""
    with suppress(OSError, http.client.HTTPException), urllib.request.urlopen(url, timeout=1) as answer:
        return bool(answer.status == http.HTTPStatus.OK)
    return False


def wait_for(probe: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Returns once `probe` is true, which is asked from the outside every few milliseconds.

    Raises StackError when that took longer than `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > deadline:
            raise StackError(f"{what}: not within {seconds:g} s")
        time.sleep(0.005)


def free_port() -> int:
    """A TCP port that nobody uses, of those that neither the kernel nor an agent gives to anybody by itself."""
    while True:
        port = random.randrange(61000, 65536)
        if is_free(port):
            return port


def is_free(port: int) -> bool:
    """Whether the port can be bound on every address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
