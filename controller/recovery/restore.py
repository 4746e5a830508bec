"""Leads back from a snapshot: it is verified first, what was there is kept aside, and nothing runs differently yet.

Every service is suspended by it. An older registry knows older definitions: an
agent that made them true at once would roll back what runs, and nobody would
have asked for that. It says what it would do, and waits for `mcp resume`.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from api.errors import Refused
from api.service import Suspension
from controller.recovery import archive, history, postgres, snapshot, sqlite
from controller.recovery.archive import Manifest
from controller.registry import copies, utc_now
from controller.settings import Settings

ACTOR: Final = "mcp-agent restore"

_BESIDE: Final = ("", "-wal", "-shm")
"""What belongs to a SQLite database. A log that outlived its database would be played into the next one."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How a restore is to be done."""

    node: str | None = None
    """The node of the snapshot, where it is another one than this agent's."""
    force: bool = False
    """Also where something is there already."""
    dry_run: bool = False
    """Verify only."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What was, or would be, restored."""

    manifest: Manifest
    services: int
    there: tuple[str, ...]
    """What was there before."""
    aside: Path | None
    """Where that lies now; None: nothing was there, or nothing was done."""


def restore(settings: Settings, file: Path, wish: Wish) -> Restored:
    """Puts a snapshot in the place of what the agent keeps. Blocks.

    Raises Refused, having changed nothing, where the snapshot is damaged, of
    another node or of a newer version, and where there is something already;
    RegistryUnavailable where an agent runs.
    """
    recovery = Path(settings.state_dir) / history.RECOVERY
    try:
        recovery.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=recovery, prefix="staged-") as staged:
            return _Restore(settings, file, wish, Path(staged)).run()
    except OSError as error:
        raise Refused(f"{file} cannot be restored: {error.strerror}: {error.filename}") from error


