"""HAProxy's processes: begun as our child, moved to another configuration, ended without a remainder.

A reload goes through the master's socket: the new worker inherits the listening sockets, the old one finishes its
connections. Each worker answers on a control socket of its own generation, which tells exactly what systemd's
notifications cannot: the new worker serves once it answers there, and the old one accepts nothing more once its own
socket refuses.

No process is left behind. The master asks the kernel for SIGKILL at our death, its workers leave with their master,
and all of them hold one file lock, which the next HAProxy in the same folder waits for.
"""

import asyncio
import contextlib
import os
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog

from mcproxy.errors import Unavailable
from mcproxy.runtime import RuntimeDir, alert, ask, receive

log = structlog.get_logger()

_LOCK_WAIT = 10
_LOCK_HELD = 75
_PATIENCE = 30.0
_KILL_AFTER = 5.0

_T = TypeVar("_T")


class ConfigRefused(Exception):
    """HAProxy does not take the configuration; what was running runs on. The message is HAProxy's own reason."""


class Master:
    """The master process with its workers, over as many lives as it takes; it reads what lies in `runtime.config`."""

    def __init__(self, binary: str, runtime: RuntimeDir) -> None:
        self._binary = binary
        self._runtime = runtime
        self._process: Process | None = None
        self._ready = asyncio.Event()
        self._notes: asyncio.Queue[str] = asyncio.Queue()
        self._alerts: deque[str] = deque(maxlen=8)
        self._output: asyncio.Task[None] | None = None
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self, generation: int) -> None:
        """Begins a life and returns when its worker, of this generation, serves.

        Raises ConfigRefused when it ends instead, OSError when it cannot be run at all.
        """
        if self._transport is None:
            self._transport = await receive(self._runtime.notify, self._noted)
        self._forget()
        # A number that is not ours any more must never be sent a signal.
        self._process = None
        process = self._process = await self._spawn()
        self._output = asyncio.create_task(self._relay_output(process))
        try:
            await self._worker_answers(generation)
        except BaseException as error:
            _kill_group(process)
            code = await process.wait()
            self._process = None
            if not isinstance(error, ConfigRefused | Unavailable):
                raise
            await self._output
            if code == _LOCK_HELD:
                raise ConfigRefused(f"another HAProxy still runs from {self._runtime.path}") from None
            raise ConfigRefused("; ".join(self._alerts) or f"exit code {code}") from None

    async def reload(self, generation: int) -> None:
        """Returns when a new worker, of this generation, serves.

        Raises ConfigRefused when HAProxy keeps the old one instead, Unavailable when it is down.
        """
        await self.settled()
        self._forget()
        # The master replaces its own image at once, so its answer may never come.
        with contextlib.suppress(OSError):
            await ask(self._runtime.master, "reload")
        await self._worker_answers(generation)

    def alive(self) -> Process:
        """The running process. Raises Unavailable."""
        if self._process is None or self._process.returncode is not None:
            raise Unavailable("HAProxy is not running")
        return self._process

    async def settled(self) -> None:
        """Waits until the master takes commands: for milliseconds after a reload it is still changing its own image.

        Raises Unavailable.
        """
        await _or_death(self._ready.wait(), self.alive())

    async def stopped_accepting(self, generation: int) -> None:
        """Returns when this generation's worker has closed its listeners, its control socket among them.

        Until then it shares the queue of new connections with its successor and would meet them with the old state.
        It was told before its successor began, so this nearly always holds at once; there is no event for it.
        """
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            try:
                await ask(self._runtime.control(generation), "show info")
            except OSError:
                return
            await asyncio.sleep(0.001)
        log.warning("the old worker does not stop accepting", generation=generation)

    async def died(self) -> int:
        """Waits for the end of this life and gives its exit code; workers that outlived the master are ended, too."""
        if self._process is None:
            return 0
        code = await self._process.wait()
        _kill_group(self._process)
        return code

    async def stop(self, patience: float) -> None:
        """Lets connections finish for `patience` seconds, then ends them. Safe to call when nothing was started."""
        if self._process is not None:
            for sign, seconds in ((signal.SIGUSR1, patience), (signal.SIGTERM, _KILL_AFTER), (signal.SIGKILL, None)):
                with contextlib.suppress(ProcessLookupError):
                    self._process.send_signal(sign)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._process.wait(), seconds)
                    break
            _kill_group(self._process)
        if self._output is not None:
            await self._output
        if self._transport is not None:
            self._transport.close()

    async def _spawn(self) -> Process:
        return await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "KILL"),
            *("flock", "--no-fork", "--wait", str(_LOCK_WAIT), "--conflict-exit-code", str(_LOCK_HELD)),
            str(self._runtime.haproxy_lock),
            *(self._binary, "-Ws", "-S", f"{self._runtime.master},mode,600", "-f", str(self._runtime.config)),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=PIPE,
            cwd=self._runtime.path,
            env={**os.environ, "NOTIFY_SOCKET": str(self._runtime.notify)},
            start_new_session=True,
        )

    async def _worker_answers(self, generation: int) -> None:
        """Returns when this generation's worker serves. Raises ConfigRefused when the master is ready without it."""
        while True:
            note = await _or_death(self._notes.get(), self.alive())
            try:
                await ask(self._runtime.control(generation), "show info")
            except OSError:
                if "READY=1" in note:
                    raise ConfigRefused("; ".join(self._alerts) or "HAProxy gives no reason") from None
            else:
                return

    def _noted(self, message: str) -> None:
        if "READY=1" in message:
            self._ready.set()
        self._notes.put_nowait(message)

    def _forget(self) -> None:
        self._ready.clear()
        self._alerts.clear()
        while not self._notes.empty():
            self._notes.get_nowait()

    async def _relay_output(self, process: Process) -> None:
        assert process.stderr is not None  # noqa: S101 - opened as a pipe
        async for raw in process.stderr:
            line = raw.decode(errors="replace").rstrip()
            if reason := alert(line):
                self._alerts.append(reason)
                log.warning("haproxy", line=line)
            else:
                log.debug("haproxy", line=line)


def _kill_group(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


async def _or_death(work: Coroutine[Any, Any, _T], master: Process) -> _T:
    """What `work` gives. Raises Unavailable when the master dies first or nothing happens for too long."""
    task, death = asyncio.create_task(work), asyncio.create_task(master.wait())
    try:
        await asyncio.wait({task, death}, timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Unavailable("HAProxy died" if death.done() else "HAProxy does not answer")
        return task.result()
    finally:
        task.cancel()
        death.cancel()
