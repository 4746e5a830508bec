"""Says in one sentence why a database cannot be read or written."""

import sqlite3
from typing import Final

from sqlalchemy.exc import DBAPIError

_SQLITE: Final = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "it is read-only",
    sqlite3.SQLITE_BUSY: "it is locked by another process",
    sqlite3.SQLITE_LOCKED: "it is locked by another process",
    sqlite3.SQLITE_CORRUPT: "it is corrupt: restore it from a backup",
    sqlite3.SQLITE_NOTADB: "it is corrupt or not an SQLite database: restore it from a backup",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: look at the rights of the file and its folder",
    sqlite3.SQLITE_IOERR: "the disk fails to read or write",
}

_POSTGRES: Final = {
    "25006": "it is read-only",
    "28000": "it refuses this user",
    "28P01": "it refuses this user's password",
    "3D000": "there is no such database",
    "42501": "its user lacks a right",
    "53100": "its disk is full",
    "53300": "it has no connection left",
    "55P03": "it is locked by another process",
    "57P01": "it is shutting down",
    "57P02": "it crashed",
    "57P03": "it is starting up",
    "XX001": "it is corrupt: restore it from a backup",
    "XX002": "it is corrupt: restore it from a backup",
}

_AGAIN: Final = ("40", "08", "57P", "23")
"""SQLSTATE classes after which the same transaction may well succeed: it lost a race, or its connection."""


def reason(error: DBAPIError) -> str:
    """Why, without the statement and without secrets."""
    # An extended code, such as "read-only because the file was moved", has the plain one in its low byte.
    sqlite_code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
    return _SQLITE.get(sqlite_code) or _POSTGRES.get(_sqlstate(error)) or _first_line(error.orig)


def worth_another_try(error: DBAPIError) -> bool:
    """Whether the transaction, which did not commit, is tried again at once; SQLite waited already."""
    return error.connection_invalidated or _sqlstate(error).startswith(_AGAIN)


def _sqlstate(error: DBAPIError) -> str:
    """PostgreSQL's code for what happened; empty where the server said nothing, and with SQLite."""
    return getattr(error.orig, "sqlstate", None) or ""


def _first_line(error: BaseException | None) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
