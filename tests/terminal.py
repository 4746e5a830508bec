"""A terminal that a command runs on: a real one, made of a pseudo-terminal, of any size."""

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import termios
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

_STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PATIENCE = 30.0
"""Seconds in which whatever is waited for has to be drawn."""


class Terminal:
    """What a command draws, and the keys that are pressed."""

    def __init__(self, descriptor: int, process: asyncio.subprocess.Process) -> None:
        self._descriptor = descriptor
        self._process = process
        self.drawn = ""

    @property
    def text(self) -> str:
        """All that was ever drawn, without colours and cursor movements."""
        return _STEERING.sub("", self.drawn).replace("\r", "")

    async def until(self, words: str) -> None:
        """Returns once the words were drawn."""
        try:
            async with asyncio.timeout(_PATIENCE):
                while words not in self.text:
                    assert await self._read(), f"it ended without {words!r}: {self.text}"
        except TimeoutError:
            raise AssertionError(f"no {words!r} in {self.text}") from None

    async def end(self) -> int:
        """The exit status, once there is one."""
        async with asyncio.timeout(_PATIENCE):
            while await self._read():
                pass
            return await self._process.wait()

    async def _read(self) -> bool:
        try:
            data = await asyncio.to_thread(os.read, self._descriptor, 65536)
        except OSError:  # Linux' way of saying that nobody holds the other side any more
            return False
        self.drawn += data.decode(errors="replace")
        return bool(data)

    def press(self, keys: bytes) -> None:
        """Presses keys: b"\\x03" is Ctrl-C."""
        os.write(self._descriptor, keys)

    def resize(self, columns: int, rows: int) -> None:
        """Gives the terminal another size, which its programs are told."""
        _set_size(self._descriptor, columns, rows)
        self._process.send_signal(signal.SIGWINCH)


@asynccontextmanager
async def terminal(
    command: Sequence[str | Path], environment: Mapping[str, str], folder: Path, size: tuple[int, int] = (120, 40)
) -> AsyncIterator[Terminal]:
    """Runs a command on a terminal of `size`, which are columns and rows; it does not outlive the block."""
    ours, theirs = pty.openpty()
    _set_size(ours, *size)
    process = await asyncio.create_subprocess_exec(
        *("setsid", "--ctty", *command),
        cwd=folder,
        env={"TERM": "xterm"} | dict(environment),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(ours)


def _set_size(descriptor: int, columns: int, rows: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
