"""HAProxy's runtime folder: its files, its sockets, and what is said over them."""

import asyncio
import fcntl
import hashlib
import os
import re
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

from mcproxy.model import Bundle
from mcproxy.render import Rendered, control_socket, file_name

_ANSWER_TIMEOUT = 5.0
_PREFIX = re.compile(r"^\[(?P<level>[A-Z]+)\]\s*\(\d+\)\s*:\s*(config : )?")
# Lines that only say that other lines told of an error.
_ECHOES = ("Error(s) found in configuration", "Fatal errors found in configuration")


class RuntimeDir:
    """Names and writes what lies in the folder; whatever has a name by content is written once and never changed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "haproxy.cfg"
        self.master = path / "master.sock"
        self.notify = path / "notify.sock"
        self.log = path / "log.sock"
        self.haproxy_lock = path / "haproxy.lock"
        self._written: set[str] = set()

    def claim(self) -> None:
        """Makes the folder, for its owner alone, and holds it until this process ends.

        Raises BlockingIOError when another mcproxyd holds it, other OSErrors when it cannot be made.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.chmod(0o700)
        self._claim = os.open(self.path / "mcproxyd.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def control(self, generation: int) -> Path:
        """The socket of one generation's worker."""
        return self.path / control_socket(generation)

    def write_files(self, files: Mapping[str, bytes]) -> None:
        """Lays down files that are named by their content."""
        for name, content in files.items():
            # What an earlier life left may be half of a power cut: only our own writing is trusted.
            if name not in self._written or not (self.path / name).exists():
                self.replace(self.path / name, content)
                self._written.add(name)

    def replace(self, path: Path, content: bytes) -> None:
        """Writes a file, 0600, so that readers see the old or the new one and nothing in between."""
        part = path.with_name(f".{path.name}.part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        part.replace(path)

    def collect(self, rendered: Rendered, generation: int) -> None:
        """Removes what neither this configuration nor its worker uses."""
        used = {*rendered.files, control_socket(generation)}
        for path in self.path.iterdir():
            garbage = path.suffix in (".pem", ".map", ".certificates", ".firewall", ".part")
            if path.name not in used and (garbage or path.match("worker-*.sock")):
                path.unlink(missing_ok=True)
                self._written.discard(path.name)

    def saved_bundle(self, digest: str) -> Bundle | None:
        """The last good copy of a certificate, if it is still here and whole."""
        try:
            pem = (self.path / file_name(digest, "pem")).read_bytes()
        except OSError:
            return None
        return Bundle(digest, pem) if hashlib.sha256(pem).hexdigest() == digest else None


async def ask(path: Path, command: str) -> str:
    """One command to one of HAProxy's command sockets, and its answer. Raises OSError when nobody answers there."""
    try:
        async with asyncio.timeout(_ANSWER_TIMEOUT):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                writer.write(f"{command}\n".encode())
                # Without this the master keeps the connection open after its answer.
                writer.write_eof()
                return (await reader.read()).decode(errors="replace")
            finally:
                writer.close()
    except TimeoutError as error:
        raise ConnectionError(f"{path} does not answer") from error


def bound(path: Path) -> socket.socket:
    """A datagram socket of this name, in place of one that an earlier life left. Raises OSError."""
    path.unlink(missing_ok=True)
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.setblocking(False)
    receiver.bind(str(path))
    return receiver


async def receive(path: Path, on_message: Callable[[str], None]) -> asyncio.DatagramTransport:
    """Binds a datagram socket and calls back for each message until the transport is closed. Raises OSError."""

    class Receiver(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, _address: object) -> None:
            on_message(data.decode(errors="replace"))

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Receiver, sock=bound(path))
    return transport


def alert(line: str) -> str | None:
    """The reason that a line of HAProxy's output gives, without its prefix; None when it is no alert or an echo."""
    prefix = _PREFIX.match(line)
    if prefix is None or prefix["level"] != "ALERT" or any(echo in line for echo in _ECHOES):
        return None
    return line[prefix.end() :].strip()


def sessions(answer: str) -> Mapping[str, int]:
    """Open connections by frontend, from the answer to `show stat` (HAProxy management guide, 9.1)."""
    header, *lines = answer.removeprefix("# ").splitlines()
    columns = header.split(",")
    rows = (dict(zip(columns, line.split(","), strict=False)) for line in lines if line)
    return {row["pxname"]: int(row["scur"]) for row in rows if row.get("svname") == "FRONTEND"}


def worker_pids(answer: str) -> list[int]:
    """All workers, also those that only finish their connections, from the answer to the master's `show proc`."""
    rows = (line.split() for line in answer.splitlines())
    return [int(row[0]) for row in rows if len(row) > 1 and row[1] == "worker"]


def own_pid(answer: str) -> int:
    """The process that gave this answer to `show info`. Raises OSError when it gave none."""
    for line in answer.splitlines():
        if line.startswith("Pid: "):
            return int(line.removeprefix("Pid: "))
    raise ConnectionError("HAProxy does not tell its pid")
