"""The files that were pushed: each content once, and the last of what was pushed to each path.

Each method is one transaction. `push` and `remove` write desired state, the
others what the reconciler did.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

from sqlalchemy import case, delete, func, select

from api.errors import NotFound, Refused
from api.files import FileTarget, ServiceFile
from controller.registry.desired import DesiredState
from controller.registry.engines import Mode
from controller.registry.file_rows import FileRows, Restored, as_file
from controller.registry.records import ChangeKind
from controller.registry.store import Store, Transaction
from controller.registry.tables import FileContentRow, FileRow
from reconcilers.base import Clock

T = TypeVar("T")

REMOVED_KEPT: Final = 50
"""Paths of one service that were taken back, of which a rollback may bring the files again."""


class PushedFiles:
    """The files of one node; implements reconcilers.files.model.FileStore. Every method raises RegistryUnavailable."""

    def __init__(self, store: Store, node: str, clock: Clock, rows: FileRows, desired: DesiredState) -> None:
        self._store = store
        self._node = node
        self._clock = clock
        self._rows = rows
        self._desired = desired

    async def push(self, target: FileTarget, content: bytes, *, actor: str, keep: int) -> ServiceFile:
        """Keeps a file, and the `keep` revisions of its path that came last; it is to be laid down, once more too.

        Raises NotFound without the service, Refused while it is deleted or has too many files.
        """
        return await self._write(lambda transaction: self._push(transaction, target, content, actor, keep))

    async def remove(
        self, service: str, path: str, *, actor: str, keep: int, delete: bool = False, forget: bool = False
    ) -> ServiceFile:
        """Notes that nothing is wanted at the path any more; what lies there is the reconciler's to judge.

        With `delete` it may go though it is not managed, with `forget` no earlier revision stays. Once more changes
        nothing but that. Raises NotFound without the service or such a file, Refused while the service is deleted.
        """
        return await self._write(
            lambda transaction: self._remove(transaction, service, path, actor, keep, delete, forget)
        )

    async def removal(self, service: str, path: str, *, actor: str, delete: bool = False) -> ServiceFile:
        """What `remove` would write. Raises NotFound."""

        def look(transaction: Transaction) -> ServiceFile:
            rows = self._rows.kept(transaction.session, service, path)
            wanted = self._rows.taken_back(rows, path, service, delete)
            update = {**wanted, "revision": rows[-1].revision + 1, "actor": actor, "at": self._clock(), "laid": False}
            return as_file(rows[-1]).model_copy(update=update)

        return await self._read(look)

    async def restorable(self, service: str, generation: int) -> Restored:
        """What a rollback would bring back: the files as they were pushed then."""
        return await self._read(lambda transaction: self._rows.then(transaction, service, generation))

    async def history(self, service: str) -> tuple[ServiceFile, ...]:
        """All that is kept of a service's files, by path, oldest first."""
        return await self._read(lambda transaction: tuple(map(as_file, self._rows.kept(transaction.session, service))))

    async def content(self, sha256: str) -> bytes | None:
        """The content with that hash; None where no file has it any more."""
        query = select(FileContentRow.content).where(FileContentRow.node == self._node, FileContentRow.sha256 == sha256)
        return await self._read(lambda transaction: transaction.session.scalar(query))

    async def laid(self, service: str, path: str, revision: int, *, changed: bool) -> None:
        """Notes that the revision lies on the disk, if it is still the one that is wanted."""
        await self._write(lambda transaction: self._laid(transaction, service, path, revision, changed))

    async def gone(self, service: str, path: str, revision: int) -> None:
        """Notes that what was taken back is done with, unless something was pushed there meanwhile."""
        await self._write(lambda transaction: self._gone(transaction, service, path, revision))

    async def forget(self, service: str, path: str) -> None:
        """Drops all that is known of the file, with its history."""
        await self._write(lambda transaction: self._forget(transaction, service, path))

    def _push(self, transaction: Transaction, target: FileTarget, content: bytes, actor: str, keep: int) -> ServiceFile:
        session = transaction.session
        service = self._rows.service(session, target.service)
        sha256 = hashlib.sha256(content).hexdigest()
        if session.get(FileContentRow, (self._node, sha256)) is None:
            session.add(FileContentRow(node=self._node, sha256=sha256, content=content))
        described = target.model_dump(exclude={"service", "path"})
        wanted = {"sha256": sha256, "size": len(content), "removed": False, **described}
        row = self._rows.want(transaction, service, target.path, wanted, actor)
        self._rows.prune(session, service.name, target.path, keep)
        self._rows.ask(transaction, service)
        return as_file(row)

    def _remove(
        self,
        transaction: Transaction,
        name: str,
        path: str,
        actor: str,
        keep: int,
        delete: bool,
        forget: bool,
    ) -> ServiceFile:
        session = transaction.session
        service = self._rows.service(session, name)
        rows = self._rows.kept(session, name, path)
        if not (rows and rows[-1].removed and not rows[-1].current and forget):
            wanted = self._rows.taken_back(rows, path, name, delete)
            rows.append(self._rows.want(transaction, service, path, wanted, actor))
            self._rows.ask(transaction, service)
        file = as_file(rows[-1])
        self._rows.prune(session, name, path, 0 if forget else keep)
        if file.laid:
            # Of what went before, nothing but the history was left.
            self._forget(transaction, name, path)
        return file

    def _laid(self, transaction: Transaction, service: str, path: str, revision: int, changed: bool) -> None:
        session = transaction.session
        query = select(FileRow).where(*self._rows.of(service), FileRow.path == path, FileRow.revision == revision)
        row = session.scalar(query.where(FileRow.current).with_for_update())
        if row is None or row.laid:
            return
        before = session.scalar(
            select(FileRow.sha256)
            .where(*self._rows.of(service), FileRow.path == path, FileRow.ever_laid)
            .order_by(FileRow.revision.desc())
            .limit(1)
        )
        row.laid = row.ever_laid = True
        transaction.changed(service, ChangeKind.FILE_LAID)
        # The agent may have ended between laying it down and noting it: then the disk tells nothing of the change.
        if row.restart and (changed or before != row.sha256):
            with suppress(Refused, NotFound):  # what is stopped or gone has nothing to be made anew
                self._desired.restart(transaction, service, row.component, row.actor, self._clock())

    def _gone(self, transaction: Transaction, service: str, path: str, revision: int) -> None:
        session = transaction.session
        rows = self._rows.kept(session, service, path)
        if not rows or (rows[-1].revision, rows[-1].removed, rows[-1].current) != (revision, True, True):
            return
        rows[-1].current, rows[-1].laid = False, True
        session.flush()
        if len(rows) == 1:  # nothing leads back to what was before
            session.delete(rows[-1])
        wanted = func.sum(case((FileRow.current, 1), else_=0))
        ended = select(FileRow.path).where(*self._rows.of(service)).group_by(FileRow.path).having(wanted == 0)
        for old in session.scalars(ended.order_by(func.max(FileRow.at).desc()).offset(REMOVED_KEPT)).all():
            session.execute(delete(FileRow).where(*self._rows.of(service), FileRow.path == old))
        session.flush()
        self._rows.collect(session)
        transaction.changed(service, ChangeKind.FILE_LAID)

    def _forget(self, transaction: Transaction, service: str, path: str) -> None:
        gone = delete(FileRow).where(*self._rows.of(service), FileRow.path == path)
        transaction.session.execute(gone)
        self._rows.collect(transaction.session)
        transaction.changed(service, ChangeKind.FILE_LAID)

    async def _read(self, work: Callable[[Transaction], T]) -> T:
        return await self._store.run(work, Mode.READ)

    async def _write(self, work: Callable[[Transaction], T]) -> T:
        return await self._store.run(work, Mode.DURABLE)
