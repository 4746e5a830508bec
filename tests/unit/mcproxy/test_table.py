"""The queue of changes, on a data plane that records and can be made to refuse."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from mcproxy.errors import Internal, InvalidArgument, NotFound, Refused, Unavailable
from mcproxy.master import ConfigRefused
from mcproxy.model import RouteKey, State
from mcproxy.table import Change, Table
from tests.unit.mcproxy.states import MAIN, l4


class Plane:
    """Serves what it was last given, unless a hostname in it is bad; `gate` holds an apply back."""

    def __init__(self) -> None:
        self.applied: list[State] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.down = False

    async def apply(self, state: State) -> None:
        await self.gate.wait()
        if self.down:
            raise Unavailable("down")
        if reason := await self.check(state):
            raise ConfigRefused(reason)
        self.applied.append(state)

    async def check(self, state: State) -> str | None:
        bad = [key.hostname for key in state.entries if key.hostname.startswith("bad")]
        return f"{bad[0]} is bad" if bad else None


class Journal:
    """Remembers the last state, unless it is broken."""

    def __init__(self) -> None:
        self.state = State()
        self.broken = False

    def write(self, before: State, after: State) -> None:
        if self.broken:
            raise sqlite3.OperationalError("disk full")
        assert before == self.state
        self.state = after


class Fixture:
    """A table that runs on both."""

    def __init__(self) -> None:
        self.plane = Plane()
        self.journal = Journal()
        self.table = Table(self.plane, self.journal, State())

    def names(self) -> list[str]:
        """The hostnames, which all three must agree on."""
        last = self.plane.applied[-1] if self.plane.applied else State()
        assert last == self.journal.state == self.table.state
        return sorted(key.hostname for key in self.table.state.entries)

    async def at_once(self, *changes: Change) -> list[BaseException | None]:
        """The outcomes of changes that arrive while another is being applied."""
        self.plane.gate.clear()
        first = asyncio.create_task(self.table.apply(adding("first.test")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        rest = [asyncio.create_task(self.table.apply(change)) for change in changes]
        await asyncio.sleep(0)
        self.plane.gate.set()
        await first
        return await asyncio.gather(*rest, return_exceptions=True)


@asynccontextmanager
async def _running() -> AsyncIterator[Fixture]:
    fixture = Fixture()
    task = asyncio.create_task(fixture.table.run())
    try:
        yield fixture
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def running() -> AsyncIterator[Fixture]:
    async with _running() as fixture:
        yield fixture


def adding(hostname: str) -> Change:
    """Adds a route."""
    return lambda state: state.with_entry(MAIN, l4(hostname))


def removing(hostname: str) -> Change:
    """Removes a route that must be there."""

    def remove(state: State) -> State:
        key = RouteKey(MAIN, hostname)
        if key not in state.entries:
            raise NotFound(hostname)
        return state.without_entry(key)

    return remove


async def test_changes_that_wait_are_applied_together(running: Fixture) -> None:
    outcomes = await running.at_once(*(adding(f"n{number}.test") for number in range(50)))
    assert outcomes == [None] * 50
    assert len(running.plane.applied) == 2
    assert len(running.names()) == 51


async def test_nothing_is_applied_for_what_is_there(running: Fixture) -> None:
    for _ in range(3):
        await running.table.apply(adding("a.test"))
    assert len(running.plane.applied) == 1
    outcomes = await running.at_once(adding("a.test"), removing("first.test"), adding("first.test"))
    assert outcomes == [None] * 3
    assert len(running.plane.applied) == 2


async def test_changes_keep_their_order(running: Fixture) -> None:
    outcomes = await running.at_once(adding("a.test"), removing("a.test"), removing("a.test"), adding("b.test"))
    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), NotFound, type(None)]
    assert running.names() == ["b.test", "first.test"]


async def test_what_the_data_plane_refuses_fails_alone(running: Fixture) -> None:
    """And so does what was built on it."""
    outcomes = await running.at_once(adding("a.test"), adding("bad.test"), removing("bad.test"), adding("b.test"))
    assert [type(outcome) for outcome in outcomes] == [type(None), type(None), type(None), type(None)]
    outcomes = await running.at_once(adding("c.test"), adding("bad.test"), adding("bad2.test"), adding("d.test"))
    assert [type(outcome) for outcome in outcomes] == [type(None), InvalidArgument, InvalidArgument, type(None)]
    assert "bad2.test is bad" in str(outcomes[2])
    outcomes = await running.at_once(adding("bad.test"), adding("e.test"), removing("bad.test"), adding("bad.test"))
    assert [type(outcome) for outcome in outcomes] == [InvalidArgument, type(None), NotFound, InvalidArgument]
    assert running.names() == ["a.test", "b.test", "c.test", "d.test", "e.test", "first.test"]


async def test_a_dead_data_plane_changes_nothing(running: Fixture) -> None:
    running.plane.down = True
    with pytest.raises(Unavailable):
        await running.table.apply(adding("a.test"))
    running.plane.down = False
    await running.table.apply(adding("b.test"))
    assert running.names() == ["b.test"]


async def test_a_failing_database_takes_the_change_back(running: Fixture) -> None:
    await running.table.apply(adding("a.test"))
    running.journal.broken = True
    with pytest.raises(Internal, match="disk full"):
        await running.table.apply(adding("b.test"))
    running.journal.broken = False
    assert running.names() == ["a.test"]


async def test_a_fault_of_our_own_reaches_the_caller_without_details(running: Fixture) -> None:
    def faulty(state: State) -> State:
        raise KeyError("secret")

    with pytest.raises(Internal) as failed:
        await running.table.apply(faulty)
    assert "secret" not in str(failed.value)
    await running.table.apply(adding("a.test"))
    assert running.names() == ["a.test"]


async def test_a_caller_that_left_does_not_matter(running: Fixture) -> None:
    running.plane.gate.clear()
    calls = [asyncio.create_task(running.table.apply(adding(f"n{number}.test"))) for number in range(3)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    running.plane.gate.set()
    await running.table.apply(adding("last.test"))
    assert "last.test" in running.names()


@pytest.mark.parametrize("error", [InvalidArgument, NotFound])
async def test_a_refused_change_is_not_applied(running: Fixture, error: type[Refused]) -> None:
    def refused(state: State) -> State:
        raise error("no")

    change: Callable[[State], State] = refused
    with pytest.raises(error, match="no"):
        await running.table.apply(change)
    assert running.plane.applied == []
