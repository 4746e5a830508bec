"""Writes desired state: what people ask for. Each function is one transaction's work."""

from datetime import datetime
from typing import Final
from uuid import uuid4

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from api.errors import NotFound, Refused, StaleGeneration
from api.service import Change, Drain, Finalizer, Service, Suspension
from api.spec import ServiceSpec
from controller.registry import reading
from controller.registry.records import ChangeKind, EventDraft
from controller.registry.store import Transaction
from controller.registry.summary import asked_again, summarized
from controller.registry.tables import DrainRow, RevisionRow, ServiceRow
from controller.registry.timeline import Timeline

REVISIONS_KEPT: Final = 50
"""Of one service."""


class DesiredState:
    """The desired state of one node's services."""

    def __init__(self, node: str, timeline: Timeline) -> None:
        self._node = node
        self._timeline = timeline

    def apply(
        self,
        transaction: Transaction,
        spec: ServiceSpec,
        actor: str,
        expected: int | None,
        now: datetime,
        note: str = "",
        *,
        anew: bool = False,
    ) -> tuple[Service, Change]:
        """Stores a definition; `anew`: the same one, too, is another generation. Raises Refused, StaleGeneration."""
        row = self._row(transaction.session, spec.name)
        if row is not None and row.deletion_requested_at is not None:
            raise Refused.deleting(spec.name)
        StaleGeneration.check(spec.name, row.generation if row else 0, expected)
        if row is None:
            change = Change.CREATED
            row = self._create(transaction.session, spec, actor, now)
        elif row.spec != spec or anew:
            change = Change.CONFIGURED
            self._configure(transaction.session, row, spec, actor, now)
        else:
            _ask_again(transaction, row, now)
            return self.read(transaction, spec.name), Change.UNCHANGED
        self._revise(transaction.session, row, now, note)
        transaction.changed(spec.name, ChangeKind.SPEC)
        message = f"generation {row.generation}" + (f": {note}" if note else "")
        self._say(transaction, row, f"{change}", message, actor, now)
        return self.read(transaction, spec.name), change

    def restart(self, transaction: Transaction, name: str, component: str, actor: str, now: datetime) -> Service:
        """Counts a wish for new containers, which makes it another generation. Raises NotFound, Refused."""
        row = self._existing(transaction.session, name)
        if row.deletion_requested_at is not None:
            raise Refused.deleting(name)
        wanted = restartable(row.spec, component)
        self._configure(transaction.session, row, row.spec, actor, now)
        row.restarts = row.restarts | {one: row.restarts.get(one, 0) + 1 for one in wanted}
        note = f"restart of {', '.join(wanted)}"
        self._revise(transaction.session, row, now, note)
        transaction.changed(name, ChangeKind.SPEC)
        self._say(transaction, row, "restarting", f"{note} asked by {actor}", actor, now)
        return self.read(transaction, name)

    def request_deletion(
        self, transaction: Transaction, name: str, actor: str, expected: int | None, now: datetime
    ) -> Service:
        """Marks a service for deletion, once. Raises NotFound, StaleGeneration."""
        row = self._existing(transaction.session, name)
        StaleGeneration.check(name, row.generation if row else 0, expected)
        if row.deletion_requested_at is None:
            row.deletion_requested_at = row.updated_at = now
            transaction.changed(name, ChangeKind.SPEC)
            self._say(transaction, row, "deleting", "deletion requested", actor, now)
        # Whoever wants it gone does not want it left alone.
        self._resume(transaction, row, actor, now)
        return self.read(transaction, name)

    def suspend(self, transaction: Transaction, name: str, actor: str, reason: str, now: datetime) -> Service:
        """Has a service left alone; once more for the same reason changes nothing. Raises NotFound."""
        row = self._existing(transaction.session, name)
        if row.suspended is None or row.suspended.reason != reason:
            self._suspend(transaction, row, Suspension(actor=actor, at=now, reason=reason))
        return self.read(transaction, name)

    def suspend_all(self, transaction: Transaction, suspension: Suspension) -> None:
        """Has every service of the node left alone that is not already."""
        for row in transaction.session.scalars(select(ServiceRow).where(ServiceRow.node == self._node)):
            if row.suspended is None:
                self._suspend(transaction, row, suspension)

    def resume(self, transaction: Transaction, name: str, actor: str, now: datetime) -> Service:
        """Has a service converged again; once more changes nothing. Raises NotFound."""
        self._resume(transaction, self._existing(transaction.session, name), actor, now)
        return self.read(transaction, name)

    def drain(self, transaction: Transaction, actor: str, now: datetime) -> None:
        """Notes that the node is to be kept empty; once more changes nothing."""
        if transaction.session.get(DrainRow, self._node) is None:
            transaction.session.add(DrainRow(node=self._node, actor=actor, at=now))

    def undrain(self, transaction: Transaction) -> None:
        """Notes that it is not any more."""
        transaction.session.execute(delete(DrainRow).where(DrainRow.node == self._node))

    def drained(self, transaction: Transaction) -> Drain | None:
        """Who has the node kept empty, where it is."""
        row = transaction.session.get(DrainRow, self._node)
        return None if row is None else reading.as_model(Drain, row)

    def _suspend(self, transaction: Transaction, row: ServiceRow, suspension: Suspension) -> None:
        row.suspended = suspension
        transaction.changed(row.name, ChangeKind.SUSPENSION)
        message = suspension.reason or "left alone until it is resumed"
        self._say(transaction, row, "suspended", message, suspension.actor, suspension.at)

    def _resume(self, transaction: Transaction, row: ServiceRow, actor: str, now: datetime) -> None:
        if row.suspended is None:
            return
        since = row.suspended
        row.suspended = None
        transaction.changed(row.name, ChangeKind.SUSPENSION)
        message = f"was suspended by {since.actor} at {since.at:%Y-%m-%d %H:%M:%S} UTC"
        self._say(transaction, row, "resumed", message, actor, now)

    def remove_finalizer(self, transaction: Transaction, name: str, finalizer: Finalizer, now: datetime) -> bool:
        """Drops a finalizer of a service that is being deleted, and the service with the last; whether it is gone."""
        row = self._row(transaction.session, name)
        if row is None:
            return True
        if row.deletion_requested_at is None or finalizer not in row.finalizers:
            return False
        row.finalizers = tuple(kept for kept in row.finalizers if kept is not finalizer)
        transaction.changed(name, ChangeKind.FINALIZER)
        if row.finalizers:
            return False
        self._say(transaction, row, "deleted", "nothing of it is left", finalizer, now)
        transaction.session.delete(row)
        transaction.changed(name, ChangeKind.GONE)
        return True

    def _row(self, session: Session, name: str) -> ServiceRow | None:
        return session.get(ServiceRow, (self._node, name), with_for_update=True)

    def _existing(self, session: Session, name: str) -> ServiceRow:
        row = self._row(session, name)
        if row is None:
            raise NotFound.service(name, self._node)
        return row

    def read(self, transaction: Transaction, name: str) -> Service:
        """The service as it is by now. Raises NotFound."""
        service = reading.one(transaction, self._node, name)
        if service is None:
            raise NotFound.service(name, self._node)
        return service

    def _create(self, session: Session, spec: ServiceSpec, actor: str, now: datetime) -> ServiceRow:
        row = ServiceRow(
            node=self._node,
            name=spec.name,
            uid=str(uuid4()),
            generation=1,
            actor=actor,
            spec=spec,
            restarts={},
            created_at=now,
            updated_at=now,
            deletion_requested_at=None,
            suspended=None,
            finalizers=tuple(Finalizer),
            conditions=summarized((), 1, now),
            components=(),
        )
        session.add(row)
        # Its revision refers to it, which the session does not know.
        session.flush()
        return row

    def _configure(self, session: Session, row: ServiceRow, spec: ServiceSpec, actor: str, now: datetime) -> None:
        ended = session.get(RevisionRow, (row.node, row.name, row.generation))
        if ended is not None:
            # Tags move: what they stood for is known now, and as long as containers were made of it.
            ended.digests = {one.image: one.digest for one in row.components if one.image and one.digest}
        row.generation += 1
        row.actor = actor
        row.spec = spec
        row.updated_at = now
        row.conditions = summarized(row.conditions, row.generation, now)

    def _revise(self, session: Session, row: ServiceRow, now: datetime, note: str) -> None:
        revision = RevisionRow(
            node=row.node,
            service=row.name,
            generation=row.generation,
            spec=row.spec,
            actor=row.actor,
            at=now,
            note=note,
            digests={},
        )
        session.add(revision)
        session.execute(
            delete(RevisionRow).where(
                RevisionRow.node == row.node,
                RevisionRow.service == row.name,
                RevisionRow.generation <= row.generation - REVISIONS_KEPT,
            )
        )

    def _say(
        self, transaction: Transaction, row: ServiceRow, kind: str, message: str, actor: str, now: datetime
    ) -> None:
        self._timeline.add(transaction, row.name, EventDraft(kind, message, actor, row.generation), now)


def restartable(spec: ServiceSpec, component: str) -> tuple[str, ...]:
    """The components that a restart is about. Raises NotFound, and Refused where they are stopped."""
    known = [one.name for one in spec.components]
    if component and component not in known:
        raise NotFound(f'service "{spec.name}" has no component "{component}": it has {", ".join(known)}')
    wanted = tuple(name for name in ([component] if component else known) if spec.runs(name))
    if not wanted:
        which = f"{spec.name}/{component}" if component and spec.active else spec.name
        raise Refused(f"{which} is stopped: mcp start {which} has it run")
    return wanted


def _ask_again(transaction: Transaction, row: ServiceRow, now: datetime) -> None:
    """What needed a person may have been mended by one: whoever applies the same again wants to know, not to wait."""
    conditions = asked_again(row.conditions, now)
    # A generation whose containers were given up is tried once more.
    nothing = {"failed_generation": 0, "failed_request": "", "failure": ""}
    components = tuple(component.model_copy(update=nothing) for component in row.components)
    if conditions != row.conditions or components != row.components:
        row.conditions = summarized(conditions, row.generation, now)
        row.components = components
        transaction.session.flush()
        transaction.changed(row.name, ChangeKind.SPEC)
