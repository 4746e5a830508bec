"""What a benchmark yields: pairs of times, and single figures."""

import statistics
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Comparison:
    """The same done by MCP and by somebody else, in pairs; in seconds."""

    what: str
    against: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios: below 1, MCP is faster."""
        return statistics.median(ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True))

    def row(self) -> tuple[str, str, str, str, str, str]:
        """The line of a table."""
        ours, theirs = statistics.median(self.ours), statistics.median(self.theirs)
        return (self.what, seconds(ours), self.against, seconds(theirs), f"{self.ratio:.2f}", str(len(self.ours)))

    def data(self) -> dict[str, Any]:
        """All of it, for a file."""
        return {
            "what": self.what,
            "against": self.against,
            "median_seconds": statistics.median(self.ours),
            "against_median_seconds": statistics.median(self.theirs),
            "ratio": self.ratio,
            "seconds": self.ours,
            "against_seconds": self.theirs,
        }


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity of MCP that nothing is compared with."""

    what: str
    value: float
    unit: str
    count: int = 1
    """Measurements of which it is the median."""

    @classmethod
    def median(cls, what: str, times: Collection[float]) -> Self:
        """Of times in seconds."""
        return cls(what, statistics.median(times), "s", len(times))

    def row(self) -> tuple[str, str, str, str, str, str]:
        """The line of a table."""
        shown = seconds(self.value) if self.unit == "s" else f"{self.value:.3g} {self.unit}"
        return (self.what, shown, "", "", "", str(self.count))

    def data(self) -> dict[str, Any]:
        """All of it, for a file."""
        return {"what": self.what, "value": self.value, "unit": self.unit, "count": self.count}


Result = Comparison | Figure


def seconds(value: float) -> str:
    """A time as people read it."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def in_turn(count: int, *sides: Callable[[int], float]) -> list[tuple[float, ...]]:
    """What each side measured, over `count` rounds; who goes first changes from round to round."""
    times: list[list[float]] = [[] for _ in sides]
    for number in range(count):
        order = list(enumerate(sides))
        for index, side in order if number % 2 == 0 else reversed(order):
            times[index].append(side(number))
    return [tuple(side) for side in times]
