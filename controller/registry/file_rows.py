"""What is kept of the files of a node's services: the rows, and what one wish makes of them.

Each function is a part of one transaction; see controller.registry.files for
the whole of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Any, Final

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from api.conditions import ConditionType, Reason, Status
from api.errors import NotFound, Refused
from api.files import ServiceFile
from controller.registry.reading import as_model
from controller.registry.records import ChangeKind, ConditionUpdate, EventDraft
from controller.registry.store import Transaction
from controller.registry.summary import summarized, updated
from controller.registry.tables import FileContentRow, FileRow, ServiceRow
from controller.registry.timeline import Timeline
from reconcilers.base import Clock

MOST_FILES: Final = 500
"""Of one service."""

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


class FileRows:
    """The rows of one node's files."""

    def __init__(self, node: str, clock: Clock, timeline: Timeline) -> None:
        self._node = node
        self._clock = clock
        self._timeline = timeline

    def then(self, transaction: Transaction, service: str, generation: int) -> Restored:
        """What an earlier generation had otherwise when it ended, of what is kept."""
        found: list[ServiceFile] = []
        lost: list[str] = []
        for path, rows in groupby(self.kept(transaction.session, service), lambda row: row.path):
            kept = list(rows)
            then = [row for row in kept if row.generation <= generation]
            if not then:
                # Either it came later, or what came before is not kept any more.
                lost += [path] if kept[0].revision > 1 else []
            elif then[-1] is not kept[-1] and not (then[-1].removed and kept[-1].removed):
                wanted = {field: getattr(then[-1], field) for field in _PUSHED}
                if then[-1].removed:
                    wanted = self.taken_back(kept, path, service, delete=False)
                found.append(as_file(then[-1]).model_copy(update={**wanted, "laid": False}))
        return Restored(tuple(found), tuple(lost))

    def restore(self, transaction: Transaction, service: str, restored: Restored, generation: int, actor: str) -> None:
        """Has files laid down as they were in an earlier generation, in a rollback's own transaction.

        What had been taken back by then is taken back again; a file whose path
        came later stays as it is.
        """
        row, cause = self.service(transaction.session, service), f"as in generation {generation}"
        for file in restored.files:
            wanted = {field: getattr(file, field) for field in _PUSHED}
            self.want(transaction, row, file.path, wanted, actor, cause)
            self.prune(transaction.session, service, file.path, _MOST_REVISIONS)
        if restored.files:
            self.ask(transaction, row)
        for path in restored.lost:
            draft = EventDraft("not restored", _lost(path, generation), actor, row.generation)
            self._timeline.add(transaction, service, draft, self._clock())

    def want(
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
        rows = self.kept(session, service.name, path)
        row = rows[-1] if rows and rows[-1].current else None
        if row is None:
            self._refuse_too_many(session, service.name)
        wanted = wanted | _still_asked(row, wanted)
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

    def taken_back(self, rows: Sequence[FileRow], path: str, service: str, delete: bool) -> dict[str, Any]:
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

    def ask(self, transaction: Transaction, service: ServiceRow) -> None:
        """Has the files looked at, and nobody take what was found before for an answer."""
        kind, generation = ConditionType.FILES_IN_PLACE, service.generation
        update = ConditionUpdate(kind, Status.UNKNOWN, Reason.PENDING, "files were pushed or taken back", generation)
        conditions = updated(service.conditions, update, self._clock())
        service.conditions = summarized(conditions, generation, self._clock())
        transaction.changed(service.name, ChangeKind.FILES)

    def prune(self, session: Session, service: str, path: str, keep: int) -> None:
        """Drops the revisions of a path but for the newest and `keep` before it."""
        session.flush()
        ours = (*self.of(service), FileRow.path == path)
        newest_to_forget = (
            select(FileRow.revision).where(*ours).order_by(FileRow.revision.desc()).offset(keep + 1).limit(1)
        )
        session.execute(delete(FileRow).where(*ours, FileRow.revision <= newest_to_forget.scalar_subquery()))
        self.collect(session)

    def collect(self, session: Session) -> None:
        """Drops the contents that no file has."""
        used = select(FileRow.sha256).where(FileRow.node == self._node, FileRow.removed.is_(False))
        unused = delete(FileContentRow).where(FileContentRow.node == self._node, FileContentRow.sha256.not_in(used))
        session.execute(unused.execution_options(synchronize_session=False))

    def _refuse_too_many(self, session: Session, service: str) -> None:
        count = session.scalar(select(func.count()).select_from(FileRow).where(*self.of(service), FileRow.current))
        if (count or 0) >= MOST_FILES:
            raise Refused(f'service "{service}" has {MOST_FILES} files: more are kept for none')

    def kept(self, session: Session, service: str, path: str = "") -> list[FileRow]:
        """All that is kept of a service's files, or of one path, by path, oldest first."""
        query = select(FileRow).where(*self.of(service), *([FileRow.path == path] if path else []))
        return list(session.scalars(query.order_by(FileRow.path, FileRow.revision)))

    def service(self, session: Session, name: str) -> ServiceRow:
        """The row of a service of which files may be wanted. Raises NotFound, Refused."""
        row = session.get(ServiceRow, (self._node, name), with_for_update=True)
        if row is None:
            raise NotFound.service(name, self._node)
        if row.deletion_requested_at is not None:
            raise Refused.deleting(name)
        return row

    def of(self, service: str) -> tuple[ColumnElement[bool], ...]:
        """What is true of the rows of a service."""
        return FileRow.node == self._node, FileRow.service == service


def _lost(path: str, generation: int) -> str:
    return f"{path}: what was pushed until generation {generation} is not kept any more"


def _still_asked(row: FileRow | None, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The restart of a push that is overtaken before it is laid down; of all components where two were named."""
    if row is None or row.laid or not row.restart or wanted["removed"]:
        return {}
    alike = not wanted["restart"] or wanted["component"] == row.component
    return {"restart": True, "component": row.component if alike else ""}


def as_file(row: FileRow) -> ServiceFile:
    """The row as everyone knows it."""
    return as_model(ServiceFile, row)
