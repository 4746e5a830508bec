"""Notices a service that has to be mended again and again, and has that done more slowly.

Something undoes what MCP does, or the service cannot live: both end only when a
person looks, and until then the node must not be kept busy with it. What is
counted are corrections, over all reconcilers; a wish that changed is none, is
never slowed, and begins a new count.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from api.conditions import ConditionType, Reason, Status
from api.service import Service
from controller.kinds import CALMED, FLAPPING
from controller.registry import ConditionUpdate, EventDraft, Report
from reconcilers.base import Clock

_ACTOR: Final = "mcp-agent"
_EARLY: Final = 0.001
"""Seconds."""


@dataclass(frozen=True, slots=True)
class FlappingSettings:
    """When it is too often. Times are in seconds."""

    changes: int = 10
    """So many corrections within the window are too many."""
    window: float = 600.0
    """So long without any, and the service is as good as any other again."""
    first: float = 1.0
    """Between two corrections by one reconciler at first; doubles with each."""
    most: float = 60.0


@dataclass(frozen=True, slots=True)
class _Correction:
    at: float
    """By the loop's clock."""
    reconciler: str
    what: str


@dataclass(slots=True)
class _History:
    """What was mended of one generation of one service."""

    of: tuple[str, int]
    """The service's uid and generation."""
    quiet_at: datetime
    """When nothing will have been mended for the whole window, if nothing is until then."""
    last: float
    corrections: deque[_Correction] = field(default_factory=deque)
    slowed: int = 0
    """Corrections since it flaps; 0: it does not."""
    told: bool = False
    """Whether the timeline says that it flaps."""


class Flapping:
    """The corrections of every service, shared by all drivers; used on the event loop only."""

    def __init__(self, settings: FlappingSettings, began: Callable[[], None], clock: Clock) -> None:
        """`began` is called for each service that begins to flap."""
        self._settings = settings
        self._began = began
        self._clock = clock
        self._histories: dict[str, _History] = {}

    def corrected(self, service: Service, reconciler: str, what: str) -> None:
        """Counts a look that mended something; `what` says it in the past tense."""
        history, now = self._history(service), self._now()
        history.corrections.append(_Correction(now, reconciler, what))
        self._touch(history)
        if history.slowed:
            history.slowed += 1
        elif len(history.corrections) >= self._settings.changes:
            history.slowed = 1
            self._began()

    def pause(self, service: Service, reconciler: str) -> float:
        """Seconds until that reconciler may mend something of the service again; 0: now."""
        history = self._history(service)
        if not history.slowed:
            return 0
        own = [correction.at for correction in history.corrections if correction.reconciler == reconciler]
        # 2**32 is beyond any cap, and a larger one would overflow some day.
        pause = min(self._settings.most, self._settings.first * float(1 << min(history.slowed - 1, 32)))
        return self._left(max(own) + pause) if own else 0

    def quiet_in(self, service: Service) -> float | None:
        """Seconds until a service that flaps can be said not to any more; None for one that does not."""
        history = self._history(service)
        return self._left(history.last + self._settings.window) if history.slowed else None

    def report(self, service: Service) -> Report | None:
        """What of all this is not known of the service yet; to be written once."""
        history, known = self._history(service), service.condition(ConditionType.FLAPPING)
        flaps = history.slowed > 0
        if not flaps and (known is None or known.status is not Status.TRUE):
            return None
        condition = self._condition(service, history)
        events: tuple[EventDraft, ...] = ()
        if history.told is not flaps:
            # Before it is written: the drivers look side by side, and it is told by one of them.
            history.told = flaps
            kind = FLAPPING if flaps else CALMED
            events = (EventDraft(kind, condition.message, _ACTOR, service.generation),)
        report = Report(condition, events)
        return report if report.says_more_than(service) else None

    def forget(self, name: str) -> None:
        """The service is gone."""
        self._histories.pop(name, None)

    def _history(self, service: Service) -> _History:
        """The service's own, without what is too long ago."""
        of, known = (service.uid, service.generation), service.condition(ConditionType.FLAPPING)
        history = self._histories.get(service.name)
        if history is None or history.of != of:
            told = known is not None and known.status is Status.TRUE
            history = _History(of, self._clock(), self._now(), told=told)
            if told and known is not None and known.observed_generation == service.generation:
                # An agent that is started anew goes on where the one before was.
                history.slowed = 1
                self._touch(history)
            self._histories[service.name] = history
        while history.corrections and not self._left(history.corrections[0].at + self._settings.window):
            history.corrections.popleft()
        if history.slowed and not self._left(history.last + self._settings.window):
            history.slowed = 0
        return history

    def _touch(self, history: _History) -> None:
        history.last = self._now()
        history.quiet_at = self._clock() + timedelta(seconds=self._settings.window)

    def _condition(self, service: Service, history: _History) -> ConditionUpdate:
        known = service.condition(ConditionType.FLAPPING)
        if history.slowed:
            # One that was seen by an agent before this one has nothing to add yet.
            message = _mended(history.corrections) or (known.message if known else "")
            status, reason, look = Status.TRUE, Reason.FLAPPING, history.quiet_at
        elif known is not None and known.observed_generation < service.generation:
            message = f"generation {service.generation} begins a new count"
            status, reason, look = Status.FALSE, Reason.CONVERGED, None
        else:
            message = f"nothing had to be mended for {_span(self._settings.window)}"
            status, reason, look = Status.FALSE, Reason.CONVERGED, None
        return ConditionUpdate(ConditionType.FLAPPING, status, reason, message, service.generation, look)

    def _left(self, until: float) -> float:
        """Seconds from now; a timer may be early by less than one thousandth."""
        left = until - self._now()
        return left if left > _EARLY else 0

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _mended(corrections: deque[_Correction]) -> str:
    """What was done how often, in which time: `containers were mended 7 times in 2 minutes, last: ...`."""
    if not corrections:
        return ""
    counts = Counter(correction.reconciler for correction in corrections)
    parts = [f"{name} were mended {_times(count)}" for name, count in counts.most_common()]
    span = _span(corrections[-1].at - corrections[0].at)
    return f"{' and '.join(parts)} in {span}, last: {corrections[-1].what}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _span(seconds: float) -> str:
    amount, unit = (round(seconds / 60), "minute") if seconds >= 120 else (max(1, round(seconds)), "second")
    return f"{amount} {unit}" if amount == 1 else f"{amount} {unit}s"
