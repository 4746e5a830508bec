"""Follows services until they are where they should be: one way for apply, delete and watch.

Whoever changes something subscribes first, so that no change is missed between
the answer and the first look. A stream that breaks, as it does when the agent
restarts, is opened again.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential_jitter

from api.client import Client
from api.conditions import ConditionType, Reason, Status
from api.control_plane import Watched
from api.errors import McpError, NotFound, RegistryUnavailable, Unreachable
from api.service import Convergence, Service, convergence

T = TypeVar("T")

Goal = Callable[[Service | None], tuple[Convergence, str]]
"""Whether a service is where it should be (None: it is gone), and what is awaited or wrong."""

AWAY = (Unreachable, RegistryUnavailable)
"""What is over once the agent is back."""

_SNAPSHOT_SECONDS = 10.0
"""So long an agent may take to tell what there is; then it is as if it did not answer."""

Lost = Callable[[McpError | None], None]
"""Is told, once each time, that an agent cannot be heard any more and, with None, that it is again."""


class End(StrEnum):
    """How the wait for a service ended."""

    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed-out"


@dataclass(frozen=True, slots=True)
class Settled:
    """A service for which there is nothing more to wait."""

    name: str
    end: End
    message: str
    service: Service | None = None
    """As it was last seen."""


@dataclass(slots=True)
class Follower:
    """The services as last seen, and their changes as they come."""

    client: Client
    names: Collection[str]
    services: dict[str, Service] = field(default_factory=dict)
    away: str = ""
    """Why the agent cannot be heard at the moment."""
    lost: Lost = lambda _: None
    _news: asyncio.Queue[Watched | Exception] = field(default_factory=asyncio.Queue)

    async def changes(self) -> AsyncIterator[Watched]:
        """The snapshot, `synced`, then each change, across restarts of the agent; never ends by itself."""
        while True:
            news = await self._news.get()
            if isinstance(news, Exception):
                raise news
            yield news

    def skip(self) -> None:
        """Drops the news so far: what is asked of the agent from now on answers with something newer."""
        while not self._news.empty():
            self._news.get_nowait()

    async def current(self, name: str) -> Service | None:
        """The service as it is now, asked anew; None for one that is gone."""
        async for attempt in retrying():
            with attempt:
                try:
                    return await self.client.get(name)
                except NotFound:
                    return None
        raise AssertionError("retried without end")

    async def subscribe(self) -> AsyncIterator[Watched]:
        """A stream whose snapshot is already taken in. Raises Unreachable."""
        stream = self.client.watch(self.names)
        before = self.services
        self.services = {}
        try:
            async with asyncio.timeout(_SNAPSHOT_SECONDS):
                async for watched in stream:
                    self._take(watched)
                    if watched.synced:
                        break
        except BaseException as error:
            self.services = before | self.services
            if isinstance(error, TimeoutError):
                raise Unreachable(f"the agent at {self.client.address} did not answer in time") from error
            raise
        self.away = ""
        for name in before.keys() - self.services.keys():
            self._take(Watched(deleted=name))
        return stream

    async def follow(self, stream: AsyncIterator[Watched] | None = None) -> None:
        """Takes in what comes, subscribing again whenever the stream breaks; None: it is not open yet."""
        try:
            while True:
                try:
                    async for watched in stream or await self.subscribe():
                        self._take(watched)
                except AWAY as error:
                    self.away = error.message
                    self.lost(error)
                stream = await self._subscribe_again()
                self.lost(None)
        except Exception as error:  # told to whoever reads the changes
            self._news.put_nowait(error)

    async def _subscribe_again(self) -> AsyncIterator[Watched]:
        async for attempt in retrying():
            with attempt:
                return await self.subscribe()
        raise AssertionError("retried without end")

    def _take(self, watched: Watched) -> None:
        if watched.service is not None:
            self.services[watched.service.name] = watched.service
        elif watched.deleted:
            self.services.pop(watched.deleted, None)
        self._news.put_nowait(watched)


def retrying() -> AsyncRetrying:
    """Until the agent is back; whoever waits brings the time limit."""
    return AsyncRetrying(
        retry=retry_if_exception_type(AWAY),
        wait=wait_exponential_jitter(initial=0.1, max=2, jitter=0.1),
        reraise=True,
    )


async def listen(client: Client, stream: Callable[[], AsyncIterator[T]], lost: Lost) -> AsyncIterator[T]:
    """What streams bring until one ends by itself: another is opened whenever the agent went away and is back."""
    while True:
        try:
            async for one in stream():
                yield one
        except AWAY as error:
            lost(error)
        else:
            return
        async for attempt in retrying():
            with attempt:
                await client.events(limit=1)
        lost(None)


@asynccontextmanager
async def following(client: Client, names: Collection[str] = (), lost: Lost | None = None) -> AsyncIterator[Follower]:
    """Follows these services (empty: all); on entry their snapshot is there. Raises Unreachable.

    With `lost`, which is told of it, an agent that is away at first is waited for as one that goes away later.
    """
    if lost is None:
        follower = Follower(client, names)
        stream = await follower.subscribe()
    else:
        follower, stream = Follower(client, names, lost=lost), None
    task = asyncio.create_task(follower.follow(stream), name="follow")
    try:
        yield follower
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def applied(uid: str, generation: int) -> Goal:
    """The goal of an apply: that generation of that very service has converged, or a later one."""

    def judge(service: Service | None) -> tuple[Convergence, str]:
        if service is None or service.uid != uid:
            return Convergence.FAILED, "somebody deleted it meanwhile"
        if service.deleting:
            return Convergence.FAILED, "somebody is deleting it"
        return convergence(service, generation)

    return judge


def deleted(uid: str) -> Goal:
    """The goal of a delete: that very service is gone."""

    def judge(service: Service | None) -> tuple[Convergence, str]:
        if service is None or service.uid != uid:
            return Convergence.DONE, "gone"
        left = ", ".join(service.finalizers) or "nothing"
        return Convergence.WAITING, f"{left} still to be taken away{_obstacle(service)}"

    return judge


def _obstacle(service: Service) -> str:
    for condition in service.conditions:
        if condition.type is ConditionType.FLAPPING:
            continue
        if condition.status is not Status.TRUE and condition.reason not in (Reason.TERMINATING, Reason.STOPPED):
            return f" ({condition.reason}: {condition.message})"
    return ""


async def settle(
    follower: Follower,
    goals: Mapping[str, Goal],
    answered: Iterable[Service],
    within: float,
    show: Callable[[Service, str], None],
) -> AsyncIterator[Settled]:
    """Each service as soon as its goal is reached, can't be, or `within` seconds are over.

    `answered` are the services as the agent answered with them. `show` is
    called with every change on the way and with what is then awaited.
    """
    open_goals = dict(goals)
    awaited: dict[str, str] = {}
    if not open_goals:
        return
    async for name, service in _seen(follower, answered, within):
        if name not in open_goals:
            continue
        verdict, awaited[name] = open_goals[name](service)
        if service is not None:
            show(service, awaited[name])
        if verdict is not Convergence.WAITING:
            del open_goals[name]
            yield Settled(name, End(verdict.value), awaited[name], service)
        if not open_goals:
            return
    for name in open_goals:
        words = f"{awaited[name]} ({follower.away})" if follower.away else awaited[name]
        yield Settled(name, End.TIMED_OUT, words, follower.services.get(name))


async def _seen(
    follower: Follower, answered: Iterable[Service], within: float
) -> AsyncIterator[tuple[str, Service | None]]:
    """What is known of each service, then what is heard of any, until the time is over."""
    deadline = asyncio.get_running_loop().time() + within
    for service in answered:
        yield service.name, service
    changes = follower.changes()
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                seen = await _next_seen(follower, changes)
        except TimeoutError:
            return
        yield seen


async def _next_seen(follower: Follower, changes: AsyncIterator[Watched]) -> tuple[str, Service | None]:
    watched = await anext(changes)
    if watched.service is not None:
        return watched.service.name, watched.service
    # The news may be of an earlier service of that name.
    return watched.deleted, await follower.current(watched.deleted) if watched.deleted else None
