"""The files that were pushed: each content once, and the last of what was pushed to each path.

Each method is one transaction. `push` and `remove` write desired state, as does
`restore` within a rollback; the others write what the reconciler did.
"""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Any, Final, TypeVar

from sqlalchemy import case, delete, func, select
from sqlalchemy.orm import Session

from api.conditions import ConditionType, Reason, Status
from api.errors import NotFound, Refused
from api.files import FileTarget, ServiceFile
from controller.registry.desired import DesiredState
from controller.registry.engines import Mode
from controller.registry.reading import as_model
from controller.registry.records import ChangeKind, ConditionUpdate, EventDraft
from controller.registry.store import Store, Transaction
from controller.registry.summary import summarized, updated
from controller.registry.tables import FileContentRow, FileRow, ServiceRow
from controller.registry.timeline import Timeline
from reconcilers.base import Clock

T = TypeVar("T")

MOST_FILES: Final = 500
"""Of one service."""

REMOVED_KEPT: Final = 50
"""Paths of one service that were taken back, of which a rollback may bring the files again."""

_MOST_REVISIONS: Final = 1000
"""Of one path, whatever the settings say; what is pushed leaves as many as they do."""

_PUSHED: Final = ("sha256", "size", "mode", "owner", "managed", "restart", "component", "removed")
"""What makes one revision of a file another than the one before."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of the files of a service that is brought back to an earlier generation."""

    files: tuple[ServiceFile, ...] = ()
    """Those that are laid down anew as they were then, and those that had been taken back by then."""
    lost: tuple[str, ...] = ()
    """Paths of which what was there then is not kept any more; they stay as they are."""

    def notes(self, generation: int) -> tuple[str, ...]:
        """What does not come back, each in one sentence."""
        return tuple(_lost(path, generation) for path in self.lost)


