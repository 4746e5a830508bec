"""The files that were pushed: each content once, and the last of what was pushed to each path.

Each method is one transaction. `push` and `restore` write desired state, the
others what the reconciler did.
"""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from sqlalchemy import delete, func, select
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

_PUSHED: Final = ("sha256", "size", "mode", "owner", "managed", "restart", "component")
"""What makes one revision of a file another than the one before."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of the files of a service that is brought back to an earlier generation."""

    files: tuple[ServiceFile, ...] = ()
    """Those that are laid down anew, as they were then."""
    lost: tuple[str, ...] = ()
    """Paths of which what was there then is not kept any more; they stay as they are."""


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

    async def restore(self, service: str, generation: int, *, actor: str) -> Restored:
        """Has the files laid down that were pushed last when the service was at that generation. Raises NotFound.

        A file whose path came later stays as it is: nothing is taken from the disk.
        """
        return await self._write(lambda transaction: self._restore(transaction, service, generation, actor))

    async def history(self, service: str) -> tuple[ServiceFile, ...]:
        """All that is kept of a service's files, by path, oldest first."""
        query = select(FileRow).where(*self._of(service)).order_by(FileRow.path, FileRow.revision)
        return await self._read(lambda transaction: tuple(map(_file, transaction.session.scalars(query))))

    async def content(self, sha256: str) -> bytes | None:
        """The content with that hash; None where no file has it any more."""
        query = select(FileContentRow.content).where(FileContentRow.node == self._node, FileContentRow.sha256 == sha256)
        return await self._read(lambda transaction: transaction.session.scalar(query))

    async def laid(self, service: str, path: str, revision: int, *, changed: bool) -> None:
        """Notes that the revision lies on the disk, if it is still the one that is wanted."""
        await self._write(lambda transaction: self._laid(transaction, service, path, revision, changed))

    async def forget(self, service: str, path: str) -> None:
        """Drops all that is known of the file, with its history."""
        await self._write(lambda transaction: self._forget(transaction, service, path))

    def _push(self, transaction: Transaction, target: FileTarget, content: bytes, actor: str, keep: int) -> ServiceFile:
        session = transaction.session
        service = self._service(session, target.service)
        if service.deletion_requested_at is not None:
            raise Refused(f'service "{service.name}" is being deleted: apply it again once it is gone')
        sha256 = hashlib.sha256(content).hexdigest()
        if session.get(FileContentRow, (self._node, sha256)) is None:
            session.add(FileContentRow(node=self._node, sha256=sha256, content=content))
        wanted = {"sha256": sha256, "size": len(content), **target.model_dump(exclude={"service", "path"})}
        row = self._want(transaction, service, target.path, wanted, actor)
        self._prune(session, service.name, target.path, keep)
        self._ask(transaction, service)
        return _file(row)

    def _want(
        self, transaction: Transaction, service: ServiceRow, path: str, wanted: dict[str, object], actor: str
    ) -> FileRow:
        """The row of what is wanted at the path from now on; the same once more is to be laid down once more."""
        session, now = transaction.session, self._clock()
        row = session.scalar(select(FileRow).where(*self._of(service.name), FileRow.path == path, FileRow.current))
        if row is None:
            self._refuse_too_many(session, service.name)
        if row is not None and all(getattr(row, name) == wanted[name] for name in _PUSHED):
            row.laid, row.actor, row.at = False, actor, now
        else:
            revision = 0 if row is None else row.revision
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
        draft = EventDraft("pushed", f"{path}, revision {row.revision}", actor, service.generation)
        self._timeline.add(transaction, service.name, draft, now)
        return row

    def _restore(self, transaction: Transaction, name: str, generation: int, actor: str) -> Restored:
        session = transaction.session
        service = self._service(session, name)
        rows = session.scalars(select(FileRow).where(*self._of(name)).order_by(FileRow.path, FileRow.revision)).all()
        found: list[ServiceFile] = []
        lost: list[str] = []
        for path in sorted({row.path for row in rows}):
            kept = [row for row in rows if row.path == path]
            then = [row for row in kept if row.generation <= generation]
            if not then:
                # Either it came later, or what came before is not kept any more.
                lost += [path] if kept[0].revision > 1 else []
            elif not then[-1].current:
                wanted = {field: getattr(then[-1], field) for field in _PUSHED}
                found.append(_file(self._want(transaction, service, path, wanted, actor)))
        if found:
            self._ask(transaction, service)
        for path in lost:
            message = f"{path}: what was pushed until generation {generation} is not kept any more"
            draft = EventDraft("not restored", message, actor, service.generation)
            self._timeline.add(transaction, name, draft, self._clock())
        return Restored(tuple(found), tuple(lost))

    def _ask(self, transaction: Transaction, service: ServiceRow) -> None:
        """Has the files looked at, and nobody take what was found before for an answer."""
        kind, generation = ConditionType.FILES_IN_PLACE, service.generation
        update = ConditionUpdate(kind, Status.UNKNOWN, Reason.PENDING, "a file was pushed", generation)
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
        used = select(FileRow.sha256).where(FileRow.node == self._node)
        unused = delete(FileContentRow).where(FileContentRow.node == self._node, FileContentRow.sha256.not_in(used))
        session.execute(unused.execution_options(synchronize_session=False))

    def _refuse_too_many(self, session: Session, service: str) -> None:
        count = session.scalar(select(func.count()).select_from(FileRow).where(*self._of(service), FileRow.current))
        if (count or 0) >= MOST_FILES:
            raise Refused(f'service "{service}" has {MOST_FILES} files: more are kept for none')

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


def _file(row: FileRow) -> ServiceFile:
    return as_model(ServiceFile, row)
