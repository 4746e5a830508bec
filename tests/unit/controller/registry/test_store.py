"""One writer, whose transactions are whole: cancelled callers, lost connections, broken files."""

import asyncio
import os
import sqlite3
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url, text

from api.errors import RegistryUnavailable
from controller.registry import ChangeKind, Registry, RegistryChange
from controller.registry.engines import Mode
from controller.registry.store import Store, Transaction
from tests.unit.controller.registry.conftest import pending
from tests.unit.controller.registry.samples import claim, spec


async def test_a_cancelled_caller_s_transactions_are_finished_and_told(registry, changes):
    names = [f"svc-{number:02}" for number in range(20)]
    callers = [asyncio.create_task(registry.apply(spec(name), actor="ann")) for name in names]
    await asyncio.sleep(0)
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    assert all(caller.cancelled() for caller in callers)
    assert [service.name for service in await registry.services()] == names
    assert [change.service for change in await changes() if change.kind is ChangeKind.SPEC] == names


async def test_closing_waits_for_what_was_asked_for(url):
    registry = await Registry.open(url, "rift")
    applying = asyncio.create_task(registry.apply(spec(), actor="ann"))
    await asyncio.sleep(0)
    await registry.close()
    assert applying.done()
    await registry.close()
    with pytest.raises(RegistryUnavailable, match="is closed"):
        await registry.services()
    again = await Registry.open(url, "rift")
    assert len(await again.services()) == 1
    await again.close()


async def test_folder_and_files_are_the_owners_alone(sqlite, tmp_path):
    before = os.umask(0)
    try:
        registry = await Registry.open(sqlite, "rift")
        await registry.apply(spec(), actor="ann")
    finally:
        os.umask(before)
    folder = tmp_path / "state"
    assert folder.stat().st_mode & 0o777 == 0o700
    files = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert files.keys() >= {"registry.db", "registry.db-wal", "registry.db.lock"}
    assert set(files.values()) == {0o600}
    await registry.close()


async def test_a_second_agent_on_the_same_file_is_refused(sqlite):
    first = await Registry.open(sqlite, "rift")
    with pytest.raises(RegistryUnavailable, match="is served by another agent"):
        await Registry.open(sqlite, "rift")
    await first.apply(spec(), actor="ann")
    await first.close()
    second = await Registry.open(sqlite, "rift")
    await second.close()


async def test_what_is_wanted_is_on_the_disk_and_what_is_observed_may_be_late(sqlite):
    store = await Store.open(sqlite)
    found = {mode: await store.run(_synchronous, mode) for mode in (Mode.OBSERVATION, Mode.DURABLE)}
    await store.close()
    assert found == {Mode.OBSERVATION: 1, Mode.DURABLE: 2}


def _synchronous(transaction: Transaction) -> int:
    return int(transaction.session.scalar(text("PRAGMA synchronous")) or 0)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "not a database URL"),
        ("nonsense", "not a database URL"),
        ("mysql://x/y", 'cannot be kept in "mysql"'),
        ("sqlite://", "names no file"),
        ("sqlite:////proc/none/registry.db", "cannot be opened: No such file or directory"),
        ("postgresql://ann:secret@127.0.0.1:1/mcp", "refused"),
        ("postgresql+psycopg://ann@/mcp?host=/nowhere", "No such file or directory"),
    ],
)
async def test_a_registry_that_cannot_be_opened_says_why_in_one_sentence(url, sentence):
    with pytest.raises(RegistryUnavailable, match=sentence) as failure:
        await Registry.open(url, "rift")
    assert "secret" not in failure.value.message
    assert "\n" not in failure.value.message


async def test_a_file_that_is_no_database_is_corrupt(sqlite, tmp_path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "registry.db").write_bytes(b"nonsense" * 1000)
    with pytest.raises(RegistryUnavailable, match="corrupt"):
        await Registry.open(sqlite, "rift")


async def test_a_damaged_database_is_refused(sqlite, tmp_path):
    registry = await Registry.open(sqlite, "rift")
    for number in range(50):
        await registry.apply(spec(f"svc-{number}"), actor="ann")
    await registry.close()
    path = tmp_path / "state" / "registry.db"
    with path.open("r+b") as file:
        file.seek(4096 + 100)
        file.write(b"\xff" * (path.stat().st_size - 4196))
    with pytest.raises(RegistryUnavailable, match="corrupt"):
        await Registry.open(sqlite, "rift")


async def test_a_record_that_cannot_be_read_is_told_and_nothing_else(registry, url):
    await registry.apply(spec(), actor="ann")
    await registry.close()
    store = await Store.open(url)
    await store.run(lambda transaction: _execute(transaction, "UPDATE services SET spec = '{}'"), Mode.DURABLE)
    await store.close()
    again = await Registry.open(url, "rift")
    with pytest.raises(RegistryUnavailable, match="cannot read"):
        await again.services()
    await again.ping()
    await again.close()


def _execute(transaction: Transaction, statement: str) -> None:
    transaction.session.execute(text(statement))


