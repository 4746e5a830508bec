"""Programs that outlive the command that started them, each known by a record of its pid and start time.

A pid alone names a process only until it is used again. The record holds the start time as well, and signals go
through a pidfd that was opened before the two were compared: nobody else's process is ever ended.
"""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

from stack.layout import Layout, Owner

# How often readiness is asked for; between two questions we sleep on the process's own end.
_PROBE_EVERY = 0.02

# Our own children, kept so that each is reaped when it ends.
_children: dict[int, subprocess.Popen[bytes]] = {}


class StackError(Exception):
    """A part of the stack did not do what it must; the sentence is for the person at the terminal."""


@dataclass(frozen=True)
class Process:
    """A process: `started` is its start in clock ticks since boot (proc(5), stat field 22)."""

    pid: int
    started: int


def start(
    layout: Layout, name: str, argv: Sequence[str | Path], *, env: Mapping[str, str], owner: Owner | None = None
) -> Process:
    """Starts `argv` in a session of its own, or returns the one of this name that runs already.

    Output is appended to `log/<name>.log`. Raises FileNotFoundError when there is no such program.
    """
    if already := running(layout, name):
        return already
    with _log(layout, name).open("ab") as log:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(env),
            start_new_session=True,
            **identity(owner),
        )
    _children[child.pid] = child
    process = Process(child.pid, _start_time(child.pid) or 0)
    _record(layout, name).write_text(json.dumps(asdict(process)))
    return process


class Identity(TypedDict, total=False):
    """Arguments of `subprocess` that say who a program runs as, and where."""

    user: int
    group: int
    extra_groups: tuple[int, ...]
    cwd: Path


def identity(owner: Owner | None) -> Identity:
    """The arguments that make `subprocess` run a program as `owner`; none for ourselves."""
    if owner is None:
        return {}
    return {"user": owner.uid, "group": owner.gid, "extra_groups": (), "cwd": owner.home}


def running(layout: Layout, name: str) -> Process | None:
    """The process recorded as `name`, if that very process still runs."""
    try:
        process = Process(**json.loads(_record(layout, name).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return process if is_alive(process) else None


def is_alive(process: Process) -> bool:
    """Whether the process runs and is still the one that was recorded; a zombie does not run."""
    return process.started != 0 and _start_time(process.pid) == process.started


def wait_until(layout: Layout, name: str, probe: Callable[[], bool], *, seconds: float) -> None:
    """Returns once `probe` is true; meanwhile sleeps on the end of the process recorded as `name`.

    Raises StackError, with the last line of its log, when the process ends first or `seconds` have passed.
    """
    process = running(layout, name)
    if process is None:
        raise StackError(f"{name} ended before it was ready{_last_words(layout, name)}")
    deadline = time.monotonic() + seconds
    pidfd = os.pidfd_open(process.pid)
    try:
        while not probe():
            if _ended(pidfd, _PROBE_EVERY):
                raise StackError(f"{name} ended before it was ready{_last_words(layout, name)}")
            if time.monotonic() > deadline:
                raise StackError(f"{name} was not ready within {seconds:g} s{_last_words(layout, name)}")
    finally:
        os.close(pidfd)


def stop(layout: Layout, name: str, *, seconds: float = 10.0, sig: signal.Signals = signal.SIGTERM) -> None:
    """Ends the process recorded as `name`: `sig`, and SIGKILL after `seconds`. Harmless when it is gone."""
    if process := running(layout, name):
        end(process, seconds=seconds, sig=sig)
    _record(layout, name).unlink(missing_ok=True)


def end(process: Process, *, seconds: float = 10.0, sig: signal.Signals = signal.SIGTERM) -> None:
    """Ends this very process and returns when it is gone."""
    with suppress(ProcessLookupError):
        pidfd = os.pidfd_open(process.pid)
        try:
            # Compared after the pidfd is open: from here on it cannot come to mean another process.
            if is_alive(process):
                signal.pidfd_send_signal(pidfd, sig)
                if not _ended(pidfd, seconds):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    _ended(pidfd, seconds)
        finally:
            os.close(pidfd)
    if child := _children.pop(process.pid, None):
        child.wait()


def working_in(folders: Collection[Path], *, names: Collection[str]) -> Iterator[Process]:
    """The processes of these names that were started with a path below one of the folders, or with a folder itself."""
    prefixes = tuple(str(folder) for folder in folders)
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            pid = int(entry.name)
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            named = (entry / "comm").read_text().strip() in names
            if named and any(word.startswith(prefixes) for word in words) and (process := identify(pid)):
                yield process


def identify(pid: int) -> Process | None:
    """The process that now has this pid, or None."""
    started = _start_time(pid)
    return None if started is None else Process(pid, started)


def _record(layout: Layout, name: str) -> Path:
    return layout.pid / f"{name}.json"


def _last_words(layout: Layout, name: str) -> str:
    lines = _log(layout, name).read_text(errors="replace").splitlines()
    return f": {lines[-1]}" if lines else ""


def _log(layout: Layout, name: str) -> Path:
    return layout.log / f"{name}.log"


def _ended(pidfd: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def _start_time(pid: int) -> int | None:
    try:
        # The command's name may hold spaces and brackets: what we count starts behind the last bracket.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else int(fields[18])
