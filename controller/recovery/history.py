"""What became of the snapshots: when the last good one was taken, when one failed, and whether that is as it should be.

Whoever takes one is another process than the agent, and may not run at all:
what is asked for here is what lies on the disk.
"""

import os
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from api.service import SnapshotStatus
from controller.settings import Settings

RECOVERY: Final = "recovery"
"""What a restore works with and leaves aside, and how the last snapshot failed; in the agent's folder."""

_STAMP: Final = "%Y%m%dT%H%M%S.%fZ"


def folder(settings: Settings) -> Path:
    """Where snapshots go, and are kept from growing ever more."""
    return Path(settings.snapshot.folder or Path(settings.state_dir) / "snapshots")


def file_name(node: str, at: datetime) -> str:
    """What a snapshot is called."""
    return f"mcp-{node}-{at:{_STAMP}}.tar.gz"


def snapshots(where: Path, node: str) -> dict[Path, datetime]:
    """The node's snapshots in a folder and when they were taken, oldest first. Raises OSError."""
    name = re.compile(rf"mcp-{re.escape(node)}-(\d{{8}}T\d{{6}}\.\d{{6}}Z)\.tar\.gz")
    found: dict[Path, datetime] = {}
    for path in sorted(where.iterdir()):
        # Somebody may have called another file so, with a time that there is not.
        with suppress(ValueError):
            if match := name.fullmatch(path.name):
                found[path] = datetime.strptime(match[1], _STAMP).replace(tzinfo=UTC)
    return found


def failed(settings: Settings, sentence: str) -> None:
    """Remembers that one failed, for the agent to tell. Where that fails, too, nothing is left to be done."""
    note = _note(settings)
    with suppress(OSError):
        note.parent.mkdir(mode=0o700, exist_ok=True)
        # A file that somebody else put there is not written through.
        note.unlink(missing_ok=True)
        descriptor = os.open(note, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(sentence)


def look(settings: Settings, now: datetime) -> SnapshotStatus:
    """How it stands with snapshots. Blocks."""
    where = folder(settings)
    try:
        taken = max(snapshots(where, settings.node).values(), default=None)
    except FileNotFoundError:
        taken = None
    except OSError as error:
        return SnapshotStatus(problem=f"{where} cannot be looked at: {error.strerror}")
    failed_at, why = _last_failure(settings)
    return SnapshotStatus(taken_at=taken, failed_at=failed_at, problem=_problem(settings, now, taken, failed_at, why))


def _problem(settings: Settings, now: datetime, taken: datetime | None, failed_at: datetime | None, why: str) -> str:
    most = timedelta(seconds=settings.snapshot.max_age_seconds)
    last = f"the last one is of {taken:%Y-%m-%d %H:%M} UTC" if taken else "there is none"
    if failed_at is not None and (taken is None or failed_at > taken):
        return f"the last try failed, at {failed_at:%Y-%m-%d %H:%M} UTC: {why}; {last}"
    # Of an agent that has just begun, none is expected yet.
    if now - (taken or _born(settings) or now) > most:
        return f"{last}, and one is expected every {most.total_seconds() / 3600:g} h"
    return ""


def _last_failure(settings: Settings) -> tuple[datetime | None, str]:
    note = _note(settings)
    try:
        return _time(note), note.read_text(errors="replace")
    except OSError:
        return None, ""


def _born(settings: Settings) -> datetime | None:
    """When the agent first had something to lose."""
    try:
        return _time(Path(settings.state_dir) / "ca" / "ca.pem")
    except OSError:
        return None


def _time(path: Path) -> datetime:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC)


def _note(settings: Settings) -> Path:
    return Path(settings.state_dir) / RECOVERY / "snapshot-failure"
