"""When a container that ended is started again. Pure.

MCP owns the backoff: a handful of containers that the engine restarts at once,
for ever, bring a whole node to its knees.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from api.service import Component
from api.spec import RestartPolicy
from reconcilers.containers.model import ContainerObservation

ENDS_UNTIL_FAILED = 3
"""So many ends in a row are no accident any more."""


@dataclass(frozen=True, slots=True)
class RestartBackoff:
    """How often to start again: at once the first time, then ever more slowly."""

    first: timedelta = timedelta(seconds=10)
    """Between the last start and the second restart; it doubles from there."""
    most: timedelta = timedelta(minutes=5)
    quiet: timedelta = timedelta(minutes=10)
    """After running so long, a container's earlier restarts are forgotten."""

    def due(self, restarts: int, last_start: datetime | None) -> datetime | None:
        """When the next start may be; None: at once."""
        if restarts == 0 or last_start is None:
            return None
        # The engine tells whole seconds: the start was up to one later. And 2**32 is beyond any cap.
        return last_start + timedelta(seconds=1) + min(self.most, self.first * (1 << min(restarts - 1, 32)))

    def counted(self, known: Component | None, container: ContainerObservation, now: datetime) -> int:
        """The container's restarts since its last quiet time."""
        if known is None or known.container_id != container.id:
            return 0
        until = now if container.running else (container.ended_at or now)
        started = container.started_at
        return 0 if started is not None and until - started >= self.quiet else known.restarts


def wanted_again(policy: RestartPolicy, exit_code: int | None) -> bool:
    """Whether a container that ended by itself, or by somebody else's hand, is to run."""
    match policy:
        case RestartPolicy.NO:
            return False
        case RestartPolicy.ON_FAILURE:
            return exit_code != 0
        case RestartPolicy.ALWAYS | RestartPolicy.UNLESS_STOPPED:
            return True
