"""Tokens and the audit, on both databases."""

from datetime import timedelta

import pytest

from api.access import AuditQuery, AuditRecord, Role, Token
from api.errors import NotFound, Refused
from controller.registry import Registry
from tests.unit.controller.registry.samples import NOON


def token(name: str = "ci", **fields: object) -> Token:
    return Token(name=name, role=Role.OPERATOR, created_by="ann", created_at=NOON).model_copy(update=fields)


def record(service: str = "hello", **fields: object) -> AuditRecord:
    known = {"at": NOON, "actor": "ann", "address": "unix", "method": "m", "outcome": "OK", "service": service}
    return AuditRecord.model_validate(known | fields)


async def test_a_token_is_found_by_its_hash_alone(registry: Registry) -> None:
    await registry.doors.add_token(token(expires_at=NOON), "a" * 64)
    assert await registry.doors.token("a" * 64) == token(expires_at=NOON)
    assert await registry.doors.token("b" * 64) is None
    assert await registry.doors.tokens() == (token(expires_at=NOON),)


async def test_a_token_of_another_node_opens_no_door_here(postgres_url: str) -> None:
    rift, sea = await Registry.open(postgres_url, "rift"), await Registry.open(postgres_url, "sea")
    await sea.doors.add_token(token(), "a" * 64)
    assert await rift.doors.token("a" * 64) is None
    await rift.close()
    await sea.close()


async def test_a_name_is_free_again_once_its_token_holds_no_more(registry: Registry) -> None:
    await registry.doors.add_token(token(), "a" * 64)
    with pytest.raises(Refused, match="that holds"):
        await registry.doors.add_token(token(), "b" * 64)
    revoked = await registry.doors.revoke_token("ci")
    assert revoked.revoked_at is not None
    assert await registry.doors.revoke_token("ci") == revoked
    await registry.doors.add_token(token(), "b" * 64)
    assert await registry.doors.token("a" * 64) is None
    assert await registry.doors.token("b" * 64) == token()


async def test_what_is_not_there_cannot_be_revoked(registry: Registry) -> None:
    with pytest.raises(NotFound, match='no token "x" on node rift'):
        await registry.doors.revoke_token("x")


async def test_the_audit_tells_the_newest_last_and_of_whom_it_is_asked(registry: Registry) -> None:
    for made in (record(), record("other"), record(actor="bob"), record(outcome="NOT_FOUND", detail="\0")):
        await registry.doors.record(made, durable=True)
    every = await registry.doors.audit(AuditQuery())
    assert [made.id for made in every] == sorted(made.id for made in every)
    assert every[0] == record().model_copy(update={"id": every[0].id})
    assert [made.service for made in await registry.doors.audit(AuditQuery(limit=2))] == ["hello", "hello"]
    assert [made.service for made in await registry.doors.audit(AuditQuery(service="other"))] == ["other"]
    assert [made.actor for made in await registry.doors.audit(AuditQuery(actor="bob"))] == ["bob"]
    assert [made.detail for made in await registry.doors.audit(AuditQuery(refused=True))] == [
        "\N{REPLACEMENT CHARACTER}"
    ]


async def test_the_audit_forgets_what_is_old_and_refusals_that_are_too_many(registry: Registry) -> None:
    now = registry._clock()
    for age, outcome in ((40, "OK"), (20, "OK"), (15, "NOT_FOUND"), (10, "NOT_FOUND"), (0, "OK")):
        made = record(f"d{age}", at=now - timedelta(days=age), outcome=outcome)
        await registry.doors.record(made, durable=False)
    await registry.doors.prune_audit(timedelta(days=30), 100)
    assert [made.service for made in await registry.doors.audit(AuditQuery())] == ["d20", "d15", "d10", "d0"]
    await registry.doors.prune_audit(timedelta(days=30), 1)
    assert [made.service for made in await registry.doors.audit(AuditQuery())] == ["d20", "d10", "d0"]