class _Restore:
    """One restore, whose parts are laid down in a folder of their own first."""

    def __init__(self, settings: Settings, file: Path, wish: Wish, staged: Path) -> None:
        self._settings = settings
        self._url = settings.registry_url
        self._database = copies.database_file(self._url)
        self._file = file
        self._wish = wish
        self._staged = staged
        self._entries: tuple[Path, ...] = ()
        """Where the parts go that lie in the agent's folder."""
        self._aside = staged.parent / f"replaced-{utc_now():%Y%m%dT%H%M%S.%fZ}"

    def run(self) -> Restored:
        manifest = archive.unpack(self._file, self._staged)
        state = self._staged / snapshot.STATE
        if state.exists():
            self._entries = tuple(Path(self._settings.state_dir) / path.name for path in sorted(state.iterdir()))
        self._verify(manifest)
        with self._alone():
            there = self._there()
            if self._wish.dry_run:
                return Restored(manifest, manifest.services, there, None)
            if there and not self._wish.force:
                raise Refused(
                    f"there is {' and '.join(there)} already: with --force it is kept aside, in {self._aside.parent}"
                )
            services = self._replace(manifest, there)
        return Restored(manifest, services, there, self._aside if there else None)

    def _verify(self, manifest: Manifest) -> None:
        ours, node = self._settings.node, self._wish.node or self._settings.node
        if manifest.node != node:
            if manifest.node == ours:
                raise Refused(f"{self._file} is of node {ours}, as this is, and not of {node}: leave out --node")
            raise Refused(
                f"{self._file} is of node {manifest.node}, and this is {ours}:"
                f" --node {manifest.node} gives its services to {ours}"
            )
        kind = "postgresql" if self._database is None else "sqlite"
        if manifest.database != kind:
            raise Refused(f"{self._file} is of a registry in {manifest.database}, and the settings name one in {kind}")
        if self._database is None and manifest.node != ours:
            raise Refused(f"a registry in postgresql has all nodes: restore it as {manifest.node}, which knows its own")
        if not copies.is_known(manifest.schema_revision):
            raise Refused(
                f"{self._file} was written by MCP {manifest.version}, whose schema {manifest.schema_revision} this"
                " version does not know: install that version"
            )
        if self._database is not None:
            revision, _ = sqlite.check(self._staged / snapshot.REGISTRY)
            if revision != manifest.schema_revision:
                raise Refused(f"{self._file} is damaged: its registry has schema {revision}; nothing was changed")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No agent runs meanwhile. Raises RegistryUnavailable, Refused."""
        if self._database is None:
            if count := copies.others(self._url):
                raise Refused(f"the registry has {count} other sessions: end the agents of all its nodes first")
            yield
            return
        with copies.held(self._database):
            yield

    def _there(self) -> tuple[str, ...]:
        """What would be replaced, in words."""
        found = []
        if self._database is None:
            if count := copies.services(self._url):
                found.append(f"a registry of {count} services")
        elif self._database.stat().st_size:
            found.append(f"the registry {self._database}")
        found += [str(path) for path in self._entries if path.exists()]
        return tuple(found)

    def _replace(self, manifest: Manifest, there: tuple[str, ...]) -> int:
        suspension = _suspension(manifest.taken_at)
        copy = self._staged / snapshot.REGISTRY
        if self._database is not None:
            services = self._adopt(f"sqlite:///{copy}", manifest, suspension)
        self._aside.mkdir(mode=0o700)
        moves = _Moves()
        try:
            for entry in self._entries:
                moves.away(entry, self._aside / entry.name)
                moves.move(self._staged / snapshot.STATE / entry.name, entry)
            if self._database is not None:
                self._replace_file(self._database, copy, moves)
            else:
                if copies.revision(self._url) is not None:
                    postgres.copy(self._url, self._aside / snapshot.DUMP)
                postgres.replace(self._url, self._staged / snapshot.DUMP, self._staged)
                services = self._adopt(self._url, manifest, suspension)
        except BaseException:
            moves.undo()
            raise
        archive.sync_folder(Path(self._settings.state_dir))
        if not there:
            # Of the registry that was locked, and empty.
            shutil.rmtree(self._aside)
        self._hand_over()
        return services

    def _hand_over(self) -> None:
        """What root laid down is the agent's, whose folder it is."""
        owner = Path(self._settings.state_dir).stat()
        if os.geteuid() != 0:
            return
        roots = [*self._entries, self._staged.parent]
        if self._database is not None:
            roots += [self._database, self._database.with_name(f"{self._database.name}.lock")]
        for path in (one for root in roots for one in (root, *root.rglob("*"))):
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)

    def _adopt(self, url: str, manifest: Manifest, suspension: Suspension) -> int:
        return copies.adopt(
            url,
            manifest.schema_revision,
            old_node=manifest.node,
            node=self._settings.node,
            suspension=suspension,
        )

    def _replace_file(self, database: Path, copy: Path, moves: "_Moves") -> None:
        # On the registry's own disk: only then is it there in one moment.
        beside = database.with_name(f"{database.name}.restored")
        shutil.copyfile(copy, beside)
        beside.chmod(0o600)
        archive.sync_file(beside)
        for suffix in _BESIDE:
            name = f"{database.name}{suffix}"
            moves.away(database.with_name(name), self._aside / name)
        moves.move(beside, database)
        archive.sync_folder(database.parent)


class _Moves:
    """Renames that can be taken back."""

    def __init__(self) -> None:
        self._done: list[tuple[Path, Path]] = []

    def move(self, old: Path, new: Path) -> None:
        """Raises OSError."""
        shutil.move(old, new)
        self._done.append((old, new))

    def away(self, old: Path, new: Path) -> None:
        """The same, where there is anything."""
        if old.exists():
            self.move(old, new)

    def undo(self) -> None:
        """As it was."""
        for old, new in reversed(self._done):
            shutil.move(new, old)


def _suspension(taken_at: datetime) -> Suspension:
    return Suspension(
        actor=ACTOR, at=utc_now(), reason=f"restored from the snapshot of {taken_at:%Y-%m-%d %H:%M:%S} UTC"
    )
