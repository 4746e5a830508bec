"""One thread, one connection, one transaction at a time: the database made asynchronous, its writes in order."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, Self, TypeVar

from pydantic import ValidationError
from sqlalchemy import URL, Engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from api.errors import RegistryUnavailable
from api.service import Event, Service
from controller.registry.engines import FileLock, Mode, make_engine, parse_url, where
from controller.registry.failures import reason, worth_another_try
from controller.registry.records import ChangeKind, RegistryChange
from controller.registry.schema import migrate
from controller.registry.subscription import Hub

P = ParamSpec("P")
T = TypeVar("T")

_ATTEMPTS: Final = 3
_PAUSE_S: Final = 0.05
_WORTH_ONE_BY_ONE: Final = 8
"""Where more than one service in so many changed, reading all at once is less work."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """What one piece of work does, and what it will have changed once committed."""

    session: Session
    changes: list[RegistryChange] = field(default_factory=list)

    def changed(self, service: str, kind: ChangeKind, event: Event | None = None) -> None:
        """Tells subscribers, after the commit."""
        self.changes.append(RegistryChange(service, kind, event))


Work = Callable[[Transaction], T]
ReadOne = Callable[[Transaction, str], Service | None]


class _NotCommitted(Exception):
    """The transaction certainly did not commit, and may succeed when tried again."""


class Store:
    """Runs transactions in its own thread, in the order in which they were asked for."""

    def __init__(self, engine: Engine, lock: FileLock | None, name: str) -> None:
        self._engine = engine
        self._lock = lock
        self._name = name
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="registry")
        self._loop = asyncio.get_running_loop()
        # Used in the worker's thread only, as the database is.
        self._known: dict[str, Service] = {}
        self._unread: set[str] | None = None
        """What changed since all services were read; None where they never were."""
        self.hub = Hub()

    @classmethod
    async def open(cls, url: str) -> Self:
        """Makes, locks and migrates the database. Raises RegistryUnavailable."""
        parsed = parse_url(url)
        name = where(parsed)
        lock = _lock(parsed, name)
        store = cls(make_engine(parsed), lock, name)
        try:
            await store.run(store._check, Mode.READ)
            await store.run(lambda transaction: migrate(transaction.session.connection(), name), Mode.DURABLE)
        except BaseException:
            await store.close()
            raise
        return store

    async def run(self, work: Work[T], mode: Mode) -> T:
        """The result of `work`, committed and told to subscribers.

        A transaction that was asked for is carried out even if nobody waits for
        it any more. `work` may run several times, and must touch nothing but
        its transaction. Raises what `work` raises, having changed nothing, and
        RegistryUnavailable.
        """
        return await self._in_turn(self._transact, work, mode)

    async def recall(self, service: str, one: ReadOne) -> Service | None:
        """What `one` reads of that service, from memory where nothing of it changed since it was read last.

        It is as if it had been read: nobody else writes a database that this
        process has locked, all that this process changes passes by here, and
        the order is the same. A database that others may write is read each time.
        """
        return await self._in_turn(self._recall, service, one)

    async def recall_every(self, one: ReadOne, every: Work[tuple[Service, ...]]) -> tuple[Service, ...]:
        """All services by name, likewise: only those are read that changed."""
        return await self._in_turn(self._recall_every, one, every)

    async def check(self) -> str:
        """What the database is called, where it is whole. Raises RegistryUnavailable."""
        await self.run(self._check, Mode.READ)
        return self._name

    async def _in_turn(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            job = self._loop.run_in_executor(self._worker, partial(function, *args, **kwargs))
        except RuntimeError:
            raise RegistryUnavailable(f"{self._name} is closed") from None
        return await asyncio.shield(job)

    async def close(self) -> None:
        """Ends once all transactions asked for are done."""
        self.hub.close()
        try:
            last = self._loop.run_in_executor(self._worker, self._release)
        except RuntimeError:
            return
        self._worker.shutdown(wait=False)
        await asyncio.shield(last)

    def _release(self) -> None:
        self._engine.dispose()
        if self._lock is not None:
            self._lock.release()

    def _recall(self, service: str, one: ReadOne) -> Service | None:
        if service in self._known:
            return self._known[service]
        found = self._transact(lambda transaction: one(transaction, service), Mode.READ)
        if found is not None and self._lock is not None:
            self._known[service] = found
        return found

    def _recall_every(self, one: ReadOne, every: Work[tuple[Service, ...]]) -> tuple[Service, ...]:
        if self._unread is None or len(self._unread) > len(self._known) // _WORTH_ONE_BY_ONE:
            found = self._transact(every, Mode.READ)
            if self._lock is not None:
                self._known = {service.name: service for service in found}
                self._unread = set()
            return found
        for name in self._unread:
            self._recall(name, one)
        self._unread.clear()
        return tuple(self._known[name] for name in sorted(self._known))

    def _transact(self, work: Work[T], mode: Mode) -> T:
        attempts = Retrying(
            retry=retry_if_exception_type(_NotCommitted),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_fixed(_PAUSE_S),
            reraise=True,
        )
        try:
            for attempt in attempts:
                with attempt:
                    result, changes = self._attempt(work, mode)
        except _NotCommitted as failure:
            raise self._unavailable(failure.__cause__) from failure.__cause__
        except (SQLAlchemyError, ValidationError) as error:
            raise self._unavailable(error) from error
        if changes:
            self._publish(changes)
        return result

    def _attempt(self, work: Work[T], mode: Mode) -> tuple[T, list[RegistryChange]]:
        with Session(self._engine, expire_on_commit=False) as session:
            try:
                session.connection(execution_options={"mode": mode})
                transaction = Transaction(session)
                result = work(transaction)
                session.flush()
            except DBAPIError as error:
                if worth_another_try(error):
                    raise _NotCommitted from error
                raise
            try:
                session.commit()
            except DBAPIError as error:
                if error.connection_invalidated:
                    # Whoever cares must look at what holds now.
                    self._publish([replace(change, event=None) for change in transaction.changes])
                    raise RegistryUnavailable(
                        f"{self._name} broke off: it is not known whether the last change was kept"
                    ) from error
                raise
            return result, transaction.changes

    def _publish(self, changes: list[RegistryChange]) -> None:
        for change in changes:
            self._known.pop(change.service, None)
            if self._unread is not None:
                self._unread.add(change.service)
        # Queued before the caller's own wake-up: who sees a method return has its changes in the subscription.
        self._loop.call_soon_threadsafe(self.hub.publish, changes)

    def _unavailable(self, error: BaseException | None) -> RegistryUnavailable:
        if isinstance(error, DBAPIError):
            return RegistryUnavailable(f"{self._name} cannot be used: {reason(error)}")
        if isinstance(error, ValidationError):
            return RegistryUnavailable(f"{self._name} holds a record that this version of MCP cannot read: {error}")
        return RegistryUnavailable(f"{self._name} cannot be used: {error}")

    def _check(self, transaction: Transaction) -> None:
        """Nothing may be decided from a registry that is half readable."""
        if self._engine.dialect.name == "sqlite":
            found = transaction.session.scalar(text("PRAGMA quick_check(1)"))
            if found != "ok":
                raise RegistryUnavailable(f"{self._name} is corrupt: restore it from a backup ({found})")


def _lock(url: URL, name: str) -> FileLock | None:
    if url.get_backend_name() != "sqlite":
        return None
    try:
        return FileLock(Path(str(url.database)))
    except OSError as error:
        raise RegistryUnavailable(f"{name} cannot be opened: {error.strerror}: {error.filename}") from error
