"""Reads and writes files below a service's folder, whoever else writes there meanwhile.

Whoever may write to the folder (the service itself may) can put links, pipes and
folders anywhere in it at any moment. So each step is taken from the descriptor of
the folder before, by openat2(2), which follows no link of any kind and leaves no
folder upward; names are checked once they are open, never before alone.
"""

import ctypes
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from reconcilers.files.model import NOTHING, Found, Place, Unsafe

_OPENAT2: Final = 437
"""The system call's number, alike on all machines that Debian's kernel runs on."""

_RESOLVE: Final = 0x08 | 0x04 | 0x02
"""RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_KINDS: Final = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFDIR: "a folder",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

_PIECE: Final = 1 << 20


class _How(ctypes.Structure):
    """The kernel's struct open_how."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)


def look(place: Place, most: int) -> Found:
    """What lies there; a file of more than `most` bytes is not read. Raises Unsafe, OSError."""
    try:
        descriptor = open_file(place)
    except FileNotFoundError:
        return NOTHING
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        large = f"{status.st_size} bytes" if status.st_size > most else ""
        sha256 = large or hashlib.file_digest(file, "sha256").hexdigest()
    return Found(sha256, stat.S_IMODE(status.st_mode), f"{status.st_uid}:{status.st_gid}")


def open_file(place: Place) -> int:
    """A descriptor of the file that lies there, to read. Raises FileNotFoundError, Unsafe, OSError."""
    with _folder_of(place, make=False) as folder:
        return _open_regular(folder, place)


def lay_down(place: Place, content: bytes, mode: int, owner: tuple[int, int]) -> None:
    """Puts a file there, at once and for good, with the folders that lead there. Raises Unsafe, OSError.

    Dying at any moment leaves what was there or what shall be, and at most a
    temporary file, which the next attempt overwrites.
    """
    name, temporary = place.parts[-1], _temporary(place.parts[-1])
    with _folder_of(place, make=True) as folder:
        _check_irregular(folder, place)
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        try:
            written = _write(folder, temporary, content, mode, owner)
            # Only for a good sentence: rename follows no link, and replaces no folder.
            _check_irregular(folder, place)
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise
        os.fsync(folder)
    _check_arrived(place, written)


def remove(place: Place, sha256: str) -> None:
    """Removes the file there if it still has that content. Raises Unsafe, OSError."""
    with suppress(FileNotFoundError), _folder_of(place, make=False) as folder:
        descriptor = _open_regular(folder, place)
        with os.fdopen(descriptor, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise Unsafe(f"{place} changed meanwhile")
        os.unlink(place.parts[-1], dir_fd=folder)
        os.fsync(folder)


def _openat2(folder: int, name: str, flags: int, mode: int = 0) -> int:
    how = _How(flags, mode, _RESOLVE)
    descriptor: int = _libc.syscall(_OPENAT2, folder, os.fsencode(name), ctypes.byref(how), ctypes.sizeof(how))
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return descriptor


@contextmanager
def _folder_of(place: Place, *, make: bool) -> Iterator[int]:
    """The descriptor of the folder in which the file belongs."""
    if make:
        os.makedirs(place.root, exist_ok=True)  # noqa: PTH103  # as the rest here speaks
    # The root is the operator's: it may be a link.
    folder = os.open(place.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for depth, part in enumerate(place.parts[:-1], 1):
            shown = "/".join((place.root.rstrip("/"), *place.parts[:depth]))
            inner = _enter(folder, part, shown, make=make)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def _enter(folder: int, name: str, shown: str, *, make: bool) -> int:
    try:
        return _openat2(folder, name, _FOLDER)
    except FileNotFoundError:
        if not make:
            raise
    except OSError as error:
        raise _explained(error, shown) from error
    with suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=folder)
        os.fsync(folder)
    try:
        return _openat2(folder, name, _FOLDER)
    except OSError as error:
        raise _explained(error, shown) from error


def _explained(error: OSError, shown: str) -> Exception:
    match error.errno:
        case errno.ELOOP | errno.EXDEV:
            return Unsafe(f"{shown} is a symbolic link: nothing is read or written through it")
        case errno.ENOTDIR:
            return Unsafe(f"{shown} is no folder")
        case errno.ENOSYS:
            return OSError(error.errno, "this kernel has no openat2: Linux 5.6 or newer is needed", shown)
        case _:
            return error


def _open_regular(folder: int, place: Place) -> int:
    name = place.parts[-1]
    # To open a device may do something: what is no file is not opened at all.
    _check(os.stat(name, dir_fd=folder, follow_symlinks=False), place)
    try:
        descriptor = _openat2(folder, name, _FILE)
    except OSError as error:
        raise _explained(error, str(place)) from error
    try:
        _check(os.fstat(descriptor), place)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_irregular(folder: int, place: Place) -> None:
    with suppress(FileNotFoundError):
        _check(os.stat(place.parts[-1], dir_fd=folder, follow_symlinks=False), place)


def _check(status: os.stat_result, place: Place) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise Unsafe(f"{place} is {_KINDS.get(kind, 'no file')}: it is left alone")
    if status.st_nlink > 1:
        raise Unsafe(f"{place} has another name elsewhere (a hard link): it is left alone")


def _write(folder: int, name: str, content: bytes, mode: int, owner: tuple[int, int]) -> os.stat_result:
    descriptor = _openat2(folder, name, _NEW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        # Before anything is in it: nobody reads what is not his.
        os.fchown(descriptor, *owner)
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
        return os.fstat(descriptor)


def _check_arrived(place: Place, written: os.stat_result) -> None:
    """Raises Unsafe unless the file that was written is found from the root on: its folder may have been moved."""
    found: os.stat_result | None = None
    with suppress(FileNotFoundError), _folder_of(place, make=False) as folder:
        found = os.stat(place.parts[-1], dir_fd=folder, follow_symlinks=False)
    if found is None or not os.path.samestat(found, written):
        raise Unsafe(f"{place} was taken away or replaced while it was laid down")


def _temporary(name: str) -> str:
    return f".mcp-{hashlib.sha256(os.fsencode(name)).hexdigest()[:16]}.new"
