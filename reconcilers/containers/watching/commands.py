"""Runs commands inside containers, never two at once in one.

A command that takes too long is given up and killed. Where that does not help,
as the engine's processes are hidden from us, no other is run in its container
before it ended by itself. What runs holds no thread of ours.
"""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Final

from api.conditions import Reason
from reconcilers.base import Transient
from reconcilers.containers.engine.podman import Engine
from reconcilers.containers.watching.deaths import end_session

_LONGEST_LINE: Final = 200
_NOT_STARTED: Final = (126, 127)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    last_line: str
    """Of what it printed; empty where it printed nothing."""


@dataclass(frozen=True, slots=True)
class _Running:
    exec_id: str
    output: asyncio.Task[str]


class Commands:
    """What runs now, by container."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._running: dict[str, _Running] = {}

    async def run(self, container_id: str, command: tuple[str, ...], limit: float) -> Ended | None:
        """How it ended; None where it did not within `limit` seconds, or the one before it did not.

        Raises EngineError where the engine refused it, and Transient where
        nobody can say.
        """
        earlier = self._running.get(container_id)
        if earlier is not None and not await self._ends(container_id, earlier, limit):
            return None
        exec_id = await self._engine.create_exec(container_id, command)
        name = f"exec-{container_id[:12]}"
        now = _Running(exec_id, asyncio.create_task(self._engine.exec_output(exec_id), name=name))
        self._running[container_id] = now
        now.output.add_done_callback(partial(self._ended, container_id))
        if not await self._ends(container_id, now, limit):
            return None
        state = await self._engine.exec_state(exec_id)
        if state.pid:
            # Its output broke off, as when the engine is restarted.
            await asyncio.to_thread(end_session, container_id, state.pid)
            raise Transient(Reason.ENGINE_ERROR, "podman lost track of a command")
        return Ended(state.exit_code, _telling_line(state.exit_code, now.output.result()))

    async def close(self) -> None:
        """Waits for nothing any more."""
        outputs = [running.output for running in self._running.values()]
        for output in outputs:
            output.cancel()
        await asyncio.gather(*outputs, return_exceptions=True)

    async def _ends(self, container_id: str, running: _Running, limit: float) -> bool:
        """Whether it does by itself, and in time; otherwise it is killed, as well as we can."""
        done, _ = await asyncio.wait((running.output,), timeout=limit)
        if not done and (pid := (await self._engine.exec_state(running.exec_id)).pid):
            await asyncio.to_thread(end_session, container_id, pid)
        return bool(done)

    def _ended(self, container_id: str, output: asyncio.Task[str]) -> None:
        if (running := self._running.get(container_id)) is not None and running.output is output:
            del self._running[container_id]
        if not output.cancelled():
            output.exception()  # whoever waits for it hears of it


def _telling_line(code: int, output: str) -> str:
    lines = output.strip().splitlines() or [""]
    # Of a command that could not be started, the engine says why first.
    return lines[0 if code in _NOT_STARTED else -1].strip()[:_LONGEST_LINE]
