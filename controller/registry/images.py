"""Remembers which images this node's MCP brought, and when they were last in use. One transaction's work each."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import delete, select, update

from controller.registry.store import Transaction
from controller.registry.tables import ImageRow, in_utc
from reconcilers.base import PulledImage


class PulledImages:
    """Those of one node. Nobody is told of a change: only who collects them reads them."""

    def __init__(self, node: str) -> None:
        self._node = node

    def every(self, transaction: Transaction) -> tuple[PulledImage, ...]:
        """All of them, the one brought last first."""
        rows = select(ImageRow).where(ImageRow.node == self._node).order_by(ImageRow.pulled_at.desc())
        return tuple(
            PulledImage(row.reference, row.image_id, row.digest, row.pulled_at, row.used_at)
            for row in transaction.session.scalars(rows)
        )

    def record(self, transaction: Transaction, image: PulledImage) -> None:
        """Notes one that was brought, or brought again."""
        row = ImageRow(
            node=self._node,
            reference=image.reference,
            image_id=image.image_id,
            digest=image.digest,
            pulled_at=in_utc(image.pulled_at),
            used_at=in_utc(image.used_at),
        )
        transaction.session.merge(row)

    def in_use(self, transaction: Transaction, image_ids: Collection[str], now: datetime) -> None:
        """Notes that these are in use now."""
        used = update(ImageRow).where(ImageRow.node == self._node, ImageRow.image_id.in_(image_ids))
        transaction.session.execute(used.values(used_at=in_utc(now)))

    def forget(self, transaction: Transaction, image_ids: Collection[str]) -> None:
        """Drops those that are gone."""
        gone = delete(ImageRow).where(ImageRow.node == self._node, ImageRow.image_id.in_(image_ids))
        transaction.session.execute(gone)
