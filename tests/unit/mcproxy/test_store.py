"""What is written comes back, and nothing is half written."""

import sqlite3
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from mcproxy.model import Bundle, RouteKey, State
from mcproxy.store import Store, snapshot
from tests.unit.mcproxy.states import MAIN, everything, l4, l7


def _same(store: Store, state: State) -> bool:
    stored = store.load()
    wanted = {key: (entry.route, entry.bundle and entry.bundle.digest) for key, entry in state.entries.items()}
    found = {route.key: (route.route, route.bundle) for route in stored.routes}
    return found == wanted and stored.firewall == state.firewall and stored.limits == state.limits


def test_everything_comes_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "db")
    assert store.is_new
    store.create(everything())
    store.close()
    again = Store(tmp_path / "new" / "db")
    assert not again.is_new
    assert _same(again, everything())
    again.close()
    assert stat.S_IMODE((tmp_path / "new" / "db").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_each_difference_is_written(tmp_path: Path) -> None:
    full = everything()
    key = RouteKey(MAIN, "web.test")
    steps = [
        full,
        full.without_entry(key),
        full.with_entry(MAIN, l4("web.test")),
        full.with_entry(MAIN, l7(digest="f" * 64)),
        full.with_firewall(full.firewall[::-1]),
        full.with_firewall(()),
        full.with_limit(MAIN, 0),
        State(limits=full.limits),
    ]
    store = Store(tmp_path / "db")
    store.create(State())
    before = State()
    for after in steps:
        store.write(before, after)
        assert _same(store, after)
        before = after
    store.close()


def test_what_only_the_data_plane_knows_is_not_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    before = State().with_entry(MAIN, l7())
    store.create(before)
    store.close()
    entry = l7()
    after = State().with_entry(MAIN, replace(entry, upstream=replace(entry.upstream, h2c=True)))
    # A closed database would refuse any statement.
    store.write(before, after)


def test_a_failed_write_leaves_the_former_state(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    store.create(everything())
    blocker = sqlite3.connect(tmp_path / "db")
    blocker.execute("CREATE TRIGGER no BEFORE INSERT ON listener_limit BEGIN SELECT RAISE(ABORT, 'no'); END")
    blocker.close()
    with pytest.raises(sqlite3.Error, match="no"):
        store.write(everything(), State(limits={MAIN: 1}))
    assert _same(store, everything())
    store.close()


def test_a_failed_seeding_is_done_again(tmp_path: Path) -> None:
    """A database is new until it has been seeded whole."""
    store = Store(tmp_path / "db")
    unwritable = replace(l7(), bundle=Bundle(["no text"], b""))  # type: ignore[arg-type]  # as a fault of ours would
    with pytest.raises(sqlite3.Error):
        store.create(everything().with_entry(MAIN, unwritable))
    store.close()
    again = Store(tmp_path / "db")
    assert again.is_new
    again.create(everything())
    assert _same(again, everything())
    again.close()


def test_a_database_of_another_version_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "db") as other:
        other.execute("PRAGMA user_version = 99")
    with pytest.raises(sqlite3.DatabaseError, match="schema version 99"):
        Store(tmp_path / "db")


def test_a_snapshot_of_a_database_in_use_is_whole(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    store.create(everything())
    target = tmp_path / "copies" / "copy.db"
    snapshot(tmp_path / "db", target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert [path.name for path in target.parent.iterdir()] == ["copy.db"]
    copy = Store(target)
    assert _same(copy, everything())
    copy.close()
    with pytest.raises(FileExistsError):
        snapshot(tmp_path / "db", target)
    store.close()


def test_a_snapshot_of_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.Error):
        snapshot(tmp_path / "none", tmp_path / "copy.db")
    assert list(tmp_path.iterdir()) == []
