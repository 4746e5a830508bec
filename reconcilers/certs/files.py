"""Writes files so that a reader, or a machine that loses power, never meets half of one."""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Content:
    """What a file shall hold, and its permissions."""

    path: Path
    data: bytes
    mode: int


@dataclass(frozen=True, slots=True)
class _Mark:
    """Tells a file from any that takes its place, and from itself once written to; a rename leaves it as it is."""

    inode: int
    size: int
    modified_ns: int


class Files:
    """Writes files, and remembers how it left each: a watcher can tell its doing from that of others."""

    def __init__(self) -> None:
        self._left: dict[Path, _Mark | None] = {}

    def replace(self, contents: Iterable[Content]) -> None:
        """Puts files of one folder in place, each at once and in this order. Raises OSError.

        Dying at any moment leaves each of them old or new; what was not yet
        renamed is overwritten next time.
        """
        ready = [(_write(content), content.path) for content in contents]
        self._left |= {path: _mark(temporary) for temporary, path in ready}
        # Nothing else is done in between: whoever reads several of them shall hardly ever meet them of two minds.
        for temporary, path in ready:
            temporary.rename(path)
        for folder in {path.parent for _, path in ready}:
            sync_folder(folder)

    def remove(self, *paths: Path) -> None:
        """Removes files of one folder, in this order, with what an earlier death left of them. Raises OSError."""
        for path in paths:
            self._left[path] = None
            # First: as long as the file is there, somebody knows that something is left to do.
            _temporary(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in paths}:
            with suppress(FileNotFoundError):
                sync_folder(folder)

    def clear(self, *paths: Path) -> None:
        """Removes what a death left of files that never came to be. Raises OSError."""
        for path in paths:
            _temporary(path).unlink(missing_ok=True)

    def left_so(self, path: Path) -> bool:
        """Whether the file, or its absence, is as we last left it."""
        return path in self._left and self._left[path] == _mark(path)


def read(path: Path) -> bytes | None:
    """What a file holds; None where there is none, b"" for what is no regular file or too large to be meant.

    Raises OSError where that cannot be known, which is never the same as absent.
    """
    try:
        # Not blocking: a named pipe would keep us waiting for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
        os.close(descriptor)
        return b""
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def sync_folder(folder: Path) -> None:
    """Makes what was renamed or removed in a folder last. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(content: Content) -> Path:
    temporary = _temporary(content.path)
    # One that a death left may have other permissions, or be a link.
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, content.mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, content.mode)
        file.write(content.data)
        file.flush()
        os.fsync(descriptor)
    return temporary


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _mark(path: Path) -> _Mark | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    return _Mark(status.st_ino, status.st_size, status.st_mtime_ns)
