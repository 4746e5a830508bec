"""Writes that containers were taken over, in one piece with the definition that was made for them."""

from datetime import datetime

from sqlalchemy import select

from api.service import Service
from controller.registry import reading
from controller.registry.desired import DesiredState
from controller.registry.observed import ObservedState
from controller.registry.records import Adoption
from controller.registry.store import Transaction
from controller.registry.tables import AdoptedRow


class AdoptedContainers:
    """The containers of one node that MCP did not make."""

    def __init__(self, node: str, desired: DesiredState, observed: ObservedState) -> None:
        self._node = node
        self._desired = desired
        self._observed = observed

    def adopt(self, transaction: Transaction, adoption: Adoption, actor: str, now: datetime) -> Service:
        """Stores a new service with its ports and its containers. Raises Refused, StaleGeneration, PortTaken."""
        name = adoption.spec.name
        self._desired.apply(transaction, adoption.spec, actor, 0, now, "adopted from what runs")
        for port in adoption.ports:
            self._observed.allocate_port(transaction, name, port.component, port.route, port.port, port.slot)
        for container_id, labels in adoption.labels.items():
            row = AdoptedRow(node=self._node, container_id=container_id, service=name, labels=dict(labels))
            transaction.session.merge(row)
        transaction.session.flush()
        service = reading.one(transaction, self._node, name)
        if service is None:
            raise LookupError(name)
        return service

    def every(self, transaction: Transaction) -> dict[str, dict[str, str]]:
        """The labels of each, by its id."""
        rows = transaction.session.scalars(select(AdoptedRow).where(AdoptedRow.node == self._node))
        return {row.container_id: row.labels for row in rows}
