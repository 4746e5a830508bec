"""Takes snapshots: all that nobody could tell an agent again, in one file, while the agent runs.

That is the registry and what lies beside it in the agent's folder: the CA,
accounts with other CAs, orders under way. Containers, routes and issued
certificates are not in it: the agent makes them anew, or finds them.
"""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from api.errors import Refused, RegistryUnavailable
from controller.recovery import archive, history, postgres, sqlite
from controller.recovery.archive import Folder, Manifest, Source
from controller.registry import copies, utc_now
from controller.settings import Settings

REGISTRY: Final = "registry.db"
"""The part that is the registry, of SQLite."""
DUMP: Final = "registry.sql"
"""The part that is the registry, of PostgreSQL."""
STATE: Final = "state"
"""The parts below it lie in the agent's folder."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot, and what went for it."""

    file: Path
    manifest: Manifest
    removed: tuple[Path, ...]


def take(settings: Settings, folder: Path | None = None) -> Taken:
    """Makes a snapshot in `folder`, or in the one of the settings, where the oldest then go.

    Raises Refused, RegistryUnavailable. Blocks.
    """
    try:
        return _taken(settings, folder or history.folder(settings), keep_all=folder is not None)
    except (Refused, RegistryUnavailable) as error:
        history.failed(settings, error.message)
        raise


def _taken(settings: Settings, target: Path, *, keep_all: bool) -> Taken:
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".snapshot-") as scratch:
            file, manifest = _take(settings, target, Path(scratch))
        removed = () if keep_all else _thin_out(target, settings.node, settings.snapshot.keep)
    except OSError as error:
        raise Refused(f"no snapshot can be made in {target}: {error.strerror}: {error.filename}") from error
    return Taken(file, manifest, removed)


def _take(settings: Settings, target: Path, scratch: Path) -> tuple[Path, Manifest]:
    database = copies.database_file(settings.registry_url)
    # What is in the folder first: a certificate's record without its account is worse than the other way round.
    folders, kept = _kept(settings, database, target, scratch)
    if database is not None:
        if not database.exists():
            raise Refused(f"there is no registry {database}: the agent of these settings never ran")
        registry = Source(REGISTRY, scratch / REGISTRY)
        sqlite.copy(database, registry.file)
        revision, services = sqlite.check(registry.file)
    else:
        registry = Source(DUMP, scratch / DUMP)
        revision, services = copies.revision(settings.registry_url) or "", copies.services(settings.registry_url)
        postgres.copy(settings.registry_url, registry.file)
    sources = (registry, *kept)
    manifest = Manifest(
        version=version("metacircular-mcp"),
        schema_revision=revision,
        node=settings.node,
        database="postgresql" if database is None else "sqlite",
        taken_at=utc_now(),
        services=services,
        folders=folders,
        parts=tuple(archive.describe(source) for source in sources),
    )
    file = target / history.file_name(manifest.node, manifest.taken_at)
    archive.write(file, manifest, sources)
    return file, manifest


def _kept(
    settings: Settings, database: Path | None, target: Path, scratch: Path
) -> tuple[tuple[Folder, ...], tuple[Source, ...]]:
    """The agent's folder but for the registry, copied so that nothing changes any more."""
    root = Path(settings.state_dir)
    folders: list[Folder] = []
    sources: list[Source] = []
    for path in _below(root, {target, history.folder(settings), root / history.RECOVERY}):
        name = f"{STATE}/{path.relative_to(root)}"
        if path.is_dir():
            folders.append(Folder(path=name, mode=stat.S_IMODE(path.stat().st_mode) & 0o777))
        elif database is None or not _is_of(database, path):
            with suppress(FileNotFoundError):  # it is gone meanwhile, as temporary files are
                copy = scratch / f"{len(sources)}"
                copy.write_bytes(path.read_bytes())
                copy.chmod(stat.S_IMODE(path.stat().st_mode))
                sources.append(Source(name, copy))
    return tuple(folders), tuple(sources)


def _below(root: Path, without: set[Path]) -> Iterator[Path]:
    """Folders, and regular files that are no temporary ones, in order."""
    for path, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if Path(path, name) not in without)
        yield from (Path(path, name) for name in folders)
        for name in sorted(files):
            if stat.S_ISREG(Path(path, name).lstat().st_mode):
                yield Path(path, name)


def _is_of(database: Path, path: Path) -> bool:
    """Whether the file is the registry's, or one that SQLite or the agent lays beside it."""
    return path.parent == database.parent and path.name.startswith(database.name)


def _thin_out(folder: Path, node: str, keep: int) -> tuple[Path, ...]:
    """Removes the node's oldest snapshots but for the newest `keep`."""
    old = tuple(history.snapshots(folder, node))[:-keep]
    for path in old:
        path.unlink()
    return old
