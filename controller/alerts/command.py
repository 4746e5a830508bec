"""Hands one event to a command: as JSON on its standard input, and a little of it in its environment.

What it says goes where the agent's log goes. It gets nothing of the agent's
own environment that could hold a secret, no shell, and only so much time.
"""

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from api.timeline import NodeEvent

_STANDARD_ERROR: Final = 2
_PASSED_ON: Final = ("PATH", "HOME", "LANG", "TZ")


class Outcome(StrEnum):
    """What became of something that was to be told."""

    TOLD = "told"
    FAILED = "failed"
    TIMEOUT = "timeout"
    DROPPED = "dropped"
    """Too much waited already."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of the command, or none."""

    event: NodeEvent
    outcome: Outcome
    detail: str = ""
    """In one sentence; empty where all went well."""


@dataclass(frozen=True, slots=True)
class Command:
    """How somebody is told."""

    words: tuple[str, ...]
    timeout: float
    """Seconds; then it is killed, with all that it started in its process group."""

    async def tell(self, event: NodeEvent) -> Attempt:
        """Runs it to its end. Cancelled, it is killed."""
        # A start that is cut off would leave behind what was started by then.
        starting = asyncio.ensure_future(self._start(event))
        try:
            async with asyncio.timeout(self.timeout):
                process = await asyncio.shield(starting)
                await process.communicate(event.model_dump_json().encode() + b"\n")
        except TimeoutError:
            return Attempt(event, Outcome.TIMEOUT, f"did not end within {self.timeout:g} s")
        except OSError as error:
            return Attempt(event, Outcome.FAILED, f"cannot be run: {error.strerror}")
        finally:
            await _end(starting)
        if process.returncode:
            return Attempt(event, Outcome.FAILED, _ended(process.returncode))
        return Attempt(event, Outcome.TOLD)

    async def _start(self, event: NodeEvent) -> Process:
        return await asyncio.create_subprocess_exec(
            *self.words,
            stdin=asyncio.subprocess.PIPE,
            stdout=_STANDARD_ERROR,
            cwd="/",
            env=_environment(event, os.environ),
            start_new_session=True,
        )


async def _end(starting: Awaitable[Process]) -> None:
    """Kills what still runs, with its group."""
    with suppress(OSError):  # it never ran, or is gone
        process = await starting
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _environment(event: NodeEvent, own: Mapping[str, str]) -> dict[str, str]:
    passed_on = {name: own[name] for name in _PASSED_ON if name in own}
    return passed_on | {"MCP_SERVICE": event.service, "MCP_KIND": event.kind, "MCP_NODE": event.node}


def _ended(code: int) -> str:
    # Of real-time signals only the first and the last have names.
    names = {one.value: one.name for one in signal.Signals}
    return f"ended with status {code}" if code > 0 else f"was ended by {names.get(-code, f'signal {-code}')}"
