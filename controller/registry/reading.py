"""Reads services whole: one query for the services and one for each kind of thing that they hold.

The statements are built once, since building one costs more than running it,
and read the tables' columns past the session: what it would do for objects
costs as much again.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, Text, bindparam, exists, or_, select, type_coerce
from sqlalchemy.orm import Session

from api.control_plane import DRAINED
from api.fields import PortMapping
from api.files import ServiceFile
from api.model import Model
from api.service import Certificate, PortAllocation, Revision, RouteClaim, Service
from controller.registry.store import Transaction
from controller.registry.tables import Base, CertificateRow, ClaimRow, FileRow, PortRow, RevisionRow, ServiceRow
from reconcilers.base import FixedPort

AnyModel = TypeVar("AnyModel", bound=Model)


def one(transaction: Transaction, node: str, name: str) -> Service | None:
    """The service of that name, or None."""
    return next(iter(_read(transaction.session, {"node": node, "service": name})), None)


def every(transaction: Transaction, node: str) -> tuple[Service, ...]:
    """All services of the node, by name."""
    return _read(transaction.session, {"node": node})


def revisions(transaction: Transaction, node: str, name: str) -> tuple[Revision, ...]:
    """The revisions kept of a service, oldest first."""
    found = _REVISIONS.read(transaction.session, {"node": node, "service": name})
    return tuple(sorted(found[name], key=lambda revision: revision.generation))


def fixed_ports(transaction: Transaction, node: str, among: Collection[int]) -> tuple[FixedPort, ...]:
    """Those of these host ports that definitions name themselves, by service."""
    if not among:
        return ()
    # Only faster: of a thousand definitions few are read as more than a text.
    text = type_coerce(ServiceRow.spec, Text())
    named = or_(*(text.contains(f"{port}") for port in among))
    rows = select(ServiceRow.spec).where(ServiceRow.node == node, text.contains('"ports":["'), named)
    found = (
        FixedPort(spec.name, component.name, mapping)
        for spec in transaction.session.scalars(rows)
        for component in spec.components
        for mapping in map(PortMapping.parse, component.ports)
        if mapping.host_port in among
    )
    return tuple(sorted(found, key=lambda port: port.service))


def as_model(model: type[AnyModel], row: object) -> AnyModel:
    """The model whose fields are named as the row's columns."""
    return model.model_validate({name: getattr(row, name) for name in model.model_fields})


class _Rows(Generic[AnyModel]):
    """Reads a table's rows as models, by service; the model's fields are named as the table's columns."""

    def __init__(
        self,
        model: type[AnyModel],
        table: type[PortRow | CertificateRow | ClaimRow | RevisionRow | FileRow],
        *only: ColumnElement[bool],
    ) -> None:
        self._model = model
        self._fields = tuple(model.model_fields)
        self._statements = _statements(table, "service", self._fields, *only)

    def read(self, session: Session, which: dict[str, str]) -> dict[str, list[AnyModel]]:
        """Of a node, or of one service of it; in no order."""
        found: dict[str, list[AnyModel]] = defaultdict(list)
        for service, *values in session.connection().execute(self._statements["service" in which], which):
            found[service].append(self._model.model_validate(dict(zip(self._fields, values, strict=True))))
        return found


def _statements(
    table: type[Base], service: str, names: Iterable[str], *only: ColumnElement[bool]
) -> tuple[Select[Any], Select[Any]]:
    """Reads these columns behind the service's name: of all services of a node, and of one of them."""
    columns = table.__table__.columns
    every_service = select(columns[service], *(columns[name] for name in names)).where(
        columns["node"] == bindparam("node"), *only
    )
    return every_service, every_service.where(columns[service] == bindparam("service"))


_PORTS = _Rows(PortAllocation, PortRow)
_CERTIFICATES = _Rows(Certificate, CertificateRow)
_CLAIMS = _Rows(RouteClaim, ClaimRow)
_REVISIONS = _Rows(Revision, RevisionRow)
_FILES = _Rows(ServiceFile, FileRow, FileRow.__table__.columns["current"])

_OWN = tuple(name for name in Service.model_fields if name in ServiceRow.__table__.columns)
_IS_DRAINED = exists().where(
    RevisionRow.node == ServiceRow.node,
    RevisionRow.service == ServiceRow.name,
    RevisionRow.generation == ServiceRow.generation,
    RevisionRow.note == DRAINED,
)
_SERVICES = tuple(
    statement.add_columns(_IS_DRAINED.label("drained")) for statement in _statements(ServiceRow, "name", _OWN)
)


def _read(session: Session, which: dict[str, str]) -> tuple[Service, ...]:
    rows = session.connection().execute(_SERVICES["service" in which], which).all()
    if not rows:
        return ()
    ports = _PORTS.read(session, which)
    certificates = _CERTIFICATES.read(session, which)
    claims = _CLAIMS.read(session, which)
    files = _FILES.read(session, which)
    return tuple(
        Service(
            **dict(zip((*_OWN, "drained"), values, strict=True)),
            # Sorted here: databases differ in what comes first.
            ports=tuple(sorted(ports[name], key=lambda port: (port.component, port.route, port.slot))),
            certificates=tuple(sorted(certificates[name], key=lambda certificate: certificate.hostname)),
            claims=tuple(sorted(claims[name], key=lambda claim: (claim.listener, claim.hostname))),
            files=tuple(sorted(files[name], key=lambda file: file.path)),
        )
        for name, *values in sorted(rows, key=lambda row: str(row[0]))
    )
