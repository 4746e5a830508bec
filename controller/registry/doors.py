"""What the registry keeps for the door: the hashes of tokens, and the audit. Each method is one transaction."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import delete, select

from api.access import DEFAULT_RECORDS, AuditQuery, AuditRecord, Token
from api.errors import NotFound, Refused
from controller.registry.engines import Mode
from controller.registry.records import printable
from controller.registry.store import Store, Transaction
from controller.registry.tables import AuditRow, TokenRow
from reconcilers.base import Clock

T = TypeVar("T")


class Doors:
    """Tokens and audit of one node. Every method raises RegistryUnavailable."""

    def __init__(self, store: Store, node: str, clock: Clock) -> None:
        self._store = store
        self._node = node
        self._clock = clock

    async def add_token(self, token: Token, sha256: str) -> None:
        """Keeps a new token, in the place of one of that name that holds no more. Raises Refused where one holds."""
        await self._write(lambda transaction: self._add_token(transaction, token, sha256))

    async def token(self, sha256: str) -> Token | None:
        """The token with that hash, whether it holds or not."""
        return await self._read(lambda transaction: self._token(transaction, sha256))

    async def tokens(self) -> tuple[Token, ...]:
        """All tokens, by name."""
        query = select(TokenRow).where(TokenRow.node == self._node).order_by(TokenRow.name)
        return await self._read(lambda transaction: tuple(map(_token_of, transaction.session.scalars(query))))

    async def revoke_token(self, name: str) -> Token:
        """Ends a token's validity, once. Raises NotFound."""
        return await self._write(lambda transaction: self._revoke(transaction, name))

    async def record(self, record: AuditRecord, *, durable: bool) -> None:
        """Adds to the audit; where it is not `durable`, a loss of power may take the last ones."""
        mode = Mode.DURABLE if durable else Mode.OBSERVATION
        await self._store.run(lambda transaction: transaction.session.add(self._row(record)), mode)

    async def audit(self, query: AuditQuery) -> tuple[AuditRecord, ...]:
        """The newest records that the query asks for, newest last."""
        return await self._read(lambda transaction: self._newest(transaction, query))

    async def prune_audit(self, keep: timedelta, most: int) -> None:
        """Forgets what is older than `keep`, and of what did not end well all but the newest `most`."""
        await self._write(lambda transaction: self._prune(transaction, self._clock() - keep, most))

    def _add_token(self, transaction: Transaction, token: Token, sha256: str) -> None:
        row = transaction.session.get(TokenRow, (self._node, token.name), with_for_update=True)
        if row is not None:
            if _token_of(row).holds(self._clock()):
                raise Refused(f'there is a token "{token.name}" that holds: revoke it first, or take another name')
            transaction.session.delete(row)
            transaction.session.flush()
        transaction.session.add(TokenRow(node=self._node, sha256=sha256, **token.model_dump()))

    def _token(self, transaction: Transaction, sha256: str) -> Token | None:
        query = select(TokenRow).where(TokenRow.sha256 == sha256, TokenRow.node == self._node)
        row = transaction.session.scalar(query)
        return None if row is None else _token_of(row)

    def _revoke(self, transaction: Transaction, name: str) -> Token:
        row = transaction.session.get(TokenRow, (self._node, name), with_for_update=True)
        if row is None:
            raise NotFound(f'there is no token "{name}" on node {self._node}')
        row.revoked_at = row.revoked_at or self._clock()
        return _token_of(row)

    def _row(self, record: AuditRecord) -> AuditRow:
        fields = record.model_dump(exclude={"id"})
        texts = {name: printable(value) for name, value in fields.items() if isinstance(value, str)}
        return AuditRow(node=self._node, **(fields | texts))

    def _newest(self, transaction: Transaction, query: AuditQuery) -> tuple[AuditRecord, ...]:
        rows = select(AuditRow).where(AuditRow.node == self._node)
        if query.service:
            rows = rows.where(AuditRow.service == query.service)
        if query.actor:
            rows = rows.where(AuditRow.actor == query.actor)
        if query.refused:
            rows = rows.where(AuditRow.outcome != "OK")
        found = transaction.session.scalars(
            rows.order_by(AuditRow.id.desc()).limit(query.limit or DEFAULT_RECORDS)
        ).all()
        names = AuditRecord.model_fields
        return tuple(AuditRecord(**{name: getattr(row, name) for name in names}) for row in reversed(found))

    def _prune(self, transaction: Transaction, oldest: datetime, most: int) -> None:
        ours = AuditRow.node == self._node
        refused = ours, AuditRow.outcome != "OK"
        newest_to_forget = select(AuditRow.id).where(*refused).order_by(AuditRow.id.desc()).offset(most).limit(1)
        transaction.session.execute(delete(AuditRow).where(ours, AuditRow.at < oldest))
        transaction.session.execute(delete(AuditRow).where(*refused, AuditRow.id <= newest_to_forget.scalar_subquery()))

    async def _read(self, work: Callable[[Transaction], T]) -> T:
        return await self._store.run(work, Mode.READ)

    async def _write(self, work: Callable[[Transaction], T]) -> T:
        return await self._store.run(work, Mode.DURABLE)


def _token_of(row: TokenRow) -> Token:
    return Token.model_validate({name: getattr(row, name) for name in Token.model_fields})
