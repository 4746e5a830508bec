"""Runs HAProxy as our child and moves it from one configuration to the next without a lost connection.

New routes are added to the running worker where spare backends are left (spares.py). Every other change is a reload
through the master's socket: the new worker inherits the listening sockets, the old one finishes its connections. Each
worker answers on a control socket of its own generation, which tells exactly what systemd's notifications cannot: the
new worker serves once it answers there, and the old one accepts nothing more once its own socket refuses.

No process is left behind. The master asks the kernel for SIGKILL at our death, its workers leave with their master,
and all of them hold one file lock, which the next HAProxy in the same folder waits for.
"""

import asyncio
import contextlib
import os
import re
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import structlog

from mcproxy.errors import Unavailable
from mcproxy.model import RouteKey, State
from mcproxy.render import Listener, Rendered, file_name, frontend_name, render, route_key
from mcproxy.runtime import RuntimeDir, alert, ask, receive, sessions, worker_pids
from mcproxy.spares import Spares, additions

log = structlog.get_logger()

_LOCK_WAIT = 10
_LOCK_HELD = 75
_PATIENCE = 30.0
_KILL_AFTER = 5.0
_FIRST_DELAY, _LAST_DELAY = 0.05, 5.0
# Termination states (HAProxy configuration manual, 8.5) that blame the backend: it refused the connection or did not
# take it in time, hung up before an answer, or answered something that is not its protocol.
_BACKEND_FAULTS = {"SC", "sC", "SH", "PH"}
_LOG_LINE = re.compile(r"(?P<backend>\S+) (?P<state>\S\S)\S*\s*$")

_T = TypeVar("_T")


class ConfigRefused(Exception):
    """HAProxy does not take the configuration; what was running runs on. The message is HAProxy's own reason."""


