"""Listens to the timeline and has somebody told, one event at a time.

It holds up nobody and ends nothing: who writes an event does not know of it,
what does not fit is dropped for what is newer, and a command that fails is
logged, counted and shown by the doctor.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final

import structlog

from api.service import Event
from api.timeline import NodeEvent
from controller.alerts.command import Attempt, Outcome
from controller.alerts.discretion import Discretion
from controller.registry import ChangeKind, Subscription

log = structlog.get_logger("alerts")

MAX_WAITING: Final = 100
"""Events."""


class Alerts:
    """What is told of one node; only what happens from now on."""

    def __init__(
        self,
        node: str,
        discretion: Discretion,
        tell: Callable[[NodeEvent], Awaitable[Attempt]],
        count: Callable[[Outcome], None],
    ) -> None:
        self._node = node
        self._discretion = discretion
        self._attempt = tell
        self._count = count
        self._waiting: deque[Event] = deque()
        self._wake = asyncio.Event()
        self.last: Attempt | None = None
        """What became of the last one."""

    async def run(self, subscribe: Callable[[], AbstractAsyncContextManager[Subscription]]) -> None:
        """Tells of events for as long as there are changes; what waits then is not told."""
        async with subscribe() as changes, asyncio.TaskGroup() as group:
            telling = group.create_task(self._tell(), name="alerts-tell")
            await self._listen(changes)
            telling.cancel()

    async def _listen(self, changes: Subscription) -> None:
        async for change in changes:
            if change.kind is ChangeKind.GONE:
                self._discretion.forget(change.service)
            elif change.event is not None:
                if self._discretion.hear(change.event, _now()):
                    self._put(change.event)
                # Something may be due earlier than before, or not at all any more.
                self._wake.set()
            elif change.kind is ChangeKind.EVENT:
                log.warning("alerts_missed", detail="more happened at once than could be listened to")

    def _put(self, event: Event) -> None:
        self._waiting.append(event)
        if len(self._waiting) > MAX_WAITING:
            dropped = self._waiting.popleft()
            self._count(Outcome.DROPPED)
            log.warning("alert_dropped", service=dropped.service, kind=dropped.kind, message=dropped.message)

    async def _tell(self) -> None:
        while True:
            event = await self._next()
            try:
                self.last = await self._attempt(NodeEvent(node=self._node, **dict(event)))
            except Exception:  # a defect here must not end what it only tells of
                log.exception("defect", service=event.service)
                continue
            outcome, detail = self.last.outcome, self.last.detail
            self._count(outcome)
            if outcome is Outcome.TOLD:
                log.info("alert", service=event.service, kind=event.kind)
            else:
                log.warning("alert_failed", service=event.service, kind=event.kind, detail=detail)

    async def _next(self) -> Event:
        while not self._waiting:
            self._wake.clear()
            due = self._discretion.next_due()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._wake.wait()
            for event in self._discretion.due(_now()):
                self._put(event)
        return self._waiting.popleft()


def _now() -> float:
    return asyncio.get_running_loop().time()
