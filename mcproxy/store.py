"""What must survive a restart, in SQLite: one connection, one writer, one transaction for each applied change."""

import json
import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mcproxy.model import FirewallRule, L7Policy, Route, RouteKey, State

_SCHEMA = """
CREATE TABLE route (
  listener TEXT NOT NULL, hostname TEXT NOT NULL,
  backend TEXT NOT NULL, mode TEXT NOT NULL, tls_cert TEXT NOT NULL, tls_key TEXT NOT NULL,
  backend_tls INTEGER NOT NULL, send_proxy_protocol INTEGER NOT NULL, l7_policies TEXT NOT NULL,
  bundle TEXT,
  PRIMARY KEY (listener, hostname)
) STRICT;
CREATE TABLE firewall_rule (
  type TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (type, value)
) STRICT;
CREATE TABLE listener_limit (
  listener TEXT NOT NULL PRIMARY KEY, max_connections INTEGER NOT NULL
) STRICT;
"""
_VERSION = 1


@dataclass(frozen=True)
class StoredRoute:
    """A route as it was programmed; `bundle` is the digest of the certificate it was last served with."""

    listener: str
    route: Route
    bundle: str | None

    @property
    def key(self) -> RouteKey:
        """What identifies the route."""
        return RouteKey(self.listener, self.route.hostname)


@dataclass(frozen=True)
class Stored:
    """All that the database holds."""

    routes: tuple[StoredRoute, ...]
    firewall: tuple[FirewallRule, ...]
    limits: dict[str, int]


class Store:
    """The database file, made 0600 with its folder when missing. Every method may raise sqlite3.Error."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        # Writes run in worker threads, one at a time: the table applies one change after another.
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        # An answered change survives a power cut.
        self._db.execute("PRAGMA synchronous = FULL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _VERSION):
            self._db.close()
            raise sqlite3.DatabaseError(f"{path} has schema version {version}, this mcproxyd knows {_VERSION}")
        self.is_new = version == 0

    def close(self) -> None:
        """Ends the connection and checkpoints the log."""
        self._db.close()

    def create(self, seed: State) -> None:
        """Makes the tables and fills them with `seed` in one transaction, so that it is seeded once or not at all."""
        script = f"BEGIN IMMEDIATE;{_SCHEMA}PRAGMA user_version = {_VERSION};"
        try:
            self._db.executescript(script)
            self._write(State(), seed)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self.is_new = False

    def load(self) -> Stored:
        """What was last written."""
        routes = self._db.execute(
            "SELECT listener, bundle, hostname, backend, mode, tls_cert, tls_key, backend_tls, send_proxy_protocol,"
            " l7_policies FROM route ORDER BY listener, hostname"
        )
        firewall = self._db.execute("SELECT type, value FROM firewall_rule ORDER BY rowid")
        return Stored(
            tuple(StoredRoute(listener, _route(columns), bundle) for listener, bundle, *columns in routes),
            tuple(FirewallRule.model_validate({"type": kind, "value": value}) for kind, value in firewall),
            dict(self._db.execute("SELECT listener, max_connections FROM listener_limit")),
        )

    def write(self, before: State, after: State) -> None:
        """Makes the database say `after` where it differs from `before`: one transaction, durable on return."""
        if _unchanged(before, after):
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._write(before, after)
            self._db.execute("COMMIT")
        except BaseException:
            self._db.execute("ROLLBACK")
            raise

    def _write(self, before: State, after: State) -> None:
        gone = before.entries.keys() - after.entries.keys()
        self._db.executemany("DELETE FROM route WHERE listener = ? AND hostname = ?", gone)
        self._db.executemany("INSERT OR REPLACE INTO route VALUES (?,?,?,?,?,?,?,?,?,?)", _rows(before, after))
        if before.firewall != after.firewall:
            self._db.execute("DELETE FROM firewall_rule")
            rules = [(rule.type, rule.value) for rule in after.firewall]
            self._db.executemany("INSERT INTO firewall_rule VALUES (?, ?)", rules)
        limits = after.limits.items() - before.limits.items()
        self._db.executemany("INSERT OR REPLACE INTO listener_limit VALUES (?, ?)", limits)


def snapshot(database: Path, target: Path) -> None:
    """A consistent copy of a database in use, 0600 and durable. Raises FileExistsError, OSError or sqlite3.Error."""
    if target.exists():
        raise FileExistsError(f"{target} exists already")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.unlink(missing_ok=True)
    db = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        # VACUUM INTO creates its file with the umask's mode, but keeps one that is there and empty.
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        db.execute("VACUUM INTO ?", (str(part),))
    finally:
        db.close()
    _sync(part)
    part.rename(target)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unchanged(before: State, after: State) -> bool:
    kept = before.entries.keys() == after.entries.keys() and not any(True for _ in _rows(before, after))
    return kept and before.firewall == after.firewall and before.limits == after.limits


def _rows(before: State, after: State) -> Iterable[tuple[object, ...]]:
    """One row for each route whose stored columns differ."""
    for key, entry in after.entries.items():
        known = before.entries.get(key)
        if known is not None and known.route == entry.route and known.bundle == entry.bundle:
            continue
        route = entry.route
        policies = json.dumps([policy.model_dump(mode="json") for policy in route.l7_policies])
        yield (
            *(key.listener, key.hostname, route.backend, route.mode, route.tls_cert, route.tls_key),
            *(route.backend_tls, route.send_proxy_protocol, policies),
            entry.bundle.digest if entry.bundle else None,
        )


def _route(columns: list[object]) -> Route:
    hostname, backend, mode, tls_cert, tls_key, backend_tls, send_proxy_protocol, policies = columns
    return Route.model_validate(
        {
            "hostname": hostname,
            "backend": backend,
            "mode": mode,
            "tls_cert": tls_cert,
            "tls_key": tls_key,
            "backend_tls": bool(backend_tls),
            "send_proxy_protocol": bool(send_proxy_protocol),
            "l7_policies": tuple(L7Policy.model_validate(policy) for policy in json.loads(str(policies))),
        }
    )
