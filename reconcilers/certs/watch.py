"""Tells at once, by inotify, when somebody touches a folder that may come and go."""

from collections.abc import AsyncIterator
from pathlib import Path

from asyncinotify import Inotify, Mask

_CHANGED = Mask.CLOSE_WRITE | Mask.MOVED_TO | Mask.MOVED_FROM | Mask.DELETE
_GONE = Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.UNMOUNT | Mask.IGNORED
_APPEARED = Mask.CREATE | Mask.MOVED_TO


async def changes(folder: Path) -> AsyncIterator[Path | None]:
    """Each file in `folder` that was written, replaced or removed; None: any of them may have been.

    None comes whenever nobody watched for a moment: at first, and when the
    folder went or came. Raises OSError where the kernel grants no watch.
    """
    while True:
        with Inotify() as inotify:
            if _watch(inotify, folder):
                yield None
                async for event in inotify:
                    if event.mask & _GONE:
                        # Whoever needs the folder makes it anew: to wait for that in silence would be to wait for ever.
                        yield None
                        break
                    yield folder / event.name if event.name else None
            else:
                await _appearance(inotify, folder)


def _watch(inotify: Inotify, folder: Path) -> bool:
    try:
        inotify.add_watch(folder, _CHANGED | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ONLYDIR)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


async def _appearance(inotify: Inotify, folder: Path) -> None:
    """Returns once the first missing part of the folder's path may be there."""
    for part in reversed([folder, *folder.parents[:-1]]):
        try:
            inotify.add_watch(part.parent, _APPEARED | Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.ONLYDIR)
        except (FileNotFoundError, NotADirectoryError):
            return
        if not part.is_dir():
            async for event in inotify:
                if event.mask & _GONE or (event.name and str(event.name) == part.name):
                    return
