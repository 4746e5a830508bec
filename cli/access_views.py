"""What people see of tokens and of the audit, as tables. Pure."""

from collections.abc import Iterable
from datetime import datetime

from api.access import AuditRecord, Token
from cli.output import Table
from cli.views import age, moment, span


def tokens_table(tokens: Iterable[Token], now: datetime) -> Table:
    """One row a token; STATUS says whether it lets anybody in."""
    headers = ("NAME", "ROLE", "STATUS", "EXPIRES", "AGE", "MADE BY")
    return Table(headers, tuple(_token_row(token, now) for token in tokens))


def _token_row(token: Token, now: datetime) -> tuple[str, ...]:
    status = "revoked" if token.revoked_at else "holds" if token.holds(now) else "expired"
    left = (
        "" if token.expires_at is None or status != "holds" else f"in {span((token.expires_at - now).total_seconds())}"
    )
    return (token.name, token.role, status, left, age(token.created_at, now), token.created_by)


def audit_table(records: Iterable[AuditRecord]) -> Table:
    """One row a call, in the order of the records."""
    headers = ("TIME", "ACTOR", "FROM", "CALL", "SERVICE", "GENERATION", "OUTCOME", "DETAIL")
    return Table(headers, tuple(_audit_row(record) for record in records))


def _audit_row(record: AuditRecord) -> tuple[str, ...]:
    return (
        moment(record.at),
        f"{record.actor} ({record.role})" if record.role else record.actor or "nobody known",
        record.address,
        record.method.rpartition("/")[2],
        record.service,
        str(record.generation or ""),
        record.outcome,
        record.detail,
    )
