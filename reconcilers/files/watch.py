"""Tells at once, by inotify, when somebody touches files that matter, or the folders that lead to them."""

import asyncio
import errno
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import structlog
from asyncinotify import Event, Inotify, Mask, Watch

log = structlog.get_logger("files")

_CHANGED = Mask.CLOSE_WRITE | Mask.ATTRIB | Mask.CREATE | Mask.MOVED_TO | Mask.MOVED_FROM | Mask.DELETE
_GONE = Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.UNMOUNT | Mask.IGNORED
_ANOTHER = _GONE | Mask.CREATE | Mask.MOVED_TO | Mask.MOVED_FROM | Mask.DELETE

_AGAIN = 60.0
"""Seconds until a kernel that granted no instance is asked for one again."""


class Interests:
    """Which service cares for which paths. All of it is only faster: a resync sees every change, later."""

    def __init__(self) -> None:
        self._paths: dict[str, frozenset[Path]] = {}
        self._services: defaultdict[Path, set[str]] = defaultdict(set)
        """The same by path: a busy neighbour in a folder must cost next to nothing."""
        self._wanted: Counter[Path] = Counter()
        self._watches: dict[Path, Watch] = {}
        self._inotify: Inotify | None = None
        self._refused: dict[Path, str] = {}
        """Why folders are not watched though they are there."""
        self._blind = ""
        """Why none is."""

    def blind(self, service: str) -> str:
        """Why not every change of the service's files is told, in half a sentence; empty where all are."""
        if not self._paths.get(service):
            return ""
        folders = (path.parent for path in self._paths[service])
        return self._blind or next((self._refused[folder] for folder in folders if folder in self._refused), "")

    def follow(self, service: str, root: Path, paths: Iterable[Path]) -> None:
        """Watches these files of a service and all that leads to them from `root` on, and nothing else of it."""
        before = self._paths.pop(service, frozenset())
        now = frozenset(step for path in paths for step in (path, *path.parents) if root in step.parents)
        if now:
            self._paths[service] = now
        for path in before - now:
            self._services[path].discard(service)
            if not self._services[path]:
                del self._services[path]
        for path in now - before:
            self._services[path].add(service)
        self._wanted.subtract(path.parent for path in before - now)
        self._wanted.update(path.parent for path in now - before)
        for folder in {path.parent for path in before | now}:
            self._adjust(folder)

    async def run(self, wake: Callable[[str], None]) -> None:
        """Calls `wake` with the name of each service whose files changed, for ever."""
        while True:
            try:
                with Inotify() as self._inotify:
                    self._blind = ""
                    for folder in list(self._wanted):
                        self._adjust(folder)
                    for service in list(self._paths):
                        wake(service)
                    async for event in self._inotify:
                        for service in self._affected(event):
                            wake(service)
            except OSError as error:
                self._blind = _limit(error, "instances")
                log.warning("cannot_watch", error=self._blind)
                for service in list(self._paths):
                    wake(service)
                await asyncio.sleep(_AGAIN)
            finally:
                self._inotify = None
                self._watches.clear()
                self._refused.clear()

    def _affected(self, event: Event) -> list[str]:
        path = event.path
        if event.mask & Mask.Q_OVERFLOW or path is None:
            return list(self._paths)
        if path not in self._services and path not in self._watches:
            return []
        if event.mask & _GONE and self._watches.get(path) is not event.watch:
            return []
        if event.mask & _ANOTHER:
            # What is below a folder that is another one now is watched anew once somebody looks at it.
            for folder in [one for one in self._watches if path == one or path in one.parents]:
                self._unwatch(folder)
        return list(self._services.get(path, ()))

    def _adjust(self, folder: Path) -> None:
        if self._wanted[folder] <= 0:
            del self._wanted[folder]
            self._unwatch(folder)
        elif self._inotify is not None and folder not in self._watches:
            self._watch(self._inotify, folder)

    def _watch(self, inotify: Inotify, folder: Path) -> None:
        """Folders that are missing are told of by those above them."""
        mask = _CHANGED | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ONLYDIR | Mask.DONT_FOLLOW
        try:
            self._watches[folder] = inotify.add_watch(folder, mask)
            self._refused.pop(folder, None)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                self._refused.pop(folder, None)
                return
            if not self._refused:  # the next thousand would say the same
                log.warning("cannot_watch", folder=str(folder), error=_limit(error, "watches"))
            self._refused[folder] = _limit(error, "watches")

    def _unwatch(self, folder: Path) -> None:
        self._refused.pop(folder, None)
        watch = self._watches.pop(folder, None)
        if watch is not None and self._inotify is not None:
            with suppress(OSError):  # the kernel drops those of folders that are gone by itself
                self._inotify.rm_watch(watch)


def _limit(error: OSError, what: str) -> str:
    """What the kernel says, and which of its limits that is."""
    if error.errno in (errno.ENOSPC, errno.EMFILE):
        return f"the kernel grants no more {what} (fs.inotify.max_user_{what})"
    return f"folders cannot be watched: {error.strerror}"
