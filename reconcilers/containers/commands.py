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
from reconcilers.containers.deaths import end_session
from reconcilers.containers.podman import Engine

_LONGEST_LINE: Final = 200


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    last_line: str
    """Of what it printed; empty where it printed nothing."""


class Commands:
    """What runs now, by container."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._running: dict[str, asyncio.Task[str]] = {}

    async def run(self, container_id: str, command: tuple[str, ...], limit: float) -> Ended | None:
        """How it ended; None where it did not within `limit` seconds.

        Raises EngineError where the engine refused it, and Transient where
        nobody can say.
        """
        earlier = self._running.get(container_id)
        if earlier is not None and not await _ends(earlier, limit):
            return None
        exec_id = await self._engine.create_exec(container_id, command)
        running = asyncio.create_task(self._engine.exec_output(exec_id), name=f"exec-{container_id[:12]}")
        self._running[container_id] = running
        running.add_done_callback(partial(self._ended, container_id))
        if not await _ends(running, limit):
            await self._kill(container_id, exec_id)
            return None
        state = await self._engine.exec_state(exec_id)
        if state.pid:
            # Its output broke off, as when the engine is restarted.
            await self._kill(container_id, exec_id)
            raise Transient(Reason.ENGINE_ERROR, "podman lost track of a command")
        return Ended(state.exit_code, _last_line(running.result()))

    async def close(self) -> None:
        """Waits for nothing any more."""
        running = tuple(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _kill(self, container_id: str, exec_id: str) -> None:
        state = await self._engine.exec_state(exec_id)
        if state.pid:
            await asyncio.to_thread(end_session, container_id, state.pid)

    def _ended(self, container_id: str, task: asyncio.Task[str]) -> None:
        del self._running[container_id]
        if not task.cancelled():
            task.exception()  # whoever still waits for it hears of it


async def _ends(task: asyncio.Task[str], limit: float) -> bool:
    done, _ = await asyncio.wait((task,), timeout=limit)
    return bool(done)


def _last_line(output: str) -> str:
    return (output.strip().splitlines() or [""])[-1].strip()[:_LONGEST_LINE]
