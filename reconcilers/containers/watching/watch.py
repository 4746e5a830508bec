"""What the answers of one container make of it. No clock and no I/O: it is told when something happened.

While it starts it is asked more often than failures count, so that it is ready
at once and yet has as much time as its definition says.
"""

from dataclasses import dataclass

from api.resolve import ResolvedHealth
from reconcilers.containers.model import ContainerObservation

_OTHER_WORDS = 1.0
"""Seconds. That a failure is put in other words is worth telling so often."""


@dataclass(slots=True, eq=False)
class Watch:
    """What is known of one process of a container."""

    container: ContainerObservation
    began: float
    """When the process started, by the loop's clock."""
    check: ResolvedHealth | None = None
    ready: bool = False
    failures: int = 0
    """Those in a row that count: they are an interval apart, and none is in the start period."""
    trouble: str = ""
    """The last failure; empty after a success."""
    counted_at: float = 0.0
    told: tuple[bool, str, str] = (False, "", "")
    """What the listeners know of it."""
    told_at: float = 0.0

    @property
    def starting(self) -> bool:
        """Whether it was not ready yet, and has not failed so often either."""
        return not self.ready and not self.out

    @property
    def out(self) -> bool:
        """Whether it failed so often that it counts."""
        return self.check is not None and self.failures >= self.check.retries

    @property
    def unwell(self) -> str:
        """Why it should be restarted; empty where it should not."""
        if self.check is None or not self.check.liveness or not self.out:
            return ""
        times = "once" if self.check.retries == 1 else f"{self.check.retries} times"
        return f"health check failed {times}: {self.trouble}"

    @property
    def shown(self) -> tuple[bool, str, str]:
        """What others see of it."""
        return self.ready, self.unwell, "" if self.ready else self.trouble

    def succeeded(self) -> None:
        """Takes note of a success."""
        self.ready, self.failures, self.trouble = True, 0, ""

    def failed(self, why: str, check: ResolvedHealth, now: float) -> None:
        """Takes note of a failure. A starting container is asked more often than failures count."""
        self.trouble = why
        if self.starting and now < max(self.counted_at, self.began) + check.interval:
            return
        self.counted_at = now
        if now >= self.began + check.start_period:
            self.failures += 1
        self.ready = self.ready and not self.out

    def news(self, now: float) -> bool:
        """Whether others must be told now."""
        shown, told = self.shown, self.told
        same = (shown[0], bool(shown[1])) == (told[0], bool(told[1]))
        if shown == told or (same and now < self.told_at + _OTHER_WORDS):
            return False
        self.told, self.told_at = shown, now
        return True
