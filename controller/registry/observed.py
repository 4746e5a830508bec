"""Writes what reconcilers observe and allocate. Each function is one transaction's work.

A service that is gone is left alone: whoever still speaks of it is late.
"""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from api.conditions import Condition
from api.model import Model
from api.service import Certificate, Component, PortAllocation, RouteClaim, ServedPort
from controller.registry.reading import as_model
from controller.registry.records import ChangeKind, ConditionUpdate, EventDraft, Report
from controller.registry.store import Transaction
from controller.registry.summary import summarized, updated
from controller.registry.tables import CertificateRow, ClaimRow, PortRow, ServiceRow, in_utc
from controller.registry.timeline import Timeline
from reconcilers.base import Claimed, PortTaken


class ObservedState:
    """What is known of one node's services, and what they hold."""

    def __init__(self, node: str, timeline: Timeline) -> None:
        self._node = node
        self._timeline = timeline

    def report(self, transaction: Transaction, service: str, report: Report, now: datetime) -> None:
        """Writes what one reconcile run says."""
        row = self._row(transaction.session, service)
        if row is None:
            return
        for draft in report.events:
            self._timeline.add(transaction, service, draft, now)
        if report.condition is not None and _is_current(row, report.condition):
            conditions = summarized(updated(row.conditions, report.condition, now), row.generation, now)
            if conditions != row.conditions:
                row.conditions = conditions
                transaction.changed(service, ChangeKind.CONDITION)

    def tell(self, transaction: Transaction, service: str, draft: EventDraft, holds: Condition, now: datetime) -> bool:
        """Writes an event about a condition; False, and nothing, where that is another one by now."""
        row = self._row(transaction.session, service)
        if row is None or holds not in row.conditions:
            return False
        self._timeline.add(transaction, service, draft, now)
        return True

    def allocated_ports(self, transaction: Transaction) -> frozenset[int]:
        """Every port given on this node."""
        return frozenset(transaction.session.scalars(select(PortRow.port).where(PortRow.node == self._node)))

    def port_holders(self, transaction: Transaction, among: Collection[int]) -> dict[int, str]:
        """The service to whose route each of these ports is given."""
        query = select(PortRow.port, PortRow.service).where(PortRow.node == self._node, PortRow.port.in_(among))
        return {row.port: row.service for row in transaction.session.execute(query)}

    def allocate_port(
        self, transaction: Transaction, service: str, component: str, route: str, port: int, slot: int
    ) -> None:
        """Gives the port to the route. Raises PortTaken."""
        session = transaction.session
        if not self._exists(session, service):
            return
        wanted = PortAllocation(component=component, route=route, slot=slot, port=port)
        row = session.get(PortRow, (self._node, service, component, route, slot), with_for_update=True)
        if row is None:
            session.add(PortRow(node=self._node, service=service, **dict(wanted)))
        elif not _fill(row, wanted):
            return
        try:
            session.flush()
        except IntegrityError as error:
            raise PortTaken(f"port {port} is given to another route") from error
        transaction.changed(service, ChangeKind.PORTS)

    def release_port(self, transaction: Transaction, service: str, component: str, route: str, slot: int) -> None:
        """Takes the route's port back."""
        row = transaction.session.get(PortRow, (self._node, service, component, route, slot))
        if row is not None:
            transaction.session.delete(row)
            transaction.changed(service, ChangeKind.PORTS)

    def contest_port(self, transaction: Transaction, service: str, component: str, route: str, port: int) -> None:
        """Notes that somebody else has the route's port."""
        query = select(PortRow).where(
            PortRow.node == self._node,
            PortRow.service == service,
            PortRow.component == component,
            PortRow.route == route,
            PortRow.port == port,
        )
        row = transaction.session.scalar(query.with_for_update())
        if row is not None and not row.contested:
            row.contested = True
            transaction.changed(service, ChangeKind.CONTESTED)

    def record_certificate(self, transaction: Transaction, service: str, certificate: Certificate) -> None:
        """Notes a certificate. Raises Claimed."""
        session = transaction.session
        if not self._exists(session, service):
            return
        # A service whose default hostname changed lays the new certificate over the old one.
        overwritten = delete(CertificateRow).where(
            CertificateRow.node == self._node,
            CertificateRow.service == service,
            CertificateRow.cert_path == certificate.cert_path,
            CertificateRow.hostname != certificate.hostname,
        )
        session.execute(overwritten)
        # Where two ask at once the database refuses one, which then sees the other here.
        holder = self.certificate_holder(transaction, certificate.cert_path)
        if holder is not None and holder != service:
            raise Claimed(holder)
        row = session.get(CertificateRow, (self._node, service, certificate.hostname), with_for_update=True)
        if row is None:
            session.add(CertificateRow(node=self._node, service=service, **dict(certificate)))
        elif not _fill(row, certificate):
            return
        transaction.changed(service, ChangeKind.CERTIFICATE)

    def certificate_holder(self, transaction: Transaction, cert_path: str) -> str | None:
        """The service whose certificate lies there."""
        return transaction.session.scalar(
            select(CertificateRow.service).where(
                CertificateRow.node == self._node, CertificateRow.cert_path == cert_path
            )
        )

    def forget_certificate(self, transaction: Transaction, service: str, hostname: str) -> None:
        """Drops the record of a certificate."""
        row = transaction.session.get(CertificateRow, (self._node, service, hostname))
        if row is not None:
            transaction.session.delete(row)
            transaction.changed(service, ChangeKind.CERTIFICATE)
            transaction.changed(service, ChangeKind.PATH_RELEASED)

    def record_component(self, transaction: Transaction, service: str, component: Component) -> None:
        """Notes what was observed of a container."""
        if component.started_at is not None:
            component = component.model_copy(update={"started_at": in_utc(component.started_at)})
        self._set_component(transaction, service, component.name, component)

    def forget_component(self, transaction: Transaction, service: str, name: str) -> None:
        """Drops an observation."""
        self._set_component(transaction, service, name, None)

    def claim_route(self, transaction: Transaction, service: str, claim: RouteClaim) -> None:
        """Holds a name for the service. Raises Claimed."""
        session = transaction.session
        if not self._exists(session, service):
            return
        row = session.get(ClaimRow, (self._node, claim.listener, claim.hostname), with_for_update=True)
        if row is None:
            session.add(ClaimRow(node=self._node, service=service, **dict(claim)))
        elif row.service != service:
            raise Claimed(row.service)
        elif not _fill(row, claim):
            return
        transaction.changed(service, ChangeKind.CLAIM)

    def release_route(self, transaction: Transaction, service: str, listener: str, hostname: str) -> None:
        """Lets a name go."""
        row = transaction.session.get(ClaimRow, (self._node, listener, hostname), with_for_update=True)
        if row is not None and row.service == service:
            transaction.session.delete(row)
            transaction.changed(service, ChangeKind.CLAIM_RELEASED)

    def claim_holder(self, transaction: Transaction, listener: str, hostname: str) -> str | None:
        """The service that holds the name."""
        return transaction.session.scalar(
            select(ClaimRow.service).where(
                ClaimRow.node == self._node, ClaimRow.listener == listener, ClaimRow.hostname == hostname
            )
        )

    def _row(self, session: Session, service: str) -> ServiceRow | None:
        return session.get(ServiceRow, (self._node, service), with_for_update=True)

    def _exists(self, session: Session, service: str) -> bool:
        query = select(ServiceRow.name).where(ServiceRow.node == self._node, ServiceRow.name == service)
        return session.scalar(query.with_for_update()) is not None

    def _set_component(self, transaction: Transaction, service: str, name: str, component: Component | None) -> None:
        row = self._row(transaction.session, service)
        if row is None:
            return
        by_name = {known.name: known for known in row.components}
        before = by_name.pop(name, None)
        if component is not None:
            by_name[name] = component
        components = tuple(by_name[known] for known in sorted(by_name))
        if components != row.components:
            row.components = components
            moved = _backend(before) != _backend(component)
            transaction.changed(service, ChangeKind.BACKEND if moved else ChangeKind.COMPONENT)


def _is_current(row: ServiceRow, update: ConditionUpdate) -> bool:
    """Whether it speaks of this service, not of an earlier one of its name, and is no older than what is known."""
    known = next((c.observed_generation for c in row.conditions if c.type is update.type), 0)
    return known <= update.observed_generation <= row.generation


def _backend(component: Component | None) -> tuple[bool, tuple[ServedPort, ...]]:
    """What routes need to know of the component."""
    return (component.ready, component.ports) if component is not None else (False, ())


def _fill(row: PortRow | CertificateRow | ClaimRow, wanted: Model) -> bool:
    """Makes the row say what is wanted; False where it does already."""
    if as_model(type(wanted), row) == wanted:
        return False
    for name, value in wanted:
        setattr(row, name, value)
    return True