async def test_a_full_disk_is_told_and_takes_nothing_with_it(sqlite):
    store = await Store.open(sqlite)
    await store.run(lambda transaction: _execute(transaction, "CREATE TABLE t (x)"), Mode.DURABLE)
    await store.run(lambda transaction: _execute(transaction, "PRAGMA max_page_count = 60"), Mode.READ)
    with pytest.raises(RegistryUnavailable, match="the disk is full"):
        await store.run(
            lambda transaction: _execute(transaction, "INSERT INTO t VALUES (zeroblob(1000000))"), Mode.DURABLE
        )
    await store.run(lambda transaction: _execute(transaction, "INSERT INTO t VALUES (1)"), Mode.DURABLE)
    count = text("SELECT count(*) FROM t")
    assert await store.run(lambda transaction: transaction.session.scalar(count), Mode.READ) == 1
    await store.close()


async def test_a_lock_of_another_process_is_told_and_passes(sqlite, tmp_path: Path):
    registry = await Registry.open(sqlite, "rift")
    other = sqlite3.connect(tmp_path / "state" / "registry.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert await registry.services() == ()
    with pytest.raises(RegistryUnavailable, match="locked by another process"):
        await registry.apply(spec(), actor="ann")
    other.execute("ROLLBACK")
    other.close()
    await registry.apply(spec(), actor="ann")
    await registry.close()


def _admin(url: str) -> psycopg.Connection[tuple[object, ...]]:
    place = make_url(url)
    return psycopg.connect(dbname=place.database, user=place.username, host=str(place.query["host"]), autocommit=True)


def _end_connections(url: str) -> None:
    with _admin(url) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


async def test_a_connection_lost_between_transactions_is_made_anew(postgres_url):
    registry = await Registry.open(postgres_url, "rift")
    _end_connections(postgres_url)
    await registry.apply(spec(), actor="ann")
    _end_connections(postgres_url)
    assert len(await registry.services()) == 1
    await registry.close()


async def test_a_transaction_whose_connection_breaks_before_the_commit_is_done_once(postgres_url):
    store = await Store.open(postgres_url)
    subscription = store.hub.subscribe()
    runs = []

    def work(transaction: Transaction) -> str:
        runs.append(1)
        _execute(transaction, "CREATE TABLE once (x int)")
        transaction.changed("hello", ChangeKind.SPEC)
        if len(runs) == 1:
            _end_connections(postgres_url)
        _execute(transaction, "INSERT INTO once VALUES (1)")
        return "done"

    assert await store.run(work, Mode.DURABLE) == "done"
    assert len(runs) == 2
    assert await pending(subscription) == [RegistryChange("hello", ChangeKind.SPEC)]
    await store.close()


async def test_a_connection_that_keeps_breaking_is_told(postgres_url):
    store = await Store.open(postgres_url)

    def work(transaction: Transaction) -> None:
        _end_connections(postgres_url)
        _execute(transaction, "SELECT 1")

    with pytest.raises(RegistryUnavailable, match="shutting down"):
        await store.run(work, Mode.DURABLE)
    await store.run(lambda transaction: _execute(transaction, "SELECT 1"), Mode.READ)
    await store.close()


async def test_a_commit_of_unknown_end_is_not_repeated_but_everyone_looks_again(postgres_url):
    registry = await Registry.open(postgres_url, "rift")
    with _admin(postgres_url) as admin:
        admin.execute(
            "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1); RETURN NULL; END $$"
        )
        admin.execute(
            "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON services DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW EXECUTE FUNCTION die()"
        )
    async with registry.subscribe() as subscription:
        with pytest.raises(RegistryUnavailable, match="not known whether"):
            await registry.apply(spec(), actor="ann")
        assert await pending(subscription) == [
            RegistryChange("hello", ChangeKind.SPEC),
            RegistryChange("hello", ChangeKind.EVENT),
        ]
    assert await registry.services() == ()
    await registry.close()


async def test_two_agents_of_one_node_are_kept_apart_by_the_database(postgres_url):
    first = await Registry.open(postgres_url, "rift")
    second = await Registry.open(postgres_url, "rift")
    names = [f"svc-{number}" for number in range(20)]
    for name in names:
        await asyncio.gather(*(agent.apply(spec(name), actor="ann") for agent in (first, second)))
    assert [service.generation for service in await first.services()] == [1] * 20
    for number in range(0, 20, 2):
        outcomes = await asyncio.gather(
            first.claim_route(names[number], claim(f"{number}.example")),
            second.claim_route(names[number + 1], claim(f"{number}.example")),
            first.allocate_port(names[number], "web", "default", 10000 + number),
            second.allocate_port(names[number + 1], "web", "default", 10000 + number),
            return_exceptions=True,
        )
        assert sorted(str(type(outcome).__name__) for outcome in outcomes) == [
            "Claimed",
            "NoneType",
            "NoneType",
            "PortTaken",
        ]
    await first.close()
    await second.close()
