"""The events of a node: written, read, and kept from growing for ever."""

from collections import Counter
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, delete, func, select
from sqlalchemy.orm import Session

from api.service import Event
from controller.registry.records import ChangeKind, EventDraft, printable
from controller.registry.store import Transaction
from controller.registry.tables import EventRow

KEPT: Final = 10_000
"""Events of one node."""

KEPT_PER_SERVICE: Final = 1_000

PRUNE_EVERY: Final = 250
"""Events between two prunings: so many more may be there at a time."""


class Timeline:
    """Writes a node's events; used in the registry's thread only."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._written: Counter[str] = Counter()

    def add(self, transaction: Transaction, service: str, draft: EventDraft, now: datetime) -> None:
        """Appends one event to the timeline of `service`."""
        session = transaction.session
        row = EventRow(
            node=self._node,
            at=now,
            service=service,
            generation=draft.generation,
            actor=printable(draft.actor),
            kind=printable(draft.kind),
            message=printable(draft.message),
            drift=draft.drift,
        )
        session.add(row)
        session.flush()
        transaction.changed(service, ChangeKind.EVENT, event_of(row))
        self._written[service] += 1
        if self._written.total() >= PRUNE_EVERY:
            self.prune(session, *self._written)
            self._written.clear()

    def prune(self, session: Session, *services: str) -> None:
        """Forgets the oldest of the node's events, and of those services'; it is enough to name those written to."""
        for service in services:
            _keep_newest(session, KEPT_PER_SERVICE, EventRow.node == self._node, EventRow.service == service)
        _keep_newest(session, KEPT, EventRow.node == self._node)

    def prune_all(self, transaction: Transaction) -> None:
        """For the start: whoever wrote before may have ended between two prunings."""
        query = select(EventRow.service).where(EventRow.node == self._node)
        crowded = query.group_by(EventRow.service).having(func.count() > KEPT_PER_SERVICE)
        self.prune(transaction.session, *transaction.session.scalars(crowded))

    def newest(self, transaction: Transaction, service: str, limit: int, after_id: int) -> tuple[Event, ...]:
        """The newest `limit` events after that one, oldest first; of all services where none is named."""
        query = select(EventRow).where(EventRow.node == self._node, EventRow.id > after_id)
        if service:
            query = query.where(EventRow.service == service)
        rows = transaction.session.scalars(query.order_by(EventRow.id.desc()).limit(limit))
        return tuple(event_of(row) for row in reversed(rows.all()))


def event_of(row: EventRow) -> Event:
    """The row as everyone knows it."""
    return Event.model_validate({name: getattr(row, name) for name in Event.model_fields})


def _keep_newest(session: Session, count: int, *of: ColumnElement[bool]) -> None:
    newest_to_forget = select(EventRow.id).where(*of).order_by(EventRow.id.desc()).offset(count).limit(1)
    session.execute(delete(EventRow).where(*of, EventRow.id <= newest_to_forget.scalar_subquery()))
