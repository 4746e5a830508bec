"""Reads services whole: one query for the services and one for each kind of thing that they hold."""

from collections import defaultdict
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.model import Model
from api.service import Certificate, PortAllocation, RouteClaim, Service
from controller.registry.records import Revision
from controller.registry.store import Transaction
from controller.registry.tables import CertificateRow, ClaimRow, PortRow, RevisionRow, ServiceRow

HeldRow = TypeVar("HeldRow", PortRow, CertificateRow, ClaimRow)
"""What a service holds that nobody else may hold."""

AnyModel = TypeVar("AnyModel", bound=Model)


def one(transaction: Transaction, node: str, name: str) -> Service | None:
    """The service of that name, or None."""
    return next(iter(_read(transaction.session, node, name)), None)


def every(transaction: Transaction, node: str) -> tuple[Service, ...]:
    """All services of the node, by name."""
    return tuple(_read(transaction.session, node, None))


def revisions(transaction: Transaction, node: str, name: str) -> tuple[Revision, ...]:
    """The revisions kept of a service, oldest first."""
    query = select(RevisionRow).where(RevisionRow.node == node, RevisionRow.service == name)
    rows = transaction.session.scalars(query.order_by(RevisionRow.generation))
    return tuple(as_model(Revision, row) for row in rows)


def as_model(model: type[AnyModel], row: object) -> AnyModel:
    """The model whose fields are named as the row's columns."""
    return model.model_validate({name: getattr(row, name) for name in model.model_fields})


def _read(session: Session, node: str, name: str | None) -> list[Service]:
    query = select(ServiceRow).where(ServiceRow.node == node).order_by(ServiceRow.name)
    if name is not None:
        query = query.where(ServiceRow.name == name)
    rows = session.scalars(query).all()
    if not rows:
        return []
    ports = _held(session, PortRow, PortAllocation, node, name)
    certificates = _held(session, CertificateRow, Certificate, node, name)
    claims = _held(session, ClaimRow, RouteClaim, node, name)
    return [
        Service(
            **{column: getattr(row, column) for column in _OWN},
            ports=tuple(sorted(ports[row.name], key=lambda port: (port.component, port.route))),
            certificates=tuple(sorted(certificates[row.name], key=lambda certificate: certificate.hostname)),
            claims=tuple(sorted(claims[row.name], key=lambda claim: (claim.listener, claim.hostname))),
        )
        for row in rows
    ]


_OWN = tuple(name for name in Service.model_fields if name in ServiceRow.__table__.columns)


def _held(
    session: Session, table: type[HeldRow], model: type[AnyModel], node: str, name: str | None
) -> dict[str, list[AnyModel]]:
    query = select(table).where(table.node == node)
    if name is not None:
        query = query.where(table.service == name)
    held: dict[str, list[AnyModel]] = defaultdict(list)
    for row in session.scalars(query):
        held[row.service].append(as_model(model, row))
    return held
