"""The work queue: which service one reconciler looks at next.

It carries names only; whoever takes one reads the state again. One name is
never worked on twice at once, and however often it is added meanwhile, it is
worked on exactly once more: the dirty and processing sets of Kubernetes'
client-go (util/workqueue).
"""

import asyncio
import itertools
import random
from collections import OrderedDict
from dataclasses import dataclass
from enum import IntEnum

from controller.metrics import QueueMetrics


class Priority(IntEnum):
    """What goes first."""

    CHANGE = 0
    """Something happened, or a person wants something."""
    RESYNC = 1
    """The safety net looks at everything once in a while."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait after the n-th failure in a row, in seconds; up to a tenth is added by chance."""

    first: float = 0.2
    most: float = 60.0

    def delay(self, failures: int) -> float:
        """Doubles with each failure; jitter keeps many failing keys from trying all at once."""
        # 2**32 is beyond any cap, and a larger one would overflow some day.
        delay = min(self.most, self.first * float(1 << min(failures - 1, 32)))
        return delay * random.uniform(1.0, 1.1)  # noqa: S311  # no secret depends on it


@dataclass(frozen=True, slots=True)
class Item:
    """A name to work on."""

    key: str
    since: float
    """When it was first added, by the loop's clock."""


class ShutDown(Exception):
    """The queue gives out nothing more."""


class WorkQueue:
    """A queue of names with priorities, delays, and a count of failures for each name."""

    def __init__(self, metrics: QueueMetrics) -> None:
        self._metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._waiting: tuple[OrderedDict[str, float], ...] = tuple(OrderedDict() for _ in Priority)
        self._processing: set[str] = set()
        self._again: dict[str, tuple[Priority, float]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._asked: dict[str, list[asyncio.Future[None]]] = {}
        """Who waits for work on a key that is still to begin ..."""
        self._asked_now: dict[str, list[asyncio.Future[None]]] = {}
        """... and for the end of what began since."""
        self._failures: dict[str, dict[Backoff, int]] = {}
        self._arrived = asyncio.Event()
        self._shut_down = False

    def add(self, key: str, priority: Priority = Priority.CHANGE) -> None:
        """Has the key worked on soon; if it is being worked on, once more after that."""
        now = self._loop.time()
        self._metrics.adds.inc()
        if key in self._processing:
            before, since = self._again.get(key, (priority, now))
            self._again[key] = (min(before, priority), since)
        else:
            self._enqueue(key, priority, now)

    def look(self, key: str) -> asyncio.Future[None]:
        """Has the key worked on now whatever failed before; done once work that began after this call has ended.

        Raises ShutDown where that is not to be expected any more.
        """
        asked = self._loop.create_future()
        if self._shut_down:
            asked.set_exception(ShutDown())
            return asked
        self._asked.setdefault(key, []).append(asked)
        self.forget(key)
        self.add(key)
        return asked

    def add_after(self, key: str, delay: float) -> None:
        """Has the key worked on after `delay` seconds, unless it is before that for another cause."""
        self._cancel_timer(key)
        if self._shut_down:
            return
        self._timers[key] = self._loop.call_later(delay, self._due, key)

    def retry(self, key: str, backoff: Backoff) -> float:
        """Counts a failure and has the key worked on when `backoff` says so; returns that wait in seconds.

        Failures with another backoff are others: what is waited for for a
        moment does not make a failure wait longer that comes of it.
        """
        failures = self._failures.setdefault(key, {})
        failures[backoff] = failures.get(backoff, 0) + 1
        self._metrics.retries.inc()
        wait = backoff.delay(failures[backoff])
        self.add_after(key, wait)
        return wait

    def forget(self, key: str) -> None:
        """It worked: the next failure is a first one."""
        self._failures.pop(key, None)

    async def get(self) -> Item:
        """The next key; it counts as being worked on until `done`. Raises ShutDown."""
        while not self._shut_down:
            for waiting in self._waiting:
                if waiting:
                    key, since = waiting.popitem(last=False)
                    return self._start(key, since)
            self._arrived.clear()
            await self._arrived.wait()
        raise ShutDown

    def done(self, key: str) -> None:
        """Ends the work on a key that `get` gave."""
        self._processing.discard(key)
        for asked in self._asked_now.pop(key, ()):
            if not asked.done():
                asked.set_result(None)
        again = self._again.pop(key, None)
        if again is not None:
            self._enqueue(key, *again)

    def shut_down(self) -> None:
        """Gives out nothing more: workers end once what they hold is done. The registry remembers the rest."""
        self._shut_down = True
        self._arrived.set()
        for key in list(self._timers):
            self._cancel_timer(key)
        for asked in itertools.chain(*self._asked.values()):
            if not asked.done():
                asked.set_exception(ShutDown())
        self._asked.clear()

    def __len__(self) -> int:
        return sum(len(waiting) for waiting in self._waiting)

    def _start(self, key: str, since: float) -> Item:
        # What it was waiting for is looked at now; the outcome says when to look again.
        self._cancel_timer(key)
        self._processing.add(key)
        if key in self._asked:
            self._asked_now[key] = self._asked.pop(key)
        self._metrics.depth.set(len(self))
        self._metrics.waited.observe(self._loop.time() - since)
        return Item(key, since)

    def _enqueue(self, key: str, priority: Priority, since: float) -> None:
        urgent, resync = self._waiting
        if key in urgent:
            return
        since = min(since, resync.get(key, since))
        if priority is Priority.CHANGE:
            resync.pop(key, None)
        elif key in resync:
            return
        self._waiting[priority][key] = since
        self._metrics.depth.set(len(self))
        self._arrived.set()

    def _due(self, key: str) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _cancel_timer(self, key: str) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
