"""How often an issuer may be asked: a limit of ours over all services, and the waits that it wishes for itself.

Both outlive the agent: restarting in a loop must not mean asking in a loop.
"""

from datetime import datetime, timedelta
from pathlib import Path
from threading import Lock

from pydantic import ValidationError

from api.model import Model
from reconcilers.base import Clock
from reconcilers.certs.files import Content, Files, read
from reconcilers.certs.issuer import IssueFailed
from reconcilers.certs.model import LONGEST_WAIT

_WINDOW = timedelta(hours=1)


class _Spent(Model):
    asked: tuple[datetime, ...] = ()
    """When it was asked, in the last hour."""
    closed_until: datetime | None = None
    """It wished to be left alone until then."""


class Budget:
    """Counts what is asked of one issuer. Safe to use from several threads."""

    def __init__(self, path: Path, per_hour: int, clock: Clock) -> None:
        """Reads what earlier agents spent; a damaged file counts as nothing. Blocks. Raises OSError."""
        self._path = path
        self._per_hour = per_hour
        self._clock = clock
        self._files = Files()
        self._lock = Lock()
        try:
            self._spent = _Spent.model_validate_json(read(path) or b"{}")
        except ValidationError:
            self._spent = _Spent()

    def spend(self) -> None:
        """Counts one request. Raises IssueFailed, with the wait, where it may not be made now; OSError."""
        with self._lock:
            now = self._clock()
            recent = tuple(at for at in self._spent.asked if now - _WINDOW < at <= now)
            wait = (self._spent.closed_until or now) - now
            # One that is farther off was written while the clock was wrong.
            if timedelta() < wait <= LONGEST_WAIT:
                raise IssueFailed("it asked to be left alone for a while", retry_after=wait, counts=False)
            if len(recent) >= self._per_hour:
                message = f"the limit of {self._per_hour} certificates an hour is reached"
                raise IssueFailed(message, retry_after=recent[0] + _WINDOW - now, counts=False)
            self._write(_Spent(asked=(*recent, now)))

    def close(self, wait: timedelta) -> None:
        """Asks nothing for so long. Raises OSError."""
        with self._lock:
            self._write(self._spent.model_copy(update={"closed_until": self._clock() + wait}))

    def _write(self, spent: _Spent) -> None:
        self._files.replace([Content(self._path, spent.model_dump_json().encode(), 0o600)])
        self._spent = spent