class HAProxy:
    """One HAProxy. `faults` receives routes whose backend misbehaved, `on_health` is told whether HAProxy serves."""

    def __init__(
        self,
        binary: str,
        runtime: RuntimeDir,
        listeners: Sequence[Listener],
        faults: asyncio.Queue[RouteKey],
        on_health: Callable[[bool], None],
    ) -> None:
        self._binary = binary
        self._runtime = runtime
        self._listeners = tuple(listeners)
        self._faults = faults
        self._on_health = on_health
        self._lock = asyncio.Lock()
        self._generation = 0
        self._state = State()
        self._spares: Spares | None = None
        self._process: Process | None = None
        self._stopping = False
        self._master_ready = asyncio.Event()
        self._notes: asyncio.Queue[str] = asyncio.Queue()
        self._alerts: deque[str] = deque(maxlen=8)
        self._tasks: set[asyncio.Task[None]] = set()
        self._transports: list[asyncio.DatagramTransport] = []

    async def start(self, state: State) -> None:
        """Starts HAProxy with this state and keeps it running until `stop`.

        Raises ConfigRefused when it does not come up, OSError when it cannot be run at all.
        """
        self._transports.append(await receive(self._runtime.notify, self._noted))
        self._transports.append(await receive(self._runtime.log, self._logged))
        async with self._lock:
            await self._spawn(state)
        self._keep(self._supervise())

    async def apply(self, state: State) -> None:
        """Returns once every new connection meets this state.

        Raises ConfigRefused with HAProxy's reason, or Unavailable when HAProxy is down; then the old state holds.
        """
        async with self._lock:
            self._alive()
            if await self._added_live(state):
                self._state = state
                return
            await self._settled()
            generation, rendered = self._next(state)
            self._runtime.write_files(rendered.files)
            self._runtime.replace(self._runtime.config, rendered.config.encode())
            try:
                await self._reload(generation)
            except BaseException:
                old = render(self._state, self._listeners, self._runtime.path, self._generation)
                self._runtime.replace(self._runtime.config, old.config.encode())
                raise
            await self._stopped_accepting(self._generation)
            self._commit(state, generation, rendered)

    async def check(self, state: State) -> str | None:
        """Why HAProxy would refuse this state, None when it would not."""
        async with self._lock:
            rendered = render(state, self._listeners, self._runtime.path, self._generation + 1)
            self._runtime.write_files(rendered.files)
            config = self._runtime.path / "check.cfg"
            self._runtime.replace(config, rendered.config.encode())
            process = await asyncio.create_subprocess_exec(
                self._binary, "-c", "-f", str(config), stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE
            )
            _, output = await process.communicate()
            config.unlink()
            if process.returncode == 0:
                return None
            reasons = filter(None, map(alert, output.decode(errors="replace").splitlines()))
            return "; ".join(reasons) or f"exit code {process.returncode}"

    async def connections(self) -> Mapping[str, int]:
        """Open client connections by listener, counting the workers that only finish theirs. Raises Unavailable."""
        async with self._lock:
            await self._settled()
            total: Counter[str] = Counter()
            try:
                for pid in worker_pids(await ask(self._runtime.master, "show proc")):
                    answer = await ask(self._runtime.master, f"@!{pid} show stat -1 1 -1")
                    # A worker may end between the two questions; then the answer is a sentence.
                    total.update(sessions(answer) if answer.startswith("# ") else {})
            except OSError as error:
                raise Unavailable("HAProxy does not answer") from error
        return {listener.addr: total[frontend_name(listener.addr)] for listener in self._listeners}

    async def stop(self, patience: float) -> None:
        """Lets connections finish for `patience` seconds, then ends them. Safe to call when nothing was started."""
        self._stopping = True
        if self._process is not None:
            for sign, seconds in ((signal.SIGUSR1, patience), (signal.SIGTERM, _KILL_AFTER), (signal.SIGKILL, None)):
                with contextlib.suppress(ProcessLookupError):
                    self._process.send_signal(sign)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._process.wait(), seconds)
                    break
            _kill_group(self._process)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for transport in self._transports:
            transport.close()

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _next(self, state: State) -> tuple[int, Rendered]:
        generation = self._generation + 1
        return generation, render(state, self._listeners, self._runtime.path, generation)

    def _commit(self, state: State, generation: int, rendered: Rendered) -> None:
        self._state, self._generation, self._spares = state, generation, Spares(rendered)
        self._runtime.collect(rendered, generation)

    async def _spawn(self, state: State) -> None:
        """Starts the master. Raises ConfigRefused when it ends instead of serving."""
        generation, rendered = self._next(state)
        self._runtime.write_files(rendered.files)
        self._runtime.replace(self._runtime.config, rendered.config.encode())
        self._forget_notes()
        self._alerts.clear()
        self._master_ready.clear()
        command = [
            *("setpriv", "--pdeathsig", "KILL"),
            *("flock", "--no-fork", "--wait", str(_LOCK_WAIT), "--conflict-exit-code", str(_LOCK_HELD)),
            str(self._runtime.haproxy_lock),
            *(self._binary, "-Ws", "-S", f"{self._runtime.master},mode,600", "-f", str(self._runtime.config)),
        ]
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=PIPE,
            cwd=self._runtime.path,
            env={**os.environ, "NOTIFY_SOCKET": str(self._runtime.notify)},
            start_new_session=True,
        )
        self._process = process
        output = self._keep(self._relay_output(process))
        try:
            await self._worker_answers(generation, process)
        except BaseException as error:
            _kill_group(process)
            code = await process.wait()
            self._process = None
            if not isinstance(error, ConfigRefused | Unavailable):
                raise
            await output
            if code == _LOCK_HELD:
                raise ConfigRefused(f"another HAProxy still runs from {self._runtime.path}") from None
            raise ConfigRefused("; ".join(self._alerts) or f"exit code {code}") from None
        self._commit(state, generation, rendered)
        self._on_health(True)

    async def _supervise(self) -> None:
        delay = 0.0
        while True:
            process = self._process
            if process is not None:
                await process.wait()
                if self._stopping:
                    return
                self._on_health(False)
                log.error("haproxy died", code=process.returncode)
                # Workers outlive a killed master by moments, and the next one waits for them.
                _kill_group(process)
            async with self._lock:
                try:
                    await self._spawn(self._state)
                except (ConfigRefused, OSError) as error:
                    delay = min(max(2 * delay, _FIRST_DELAY), _LAST_DELAY)
                    log.warning("haproxy does not start", reason=str(error), retry_seconds=delay)
                else:
                    delay = 0.0
                    log.info("haproxy started again")
            await asyncio.sleep(delay)

    def _alive(self) -> Process:
        if self._process is None or self._process.returncode is not None or self._stopping:
            raise Unavailable("HAProxy is not running")
        return self._process

    async def _settled(self) -> None:
        """Waits until the master takes commands: for milliseconds after a reload it is still changing its own image."""
        await _or_death(self._master_ready.wait(), self._alive())

    async def _added_live(self, state: State) -> bool:
        """Whether the state was reached without a reload."""
        added = additions(self._state, state)
        commands = self._spares.take(added) if self._spares and added is not None else None
        if added is None or commands is None:
            return False
        bundles = [entry.bundle for entry in added.values() if entry.bundle is not None]
        self._runtime.write_files({file_name(bundle.digest, "pem"): bundle.pem for bundle in bundles})
        for command in commands:
            try:
                answer = await ask(self._runtime.control(self._generation), command.text)
            except OSError as error:
                answer = str(error)
            if not command.is_good(answer):
                log.info("not added without a reload", command=command.text.partition("\n")[0], answer=answer.strip())
                # Half of it may be in effect: only a reload gets to a known state now.
                self._spares = None
                return False
        return True

    async def _reload(self, generation: int) -> None:
        process = self._alive()
        self._forget_notes()
        self._alerts.clear()
        self._master_ready.clear()
        # The master replaces its own image at once, so its answer may never come.
        with contextlib.suppress(OSError):
            await ask(self._runtime.master, "reload")
        await self._worker_answers(generation, process)

    async def _worker_answers(self, generation: int, master: Process) -> None:
        """Returns when this generation's worker serves. Raises ConfigRefused when the master is ready without it."""
        while True:
            note = await _or_death(self._notes.get(), master)
            try:
                await ask(self._runtime.control(generation), "show info")
            except OSError:
                if "READY=1" in note:
                    raise ConfigRefused("; ".join(self._alerts) or "HAProxy gives no reason") from None
            else:
                return

    async def _stopped_accepting(self, generation: int) -> None:
        """Returns when the old worker has closed its listeners, its control socket among them.

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

    def _noted(self, message: str) -> None:
        if "READY=1" in message:
            self._master_ready.set()
        self._notes.put_nowait(message)

    def _forget_notes(self) -> None:
        while not self._notes.empty():
            self._notes.get_nowait()

    def _logged(self, message: str) -> None:
        line = _LOG_LINE.search(message)
        if line is None or line["state"] not in _BACKEND_FAULTS:
            return
        spare = self._spares.route_key(line["backend"]) if self._spares else None
        if key := spare or route_key(line["backend"]):
            self._faults.put_nowait(key)

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
