"""Each way in which SQLite fails has its sentence."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError

from controller.registry.failures import reason, worth_another_try


def full(path: Path) -> list[str]:
    return ["PRAGMA max_page_count = 3", "CREATE TABLE t (x)", "INSERT INTO t VALUES (zeroblob(100000))"]


def read_only(path: Path) -> list[str]:
    return ["PRAGMA query_only = 1", "CREATE TABLE t (x)"]


def damaged(path: Path) -> list[str]:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 1000,)] * 50)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 40000)
    return ["SELECT * FROM t"]


def foreign(path: Path) -> list[str]:
    path.write_bytes(b"nonsense" * 1000)
    return ["CREATE TABLE t (x)"]


def a_folder(path: Path) -> list[str]:
    path.mkdir()
    return ["CREATE TABLE t (x)"]


@pytest.mark.parametrize(
    ("breakage", "sentence"),
    [
        (full, "the disk is full"),
        (read_only, "it is read-only"),
        (damaged, "it is corrupt"),
        (foreign, "it is corrupt or not an SQLite database"),
        (a_folder, "it cannot be opened"),
    ],
)
def test_the_reason_is_one_sentence(breakage: Callable[[Path], list[str]], sentence: str, tmp_path: Path):
    path = tmp_path / "broken.db"
    statements = breakage(path)
    engine = create_engine(f"sqlite:///{path}")
    with pytest.raises(DBAPIError) as failure:
        _execute(engine, statements)
    assert reason(failure.value).startswith(sentence)
    assert not worth_another_try(failure.value)
    engine.dispose()


def _execute(engine: Engine, statements: list[str]) -> None:
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement).close()
