"""The one place where the state changes: data plane first, then database, then memory, then the answer.

Changes that arrive while one is being applied wait for it and are then applied together, so a burst of any size costs
two reloads. Each is judged on its own: one that cannot be had fails alone.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Protocol

import structlog

from mcproxy.errors import Internal, InvalidArgument, Refused
from mcproxy.master import ConfigRefused
from mcproxy.model import State

log = structlog.get_logger()

Change = Callable[[State], State]
"""What to do to the state; raises Refused when that cannot be done to this one."""


class DataPlane(Protocol):
    """What serves a state (haproxy.HAProxy)."""

    async def apply(self, state: State) -> None:
        """Returns once every new connection meets the state. Raises ConfigRefused or Unavailable: the old holds."""

    async def check(self, state: State) -> str | None:
        """Why the state would be refused, None when it would not."""


class Journal(Protocol):
    """What remembers a state (store.Store)."""

    def write(self, before: State, after: State) -> None:
        """Durable on return. Raises sqlite3.Error; then nothing was written."""


class Table:
    """The programmed state and the queue of changes to it."""

    def __init__(self, data_plane: DataPlane, journal: Journal, state: State) -> None:
        self._data_plane = data_plane
        self._journal = journal
        self._pending: list[tuple[Change, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self.state = state

    async def apply(self, change: Change) -> None:
        """Returns when the change serves traffic and is on disk; at once when it changes nothing. Raises Refused."""
        done = asyncio.get_running_loop().create_future()
        self._pending.append((change, done))
        self._wake.set()
        await done

    async def run(self) -> None:
        """Applies changes until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._pending = self._pending, []
            try:
                await self._apply(batch)
            except Refused as error:
                _fail(batch, error)
            except BaseException as error:
                log.exception("applying changes failed", changes=len(batch))
                _fail(batch, Internal("the change could not be applied; mcproxyd's log tells more"))
                if not isinstance(error, Exception):
                    raise

    async def _apply(self, batch: list[tuple[Change, "asyncio.Future[None]"]]) -> None:
        target = self.state
        for change, done in batch:
            try:
                target = change(target)
            except Refused as error:
                _settle(done, error)
        if target != self.state:
            try:
                await self._data_plane.apply(target)
            except ConfigRefused as refusal:
                log.warning("haproxy refuses a configuration", reason=str(refusal), changes=len(batch))
                target = await self._without_the_bad(batch, refusal)
            await self._record(target)
        for _, done in batch:
            _settle(done)

    async def _without_the_bad(
        self, batch: list[tuple[Change, "asyncio.Future[None]"]], refusal: ConfigRefused
    ) -> State:
        """Applies what HAProxy takes of the batch, and fails the rest with its reason."""
        target = self.state
        for change, done in batch:
            try:
                candidate = change(target)
                if reason := await self._data_plane.check(candidate):
                    raise InvalidArgument(f"HAProxy refuses this: {reason}")
            except Refused as error:
                _settle(done, error)
            else:
                target = candidate
        if target != self.state:
            try:
                await self._data_plane.apply(target)
            except ConfigRefused as error:
                raise Internal(f"HAProxy refuses the configuration: {error}") from refusal
        return target

    async def _record(self, target: State) -> None:
        try:
            await asyncio.to_thread(self._journal.write, self.state, target)
        except sqlite3.Error as error:
            await self._data_plane.apply(self.state)
            raise Internal(f"the database failed: {error}") from error
        self.state = target


def _settle(done: "asyncio.Future[None]", error: Refused | None = None) -> None:
    # A caller that went away has cancelled its future; a refused change already has its answer.
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)


def _fail(batch: list[tuple[Change, "asyncio.Future[None]"]], error: Refused) -> None:
    for _, done in batch:
        _settle(done, error)
