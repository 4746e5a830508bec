"""What the planner knows of files, and where they may lie."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from api.conditions import Reason


class Unsafe(Exception):
    """What lies there, or leads there, is nothing that is written to or read from; the message is a sentence."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True)
class Place:
    """Where one file belongs: `<root>/<service>/<path>`."""

    root: str
    service: str
    path: str
    """Relative, without `.` and `..`; see api.files.relative_path."""

    def __str__(self) -> str:
        return f"{self.root.rstrip('/')}/{self.service}/{self.path}"

    @property
    def parts(self) -> tuple[str, ...]:
        """The folders below the root that lead to it, and its name."""
        return (self.service, *self.path.split("/"))


@dataclass(frozen=True, slots=True)
class Site:
    """Where all files of a node belong."""

    root: str
    private: tuple[str, ...] = ()
    """What is the agent's own, with all below it: nobody writes or reads there through us."""

    def place(self, service: str, path: str) -> Place:
        """Where the file belongs. Raises Unsafe for what is the agent's own."""
        place = Place(self.root, service, path)
        # Below the root no links are followed: what is real there is what is written.
        real = Path(os.path.realpath(self.root), *place.parts)
        for kept in map(os.path.realpath, filter(None, self.private)):
            if real == Path(kept) or Path(kept) in real.parents:
                raise Unsafe(f"{place} belongs to the agent itself")
        return place


@dataclass(frozen=True, slots=True)
class Found:
    """What lies at a place."""

    sha256: str = ""
    """Hexadecimal, or words for what is too large to be meant; empty: nothing lies there."""
    mode: int = 0
    owner: str = ""
    """uid:gid."""
    problem: str = ""
    """Why nothing may be done about it, in a sentence."""
    reason: Reason = Reason.CONFLICT
    """Of the problem."""


NOTHING = Found()


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known of the world: by path."""

    found: Mapping[str, Found]
    """Of those files that were looked at."""
    own: str
    """uid:gid of the agent."""
    failed: frozenset[str] = field(default=frozenset())
    """Which could not be laid down when that was tried last: they hold up no others."""


class FileStore(Protocol):
    """The part of the registry that knows files. Every method raises RegistryUnavailable."""

    async def content(self, sha256: str) -> bytes | None:
        """The content with that hash; None where no file has it any more."""
        ...

    async def laid(self, service: str, path: str, revision: int, *, changed: bool) -> None:
        """Notes that the revision lies on the disk; `changed`: something else lay there before."""
        ...

    async def gone(self, service: str, path: str, revision: int) -> None:
        """Notes that what was taken back in that revision is done with."""
        ...

    async def forget(self, service: str, path: str) -> None:
        """Drops all that is known of the file, with its history."""
        ...
