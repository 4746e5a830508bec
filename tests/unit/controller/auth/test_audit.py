"""What is written down is kept as long as the settings say, and a registry that is ill holds up nobody."""

from datetime import timedelta

import pytest
import structlog.testing

from api.access import AuditQuery, AuditRecord
from api.errors import RegistryUnavailable
from controller.auth import audit
from controller.auth.audit import Audit
from controller.auth.settings import AuditSettings
from controller.registry import Registry, utc_now


def record(**fields: object) -> AuditRecord:
    known = {"at": utc_now(), "address": "192.0.2.1", "method": "mcp.v1.X/Y", "outcome": "UNAUTHENTICATED"}
    return AuditRecord.model_validate(known | fields)


async def test_it_does_not_grow_for_ever(lite: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "PRUNE_EVERY", 10)
    kept = Audit(lite, AuditSettings(keep_days=1, keep_refused=5))
    await kept.write(record(at=utc_now() - timedelta(days=2), outcome="OK"))
    for _ in range(29):
        await kept.write(record())
    assert len(await lite.doors.audit(AuditQuery())) == 5


async def test_each_record_is_a_line_in_the_log_too(lite: Registry) -> None:
    with structlog.testing.capture_logs() as lines:
        await Audit(lite, AuditSettings()).write(record(actor="ann", outcome="OK"))
    (line,) = lines
    assert (line["event"], line["actor"], line["outcome"], line["address"]) == ("call", "ann", "OK", "192.0.2.1")


async def test_a_registry_that_cannot_be_written_loses_the_row_and_not_the_line(lite: Registry) -> None:
    kept = Audit(lite, AuditSettings())
    await lite.close()
    with structlog.testing.capture_logs() as lines:
        await kept.write(record())
    assert [line["event"] for line in lines] == ["call", "not_written"]
    with pytest.raises(RegistryUnavailable):
        await kept.prune()