class PushedFiles:
    """The files of one node; implements reconcilers.files.model.FileStore. Every method raises RegistryUnavailable."""

    def __init__(self, store: Store, node: str, clock: Clock, timeline: Timeline, desired: DesiredState) -> None:
        self._store = store
        self._node = node
        self._clock = clock
        self._timeline = timeline
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
            rows = self._rows(transaction.session, service, path)
            wanted = self._taken_back(rows, path, service, delete)
            update = {**wanted, "revision": rows[-1].revision + 1, "actor": actor, "at": self._clock(), "laid": False}
            return _file(rows[-1]).model_copy(update=update)

        return await self._read(look)

    async def restorable(self, service: str, generation: int) -> Restored:
        """What a rollback would bring back: the files as they were pushed then."""
        return await self._read(lambda transaction: self.then(transaction, service, generation))

    def then(self, transaction: Transaction, service: str, generation: int) -> Restored:
        """What an earlier generation had otherwise when it ended, of what is kept."""
        found: list[ServiceFile] = []
        lost: list[str] = []
        for path, rows in groupby(self._rows(transaction.session, service), lambda row: row.path):
            kept = list(rows)
            then = [row for row in kept if row.generation <= generation]
            if not then:
                # Either it came later, or what came before is not kept any more.
                lost += [path] if kept[0].revision > 1 else []
            elif then[-1] is not kept[-1] and not (then[-1].removed and kept[-1].removed):
                wanted = {field: getattr(then[-1], field) for field in _PUSHED}
                if then[-1].removed:
                    wanted = self._taken_back(kept, path, service, delete=False)
                found.append(_file(then[-1]).model_copy(update={**wanted, "laid": False}))
        return Restored(tuple(found), tuple(lost))

    def restore(self, transaction: Transaction, service: str, restored: Restored, generation: int, actor: str) -> None:
        """Has files laid down as they were in an earlier generation, in a rollback's own transaction.

        What had been taken back by then is taken back again; a file whose path
        came later stays as it is.
        """
        row, cause = self._service(transaction.session, service), f"as in generation {generation}"
        for file in restored.files:
            wanted = {field: getattr(file, field) for field in _PUSHED}
            self._want(transaction, row, file.path, wanted, actor, cause)
            self._prune(transaction.session, service, file.path, _MOST_REVISIONS)
        if restored.files:
            self._ask(transaction, row)
        for path in restored.lost:
            draft = EventDraft("not restored", _lost(path, generation), actor, row.generation)
            self._timeline.add(transaction, service, draft, self._clock())

    async def history(self, service: str) -> tuple[ServiceFile, ...]:
        """All that is kept of a service's files, by path, oldest first."""
        return await self._read(lambda transaction: tuple(map(_file, self._rows(transaction.session, service))))

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
        service = self._service(session, target.service)
        _refuse_deleted(service)
        sha256 = hashlib.sha256(content).hexdigest()
        if session.get(FileContentRow, (self._node, sha256)) is None:
            session.add(FileContentRow(node=self._node, sha256=sha256, content=content))
        described = target.model_dump(exclude={"service", "path"})
        wanted = {"sha256": sha256, "size": len(content), "removed": False, **described}
        row = self._want(transaction, service, target.path, wanted, actor)
        self._prune(session, service.name, target.path, keep)
        self._ask(transaction, service)
        return _file(row)

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
        service = self._service(session, name)
        _refuse_deleted(service)
        rows = self._rows(session, name, path)
        if not (rows and rows[-1].removed and not rows[-1].current and forget):
            wanted = self._taken_back(rows, path, name, delete)
            rows.append(self._want(transaction, service, path, wanted, actor))
            self._ask(transaction, service)
        file = _file(rows[-1])
        self._prune(session, name, path, 0 if forget else keep)
        if file.laid:
            # Of what went before, nothing but the history was left.
            self._forget(transaction, name, path)
        return file

    def _taken_back(self, rows: Sequence[FileRow], path: str, service: str, delete: bool) -> dict[str, Any]:
        """What makes the removal of a path a revision like any other: it says what of ours may lie there."""
        if not rows or not rows[-1].current:
            raise NotFound(f"nothing of {service} is kept at {path}: mcp files {service} lists what is")
        # What was laid down before another removal that is done with lies there no more.
        since = takewhile(lambda row: not (row.removed and row.laid), reversed(rows))
        asked = rows[-1] if rows[-1].removed else None
        laid = asked or next((row for row in since if row.ever_laid), None)
        fields = {field: getattr(laid or rows[-1], field) for field in _PUSHED}
        managed = laid is not None and (laid.managed or delete)
        return fields | {"managed": managed, "restart": False, "component": "", "removed": True}

    def _want(
        self,
        transaction: Transaction,
        service: ServiceRow,
        path: str,
        wanted: dict[str, Any],
        actor: str,
        cause: str = "",
    ) -> FileRow:
        """The row of what is wanted at the path from now on; the same once more is to be laid down once more."""
        session, now = transaction.session, self._clock()
        rows = self._rows(session, service.name, path)
        row = rows[-1] if rows and rows[-1].current else None
        if row is None:
            self._refuse_too_many(session, service.name)
        if row is not None and all(getattr(row, name) == wanted[name] for name in _PUSHED):
            row.laid, row.actor, row.at = False, actor, now
        else:
            revision = rows[-1].revision if rows else 0
            if row is not None:
                row.current = False
                session.flush()
            row = FileRow(
                node=self._node,
                service=service.name,
                path=path,
                revision=revision + 1,
                actor=actor,
                at=now,
                generation=service.generation,
                current=True,
                laid=False,
                ever_laid=False,
                **wanted,
            )
            session.add(row)
        kind, message = "unpushed" if row.removed else "pushed", f"{path}, revision {row.revision}"
        draft = EventDraft(kind, f"{message}, {cause}" if cause else message, actor, service.generation)
        self._timeline.add(transaction, service.name, draft, now)
        return row

    def _ask(self, transaction: Transaction, service: ServiceRow) -> None:
        """Has the files looked at, and nobody take what was found before for an answer."""
        kind, generation = ConditionType.FILES_IN_PLACE, service.generation
        update = ConditionUpdate(kind, Status.UNKNOWN, Reason.PENDING, "files were pushed or taken back", generation)
        conditions = updated(service.conditions, update, self._clock())
        service.conditions = summarized(conditions, generation, self._clock())
        transaction.changed(service.name, ChangeKind.FILES)

    def _laid(self, transaction: Transaction, service: str, path: str, revision: int, changed: bool) -> None:
        session = transaction.session
        query = select(FileRow).where(*self._of(service), FileRow.path == path, FileRow.revision == revision)
        row = session.scalar(query.where(FileRow.current).with_for_update())
        if row is None or row.laid:
            return
        before = session.scalar(
            select(FileRow.sha256)
            .where(*self._of(service), FileRow.path == path, FileRow.ever_laid)
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
        rows = self._rows(session, service, path)
        if not rows or (rows[-1].revision, rows[-1].removed, rows[-1].current) != (revision, True, True):
            return
        rows[-1].current, rows[-1].laid = False, True
        session.flush()
        if len(rows) == 1:  # nothing leads back to what was before
            session.delete(rows[-1])
        wanted = func.sum(case((FileRow.current, 1), else_=0))
        ended = select(FileRow.path).where(*self._of(service)).group_by(FileRow.path).having(wanted == 0)
        for old in session.scalars(ended.order_by(func.max(FileRow.at).desc()).offset(REMOVED_KEPT)).all():
            session.execute(delete(FileRow).where(*self._of(service), FileRow.path == old))
        session.flush()
        self._collect(session)
        transaction.changed(service, ChangeKind.FILE_LAID)

    def _forget(self, transaction: Transaction, service: str, path: str) -> None:
        gone = delete(FileRow).where(*self._of(service), FileRow.path == path)
        transaction.session.execute(gone)
        self._collect(transaction.session)
        transaction.changed(service, ChangeKind.FILE_LAID)

    def _prune(self, session: Session, service: str, path: str, keep: int) -> None:
        session.flush()
        ours = (*self._of(service), FileRow.path == path)
        newest_to_forget = (
            select(FileRow.revision).where(*ours).order_by(FileRow.revision.desc()).offset(keep + 1).limit(1)
        )
        session.execute(delete(FileRow).where(*ours, FileRow.revision <= newest_to_forget.scalar_subquery()))
        self._collect(session)

    def _collect(self, session: Session) -> None:
        """Drops the contents that no file has."""
        used = select(FileRow.sha256).where(FileRow.node == self._node, FileRow.removed.is_(False))
        unused = delete(FileContentRow).where(FileContentRow.node == self._node, FileContentRow.sha256.not_in(used))
        session.execute(unused.execution_options(synchronize_session=False))

    def _refuse_too_many(self, session: Session, service: str) -> None:
        count = session.scalar(select(func.count()).select_from(FileRow).where(*self._of(service), FileRow.current))
        if (count or 0) >= MOST_FILES:
            raise Refused(f'service "{service}" has {MOST_FILES} files: more are kept for none')

    def _rows(self, session: Session, service: str, path: str = "") -> list[FileRow]:
        """All that is kept of a service's files, or of one path, by path, oldest first."""
        query = select(FileRow).where(*self._of(service), *([FileRow.path == path] if path else []))
        return list(session.scalars(query.order_by(FileRow.path, FileRow.revision)))

    def _service(self, session: Session, name: str) -> ServiceRow:
        row = session.get(ServiceRow, (self._node, name), with_for_update=True)
        if row is None:
            raise NotFound(f'there is no service "{name}" on node {self._node}: apply it first')
        return row

    def _of(self, service: str) -> tuple[Any, ...]:
        return FileRow.node == self._node, FileRow.service == service

    async def _read(self, work: Callable[[Transaction], T]) -> T:
        return await self._store.run(work, Mode.READ)

    async def _write(self, work: Callable[[Transaction], T]) -> T:
        return await self._store.run(work, Mode.DURABLE)


def _refuse_deleted(service: ServiceRow) -> None:
    if service.deletion_requested_at is not None:
        raise Refused(f'service "{service.name}" is being deleted: apply it again once it is gone')


def _lost(path: str, generation: int) -> str:
    return f"{path}: what was pushed until generation {generation} is not kept any more"


def _file(row: FileRow) -> ServiceFile:
    return as_model(ServiceFile, row)
