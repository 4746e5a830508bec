"""Keeps HAProxy running with one state, and moves it to the next without a lost connection.

What routes there are and where they lead is told to the running worker while it has spare backends (spares.py). Every
other change is a reload (master.py). Backends that routes have left are emptied (drain.py).
"""

import asyncio
import contextlib
import re
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import structlog

from mcproxy.drain import Drain, left
from mcproxy.errors import Unavailable
from mcproxy.master import ConfigRefused, Master
from mcproxy.model import RouteKey, State
from mcproxy.render import Listener, Rendered, file_name, frontend_name, render, route_key
from mcproxy.runtime import RuntimeDir, alert, ask, own_pid, receive, sessions, worker_pids
from mcproxy.spares import Spares, changes

log = structlog.get_logger()

_FIRST_DELAY, _LAST_DELAY = 0.05, 5.0
# Termination states (HAProxy configuration manual, 8.5) that blame the backend: it refused the connection or did not
# take it in time, hung up before an answer, or answered something that is not its protocol.
_BACKEND_FAULTS = {"SC", "sC", "SH", "PH"}
_LOG_LINE = re.compile(r"(?P<backend>\S+) (?P<state>\S\S)\S*\s*$")


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
        self._master = Master(binary, runtime)
        # One at a time: applying, starting again, asking through the master.
        self._lock = asyncio.Lock()
        self._generation = 0
        self._state = State()
        self._spares: Spares | None = None
        # By pid, also those that only finish their connections.
        self._workers: dict[int, Spares] = {}
        self._drain = Drain()
        self._supervisor: asyncio.Task[None] | None = None
        self._log_transport: asyncio.DatagramTransport | None = None

    async def start(self, state: State) -> None:
        """Starts HAProxy with this state and keeps it running until `stop`.

        Raises ConfigRefused when it does not come up, OSError when it cannot be run at all.
        """
        self._log_transport = await receive(self._runtime.log, self._logged)
        async with self._lock:
            await self._begin(state)
        self._supervisor = asyncio.create_task(self._supervise())

    async def apply(self, state: State) -> None:
        """Returns once every new connection meets this state.

        Raises ConfigRefused with HAProxy's reason, or Unavailable when HAProxy is down; then the old state holds.
        """
        async with self._lock:
            self._master.alive()
            before, backends = self._state, dict(self._spares.backends) if self._spares else {}
            if await self._changed_live(state):
                self._state = state
                with contextlib.suppress(OSError):
                    await self._leave(before, backends)
            else:
                await self._reload(state)
            await self._correct_old_workers(before)

    async def _reload(self, state: State) -> None:
        generation, rendered = self._lay_down(state)
        try:
            await self._master.reload(generation)
        except BaseException:
            old = self._render(self._state, self._generation)
            self._runtime.replace(self._runtime.config, old.config.encode())
            raise
        await self._master.stopped_accepting(self._generation)
        await self._commit(state, generation, rendered)

    async def _leave(self, before: State, backends: Mapping[RouteKey, str]) -> None:
        """Sees to those of the worker's backends, given by route, that are not those of their routes any more."""
        control = self._runtime.control(self._generation)
        for place in left(before, self._state, backends):
            await self._drain.begin(place, partial(ask, control))

    async def _correct_old_workers(self, before: State) -> None:
        """Tells those that only finish their connections where requests have to go now."""
        old, changed = list(self._workers)[:-1], changes(before, self._state)
        if not old or not changed:
            return
        try:
            await self._master.settled()
            alive = worker_pids(await ask(self._runtime.master, "show proc"))
            for pid in old:
                if pid not in alive:
                    del self._workers[pid]
                    continue
                for command in self._workers[pid].elsewhere(changed):
                    await ask(self._runtime.master, f"@!{pid} {command}")
        except (OSError, Unavailable) as error:
            # The state is in effect all the same: this is about the last request of some connections.
            log.warning("workers that finish their connections are not corrected", reason=str(error))

    async def check(self, state: State) -> str | None:
        """Why HAProxy would refuse this state, None when it would not."""
        async with self._lock:
            rendered = self._render(state, self._generation + 1)
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
            await self._master.settled()
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
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        await self._drain.close()
        await self._master.stop(patience)
        if self._log_transport is not None:
            self._log_transport.close()

    async def _begin(self, state: State) -> None:
        generation, rendered = self._lay_down(state)
        await self._master.start(generation)
        self._workers = {}
        await self._commit(state, generation, rendered)
        self._on_health(True)

    async def _supervise(self) -> None:
        delay = 0.0
        while True:
            code = await self._master.died()
            if not delay:
                self._on_health(False)
                log.error("haproxy died", code=code)
            async with self._lock:
                try:
                    await self._begin(self._state)
                except (ConfigRefused, OSError) as error:
                    delay = min(max(2 * delay, _FIRST_DELAY), _LAST_DELAY)
                    log.warning("haproxy does not start", reason=str(error), retry_seconds=delay)
                else:
                    delay = 0.0
                    log.info("haproxy started again")
            await asyncio.sleep(delay)

    def _render(self, state: State, generation: int) -> Rendered:
        return render(state, self._listeners, self._runtime.path, generation)

    def _lay_down(self, state: State) -> tuple[int, Rendered]:
        """Writes what the next worker will read."""
        generation = self._generation + 1
        rendered = self._render(state, generation)
        self._runtime.write_files(rendered.files)
        self._runtime.replace(self._runtime.config, rendered.config.encode())
        return generation, rendered

    async def _commit(self, state: State, generation: int, rendered: Rendered) -> None:
        self._state, self._generation, self._spares = state, generation, Spares(state, rendered)
        with contextlib.suppress(OSError):
            self._workers[own_pid(await ask(self._runtime.control(generation), "show info"))] = self._spares
        self._runtime.collect(rendered, generation)

    async def _changed_live(self, state: State) -> bool:
        """Whether the state was reached without a reload."""
        if (self._state.firewall, self._state.limits) != (state.firewall, state.limits):
            return False
        changed = changes(self._state, state)
        commands = self._spares.take(changed) if self._spares else None
        if commands is None:
            return False
        bundles = [entry.bundle for entry in changed.values() if entry and entry.bundle]
        self._runtime.write_files({file_name(bundle.digest, "pem"): bundle.pem for bundle in bundles})
        for command in commands:
            try:
                answer = await ask(self._runtime.control(self._generation), command.text)
            except OSError as error:
                answer = str(error)
            if not command.is_good(answer):
                log.info("not changed without a reload", command=command.text.partition("\n")[0], answer=answer.strip())
                # Half of it may be in effect: only a reload gets to a known state now.
                self._spares = None
                return False
        return True

    def _logged(self, message: str) -> None:
        line = _LOG_LINE.search(message)
        if line is None or line["state"] not in _BACKEND_FAULTS:
            return
        spare = self._spares.route_key(line["backend"]) if self._spares else None
        if key := spare or route_key(line["backend"]):
            self._faults.put_nowait(key)
