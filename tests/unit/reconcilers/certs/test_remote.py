"""What every outside issuer rests on: the ledger, the limit, the responder, and work beside the loop."""

import asyncio
import stat
import threading
import urllib.error
import urllib.request
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconcilers.certs.beside import beside
from reconcilers.certs.budget import Budget
from reconcilers.certs.ca import EmbeddedCa
from reconcilers.certs.challenges import Responder
from reconcilers.certs.issuer import IssueFailed
from reconcilers.certs.ledger import Entry, Ledger
from reconcilers.certs.remote import waiting_time
from stack.web import free_port, is_free

NOW = datetime(2026, 6, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def test_an_open_order_outlives_the_agent_and_its_key_does_not_outlive_the_order(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l")
    begun = ledger.note("shop.test", order="https://ca/order/1", body={"status": "pending"}, key="secret")
    assert Ledger(tmp_path / "l").entry("shop.test") == begun
    (path,) = (tmp_path / "l").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    ledger.close_order("shop.test")
    assert Ledger(tmp_path / "l").entry("shop.test") == Entry()
    assert "secret" not in path.read_text()


async def test_the_last_two_certificates_of_a_hostname_are_known(tmp_path: Path) -> None:
    ca = EmbeddedCa.open(tmp_path / "ca", "rift", lambda: datetime.now(UTC))
    leaves = [(await ca.issue("shop.test", HOUR)).chain[0] for _ in range(3)]
    ledger = Ledger(tmp_path / "l")
    for leaf in (*leaves, leaves[-1]):
        ledger.note_issued("shop.test", leaf)
    assert [Ledger(tmp_path / "l").issued(leaf) for leaf in leaves] == [False, True, True]


@pytest.mark.parametrize("damage", [b"", b"{", b'{"order": 7}', b"\xff"])
def test_a_damaged_entry_counts_as_absent(tmp_path: Path, damage: bytes) -> None:
    Ledger(tmp_path).note("shop.test", order="x")
    (tmp_path / "shop.test.json").write_bytes(damage)
    (tmp_path / "asked.json").write_bytes(damage)
    assert Ledger(tmp_path).entry("shop.test") == Entry()
    Budget(tmp_path / "asked.json", 1, Clock()).spend()


def test_the_limit_holds_across_restarts_and_says_how_long(tmp_path: Path) -> None:
    clock = Clock()
    for minutes in (0, 10):
        clock.now = NOW + timedelta(minutes=minutes)
        Budget(tmp_path / "asked.json", 2, clock).spend()
    clock.now = NOW + timedelta(minutes=20)
    with pytest.raises(IssueFailed, match="the limit of 2 certificates an hour") as caught:
        Budget(tmp_path / "asked.json", 2, clock).spend()
    assert caught.value.retry_after == timedelta(minutes=40)
    clock.now = NOW + HOUR
    Budget(tmp_path / "asked.json", 2, clock).spend()


@given(
    st.lists(st.timedeltas(timedelta(), timedelta(minutes=30)), min_size=1, max_size=40),
    st.integers(min_value=1, max_value=5),
)
def test_no_hour_ever_sees_more_than_the_limit(
    tmp_path_factory: pytest.TempPathFactory, pauses: list[timedelta], per_hour: int
) -> None:
    clock, asked = Clock(), []
    budget = Budget(tmp_path_factory.mktemp("b") / "asked.json", per_hour, clock)
    for pause in pauses:
        clock.now += pause
        with suppress(IssueFailed):
            budget.spend()
            asked.append(clock.now)
    assert all(sum(at - HOUR < other <= at for other in asked) <= per_hour for at in asked)


def test_a_clock_that_was_ahead_once_does_not_close_an_issuer_for_ever(tmp_path: Path) -> None:
    clock = Clock()
    budget = Budget(tmp_path / "asked.json", 1, clock)
    clock.now = NOW + timedelta(days=400)
    budget.spend()
    budget.close(HOUR)
    clock.now = NOW
    budget.spend()


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        (None, None),
        ("", None),
        ("0", None),
        ("-5", None),
        ("120", timedelta(minutes=2)),
        ("Mon, 01 Jun 2026 01:00:00 GMT", HOUR),
        ("Mon, 01 Jun 2020 01:00:00 GMT", None),
        ("soon", None),
        ("9" * 400, None),
        ("99999999", timedelta(days=7)),
    ],
)
def test_what_a_retry_after_header_asks_for(header: str | None, wait: timedelta | None) -> None:
    assert waiting_time(header, NOW) == wait


def test_challenges_are_answered_while_there_are_any_and_the_address_is_free_otherwise() -> None:
    port = free_port()
    responder = Responder("127.0.0.1", port)

    def get(path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    assert is_free(port)
    with responder.serving("/a", "one"):
        with responder.serving("/b", "two"):
            assert [get("/a"), get("/b")] == ["one", "two"]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get("/b")
    assert is_free(port)
    with responder.serving("/c", "three"):
        assert get("/c") == "three"


async def test_work_beside_the_loop_gives_its_result_or_its_error_or_is_left_alone() -> None:
    assert await beside(lambda: 7, HOUR) == 7
    with pytest.raises(ZeroDivisionError):
        await beside(lambda: 1 / 0, HOUR)
    hangs = threading.Event()
    with pytest.raises(TimeoutError):
        await beside(hangs.wait, timedelta(milliseconds=10))
    hangs.set()


async def test_work_that_ends_after_everybody_left_disturbs_nobody() -> None:
    release, ended = threading.Event(), threading.Event()

    def late() -> None:
        release.wait()
        ended.set()

    task = asyncio.create_task(beside(late, HOUR))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    release.set()
    await asyncio.to_thread(ended.wait, 5)
    await asyncio.sleep(0)
