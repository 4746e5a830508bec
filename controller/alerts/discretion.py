"""Decides which events are told, and when: free of clocks, of I/O, and of whom they are told to.

The same trouble again is held back for a while, never forgotten: if it is not
over by then, it is told then. So nobody is left with the news of an end that was none.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from api.service import Event
from controller import kinds

AlertKind = Literal[
    "failed", "recovered", "flapping", "calmed", "ready", "retrying", "postponed", "left alone", "drift"
]
"""As in the timeline, but: `failed` needs a person, `retrying` failed and does not, `drift` is what was corrected."""

_ENDS: Final = {kinds.RECOVERED: kinds.FAILED, kinds.READY: kinds.FAILED, kinds.CALMED: kinds.FLAPPING}
"""Which kind of trouble is over with it."""


class _Same(NamedTuple):
    """What two events have in common of which the second is no news. A new generation is a new beginning."""

    service: str
    kind: str
    actor: str
    generation: int


@dataclass(slots=True)
class Discretion:
    """What was told, and what is held back. Times are in seconds, by whatever clock."""

    kinds: Collection[AlertKind]
    quiet: float
    """The same is not told again for so long."""
    _told: dict[_Same, float] = field(default_factory=dict)
    _held: dict[_Same, tuple[float, Event]] = field(default_factory=dict)
    """The newest of its kind, and when it is due."""
    _open: set[tuple[str, str]] = field(default_factory=set)
    """Service and kind of the trouble that was told, and is not over."""

    def hear(self, event: Event, now: float) -> bool:
        """Whether the event is to be told now; it may be held back until it is due."""
        # What is held back of an earlier generation is nobody's concern any more.
        self._drop(lambda same: same.service == event.service and same.generation < event.generation)
        if (trouble := _ENDS.get(event.kind)) is not None:
            return self._hear_end(event, trouble)
        kind = _kind(event)
        if kind not in self.kinds:
            return False
        same = _Same(event.service, kind, event.actor, event.generation)
        if (last := self._told.get(same)) is not None and now < last + self.quiet:
            self._held[same] = last + self.quiet, event
            return False
        self._tell(same, now)
        return True

    def due(self, now: float) -> tuple[Event, ...]:
        """What was held back for long enough and is to be told now, in the order in which it happened."""
        due = {same: event for same, (at, event) in self._held.items() if at <= now}
        for same in due:
            self._tell(same, now)
        return tuple(sorted(due.values(), key=lambda event: event.id))

    def next_due(self) -> float | None:
        """When something that is held back is to be told; None: nothing is."""
        return min((at for at, _ in self._held.values()), default=None)

    def forget(self, service: str) -> None:
        """The service is gone, and whatever was wrong with it."""
        self._drop(lambda same: same.service == service)
        self._open = {opened for opened in self._open if opened[0] != service}

    def _hear_end(self, event: Event, trouble: str) -> bool:
        held = self._drop(lambda same: (same.service, same.kind) == (event.service, trouble))
        opened = (event.service, trouble)
        told = opened in self._open
        self._open.discard(opened)
        if event.kind == kinds.READY:
            return kinds.READY in self.kinds or (told and kinds.RECOVERED in self.kinds)
        # Of trouble that is not known here an agent before this one may have told.
        return event.kind in self.kinds and (told or not held)

    def _drop(self, which: Callable[[_Same], bool]) -> bool:
        """Tells nobody of what is held back; whether there was any."""
        dropped = [same for same in self._held if which(same)]
        for same in dropped:
            del self._held[same]
        return bool(dropped)

    def _tell(self, same: _Same, now: float) -> None:
        self._told = {other: at for other, at in self._told.items() if now < at + self.quiet}
        self._told[same] = now
        self._held.pop(same, None)
        if same.kind in _ENDS.values():
            self._open.add((same.service, same.kind))


def _kind(event: Event) -> str:
    """What the settings call it."""
    if event.kind == kinds.FAILED:
        return kinds.FAILED if kinds.needs_a_person(event) else "retrying"
    return "drift" if event.drift else event.kind
