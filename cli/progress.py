"""Shows services on their way: a live picture on a terminal, a line for each step in a pipe."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from api.conditions import Condition, Reason, Status
from api.service import Service
from cli.output import Output, printable
from cli.reports.common import SHORT
from cli.wait import End, Settled

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

_WIDE = 90
"""Columns, beside those of the names, from which on there is room for what is awaited behind all conditions."""

REMIND_SECONDS = 2.0
"""In a pipe, what is awaited is said once nothing has happened for so long."""


@dataclass(slots=True)
class Track:
    """One service on its way."""

    name: str
    generation: int
    steps: bool
    """Whether its conditions turning true are steps of this rollout; a deletion has none."""
    started: float = field(default_factory=time.monotonic)
    finished: float | None = None
    awaited: str = "the agent"
    service: Service | None = None
    end: Settled | None = None
    told: set[str] = field(default_factory=set)
    """What a pipe has been told already."""

    @property
    def seconds(self) -> float:
        """How long it has taken so far, or took."""
        return (self.finished or time.monotonic()) - self.started

    def conditions(self) -> Iterator[tuple[str, Condition | None]]:
        """The four conditions by the names people use; None for one that has not seen this generation."""
        for kind, label in SHORT.items():
            condition = self.service.condition(kind) if self.service else None
            yield label, condition if condition and condition.observed_generation >= self.generation else None


class Progress:
    """Tells how far services are; `settled` gives the last word on each."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self.tracks: list[Track] = []

    def add(self, name: str, generation: int, *, started: float, steps: bool = True) -> Track:
        """A service begins its way; `started` is of the monotonic clock, in seconds."""
        track = Track(name, generation, steps, started)
        self.tracks.append(track)
        return track

    def show(self, track: Track, service: Service, awaited: str) -> None:
        """The service changed."""
        track.service, track.awaited = service, awaited
        if not self._output.terminal and track.steps:
            self._tell_steps(track)

    def settled(self, track: Track, settled: Settled) -> None:
        """The service's way has ended."""
        track.finished, track.end = time.monotonic(), settled

    def _tell_steps(self, track: Track) -> None:
        for label, condition in track.conditions():
            if condition is None or condition.status is not Status.TRUE or label in track.told:
                continue
            track.told.add(label)
            words = "not needed" if condition.reason is Reason.NOT_NEEDED else f"ready in {track.seconds:.2f}s"
            self._output.line(f"{track.name} {label} {words}")

    async def _remind(self) -> None:
        """In a pipe, says what is awaited when nothing else is said."""
        while True:
            await asyncio.sleep(REMIND_SECONDS)
            for track in self.tracks:
                if track.finished is None and track.awaited not in track.told:
                    track.told.add(track.awaited)
                    self._output.line(f"{track.name} waiting: {track.awaited}")

    @asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        """Keeps the picture moving while services are on their way."""
        if self._output.silent:
            yield
        elif self._output.terminal:
            with self._live():
                yield
        else:
            task = asyncio.create_task(self._remind(), name="remind")
            try:
                yield
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    @contextmanager
    def _live(self) -> Iterator[None]:
        from rich.live import Live

        console = self._output.console()
        with Live(
            get_renderable=lambda: self.picture(console.width, console.height),
            console=console,
            refresh_per_second=10,
            vertical_overflow="visible",
        ):
            yield

    def picture(self, columns: int, lines: int) -> "RenderableType":
        """A line for each service that there is room for: its conditions, the time, and what is awaited.

        On a narrow terminal the conditions are told by their signs alone.
        """
        from rich.console import Group
        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        shown, rest = _fitting(self.tracks, lines)
        wide = columns >= _WIDE + max((len(track.name) for track in shown), default=0)
        table = Table.grid(padding=(0, 2))
        for track in shown:
            signs = list(_signs(track)) if track.steps else []
            cells: list[RenderableType] = [Text(track.name, style="bold")]
            if wide:
                cells += [Text(f"{sign} {label}", style=style) for label, sign, style in signs]
            elif signs:
                cells.append(Text.assemble(*((sign, style) for _, sign, style in signs)))
            cells.append(Text(f"{track.seconds:.1f}s", style="dim"))
            cells.append(Text() if track.end else Spinner("dots"))
            cells.append(_last_word(track) if track.end else _one_line(track.awaited, "dim"))
            table.add_row(*cells)
        for column in table.columns[:-1]:
            column.no_wrap = True
        return Group(table, Text(rest, style="dim")) if rest else table


def _fitting(tracks: Sequence[Track], lines: int) -> tuple[Sequence[Track], str]:
    """Those that are shown in so many lines, in their order, and what is said of the others.

    A picture that is higher than its terminal cannot be drawn over: who is on
    the way is shown before who failed, and who is done comes last.
    """
    room = max(1, lines - 2)
    if len(tracks) <= room:
        return tracks, ""
    ranked = sorted(tracks, key=_rank)
    chosen = {id(track) for track in ranked[:room]}
    others = Counter(_RANKS[_rank(track)] for track in ranked[room:])
    said = ", ".join(f"{count} {word}" for word, count in others.items())
    return [track for track in tracks if id(track) in chosen], f"and {len(tracks) - room} more: {said}"


_RANKS = ("on the way", "failed", "done")


def _rank(track: Track) -> int:
    if track.end is None:
        return 0
    return 2 if track.end.end is End.DONE else 1


def _signs(track: Track) -> Iterator[tuple[str, str, str]]:
    for label, condition in track.conditions():
        if condition is None:
            yield label, "·", "dim"
        elif condition.status is Status.TRUE:
            yield label, "✓", "dim green" if condition.reason is Reason.NOT_NEEDED else "green"
        elif condition.reason.needs_a_person:
            yield label, "✗", "red"
        else:
            yield label, "…", "yellow"


def _last_word(track: Track) -> "Text":
    return _one_line("" if track.end is None or track.end.end is End.DONE else track.end.message, "red")


def _one_line(text: str, style: str) -> "Text":
    """Cut, or the picture would be higher than was reckoned with; the whole sentence comes at the end."""
    from rich.text import Text

    return Text(printable(text), style=style, no_wrap=True, overflow="ellipsis")
