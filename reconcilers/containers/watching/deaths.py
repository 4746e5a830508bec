"""Tells at once when a container's process ends.

The engine's own events come up to a quarter of a second late; a pidfd (Linux,
pidfd_open(2)) becomes readable within a millisecond. Only faster, never
required for correctness: where the engine lives in another pid namespace,
events and relisting tell the same, later.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

_UNWATCHED: Final = -1


class Deaths:
    """Watches one process for each container id; calls `died` once for each that ends.

    `died` is given the id, and whether the death is certain: that it was the
    container's own process which ended, and not one of the same number in
    another pid namespace.
    """

    def __init__(self, died: Callable[[str, bool], None]) -> None:
        self._died = died
        self._watched: dict[str, tuple[int, int]] = {}

    def follow(self, pids: Mapping[str, int]) -> None:
        """Watches exactly these processes from now on."""
        for container_id, (pid, _) in list(self._watched.items()):
            if pids.get(container_id) != pid:
                self._drop(container_id)
        for container_id, pid in pids.items():
            if container_id not in self._watched:
                self._watch(container_id, pid)

    def end(self, container_id: str) -> bool:
        """Kills the watched process, if it lives and is certainly the container's own; whether it did."""
        pid, descriptor = self._watched.get(container_id, (0, _UNWATCHED))
        return descriptor != _UNWATCHED and _kill(descriptor, pid, container_id)

    def close(self) -> None:
        """Watches nothing any more."""
        self.follow({})

    def _watch(self, container_id: str, pid: int) -> None:
        # Remembered in any case, so that a listing which lags behind does not start the watch again.
        self._watched[container_id] = (pid, _UNWATCHED)
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self._died(container_id, False)
        except OSError:
            return
        else:
            self._watched[container_id] = (pid, descriptor)
            certain = belongs(pid, container_id)
            asyncio.get_running_loop().add_reader(descriptor, self._ended, container_id, certain)

    def _ended(self, container_id: str, certain: bool) -> None:
        pid, _ = self._watched[container_id]
        self._drop(container_id)
        self._watched[container_id] = (pid, _UNWATCHED)
        self._died(container_id, certain)

    def _drop(self, container_id: str) -> None:
        _, descriptor = self._watched.pop(container_id)
        if descriptor != _UNWATCHED:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)


def end_left_behind(container_id: str) -> int:
    """Kills all processes in a control group of the container's; how many there were. Blocks for some milliseconds.

    Podman 4.3 lets its lock go in the middle of a forced removal. What is
    started just then is removed from its books and goes on running.
    """
    return sum(_end(pid, container_id) for pid in _processes() if belongs(pid, container_id))


def end_session(container_id: str, leader: int) -> int:
    """Kills a process of the container's that leads a session, and with it what it started there; how many there were.

    The engine makes each command that it runs inside a container the leader of
    a session. Blocks for some milliseconds.
    """
    return sum(_end(pid, container_id) for pid in _processes() if _session(pid) == leader)


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _session(pid: int) -> int | None:
    with suppress(OSError):
        return os.getsid(pid)
    return None


def _end(pid: int, container_id: str) -> bool:
    with suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            return _kill(descriptor, pid, container_id)
        finally:
            os.close(descriptor)
    return False


def _kill(descriptor: int, pid: int, container_id: str) -> bool:
    # Looked at while the descriptor holds the process: its number cannot have gone to another one since.
    if not belongs(pid, container_id):
        return False
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def belongs(pid: int, container_id: str) -> bool:
    """Whether the process is in a control group named after the container."""
    with suppress(OSError):
        return container_id in Path(f"/proc/{pid}/cgroup").read_text()
    return False
