"""Which backends are left by a change, and how their idle connections are ended until there are none."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mcproxy.drain import Address, Drain, Left, connections, left
from mcproxy.model import Entry, RouteKey, State, Upstream
from mcproxy.runtime import own_pid
from tests.unit.mcproxy.states import MAIN, l4, l7

WEB, RAW = RouteKey(MAIN, "web.test"), RouteKey(MAIN, "raw.test")
BACKENDS = {WEB: "l7:443:web.test", RAW: "l4:443:raw.test"}
BEFORE = State().with_entry(MAIN, l7()).with_entry(MAIN, l4())
OLD, NEW = Address("127.0.0.1", 9001), Address("127.0.0.1", 9002)
HEAD = "# bkname/svname bkid/svid addr port - purge_delay used_cur used_max need_est unsafe_nb safe_nb idle_cur "


def _answer(used: int, idle: int) -> str:
    return f"{HEAD}idle_per_thr[2]\nl7:443:web.test/backend 6/1 127.0.0.1 9001 - 500 {used} 1 1 0 1 {idle} 0 1\n\n"


@pytest.mark.parametrize(
    ("entry", "new"),
    [
        (l7(backend="127.0.0.1:9002"), NEW),
        (l7(backend="127.0.0.1:9002", h2c=True), None),
        (l7(backend="127.0.0.1:9002", backend_tls=True), None),
        (replace(l7(), upstream=Upstream(None)), None),
    ],
)
def test_a_backend_is_left_when_its_route_leads_elsewhere(entry: Entry, new: Address | None) -> None:
    """The new one can only stand in for it where both are spoken to alike."""
    assert left(BEFORE, BEFORE.with_entry(MAIN, entry), BACKENDS) == [Left("l7:443:web.test", OLD, new, pooled=True)]


def test_the_backend_of_a_route_that_goes_is_left() -> None:
    (place,) = left(BEFORE, BEFORE.without_entry(RAW), BACKENDS)
    assert (place.backend, place.new, place.pooled) == ("l4:443:raw.test", None, False)


@pytest.mark.parametrize("entry", [l7(digest="f" * 64), l7(h2c=True)])
def test_a_backend_that_stays_where_it_is_is_not_left(entry: Entry) -> None:
    assert left(BEFORE, BEFORE.with_entry(MAIN, entry), BACKENDS) == []


@pytest.mark.parametrize(("new", "ends"), [(NEW, NEW), (None, OLD)])
def test_a_purge_changes_the_address_and_ends_at_the_newest(new: Address | None, ends: Address) -> None:
    away, there = Left("l7:443:web.test", OLD, new, pooled=True).purge()
    assert there == f"set server l7:443:web.test/backend {ends}"
    assert away != there


def test_connections_are_counted() -> None:
    assert connections(_answer(3, 2)) == (3, 2)
    assert connections(HEAD) == (0, 0)


async def test_a_backend_is_purged_until_nothing_leads_there_any_more() -> None:
    states: Iterator[tuple[int, int]] = iter([(1, 1), (1, 0), (0, 1), (0, 0)])
    told: list[str] = []
    empty = asyncio.Event()

    async def tell(command: str) -> str:
        told.append(command.partition(" ")[0])
        if not command.startswith("show"):
            return ""
        used, idle = next(states)
        if not used and not idle:
            empty.set()
        return _answer(used, idle)

    drain = Drain()
    await drain.begin(Left("l7:443:web.test", OLD, NEW, pooled=True), tell)
    await asyncio.wait_for(empty.wait(), 5)
    await drain.close()
    purge = ["set", "set"]
    assert told == [*purge, "show", *purge, "show", "show", *purge, "show"]


async def test_a_worker_that_left_is_not_asked_any_more() -> None:
    asked = asyncio.Event()

    async def tell(command: str) -> str:
        if command.startswith("show"):
            asked.set()
            raise ConnectionRefusedError
        return ""

    drain = Drain()
    await drain.begin(Left("l7:443:web.test", OLD, NEW, pooled=True), tell)
    await asyncio.wait_for(asked.wait(), 5)
    await drain.close()


def test_a_worker_tells_its_pid() -> None:
    assert own_pid("Name: HAProxy\nPid: 4711\nUptime: 0\n") == 4711
    with pytest.raises(OSError, match="pid"):
        own_pid("")
