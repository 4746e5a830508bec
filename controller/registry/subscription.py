"""Tells whoever listens what was committed, without ever waiting for a slow listener.

A subscriber reads the registry again anyway, so several changes of one kind to
one service are as good as one. Only events are told one by one; when too many
pile up they are dropped for a marker that says so.
"""

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

from controller.registry.records import ChangeKind, RegistryChange

MAX_PENDING_EVENTS: Final = 1000

_MISSED: Final = RegistryChange("", ChangeKind.EVENT)


class Subscription:
    """Changes in the order of their commits; iterate over it from one task."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._pending: dict[tuple[str, ChangeKind, int], RegistryChange] = {}
        self._events = 0
        self._wake = asyncio.Event()
        self._closed = False

    def put(self, change: RegistryChange) -> None:
        """Notes a change; called by the hub alone."""
        if change.kind is ChangeKind.EVENT and self._events >= MAX_PENDING_EVENTS:
            self._drop_events()
            change = _MISSED
        key = (change.service, change.kind, change.event.id if change.event else 0)
        # The last of several like changes keeps its place: what is told at the end is what holds at the end.
        repeated = self._pending.pop(key, None) is not None
        self._pending[key] = change
        self._events += change.kind is ChangeKind.EVENT and not repeated
        self._wake.set()

    def close(self) -> None:
        """Ends the iteration; what is pending is dropped."""
        self._closed = True
        self._pending.clear()
        self._hub.leave(self)
        self._wake.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RegistryChange:
        while not self._pending:
            if self._closed:
                raise StopAsyncIteration
            self._wake.clear()
            await self._wake.wait()
        change = self._pending.pop(next(iter(self._pending)))
        self._events -= change.kind is ChangeKind.EVENT
        return change

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _drop_events(self) -> None:
        self._pending = {key: change for key, change in self._pending.items() if change.kind is not ChangeKind.EVENT}
        self._events = 0


class Hub:
    """All subscriptions of one registry; used on the event loop only."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._closed = False

    def subscribe(self) -> Subscription:
        """A subscription to all that is committed from now on."""
        subscription = Subscription(self)
        self._subscriptions.add(subscription)
        if self._closed:
            subscription.close()
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """Tells that subscription nothing more."""
        self._subscriptions.discard(subscription)

    def publish(self, changes: Iterable[RegistryChange]) -> None:
        """Tells every subscription."""
        for change in changes:
            for subscription in self._subscriptions:
                subscription.put(change)

    def close(self) -> None:
        """Ends all subscriptions, and those to come."""
        self._closed = True
        for subscription in tuple(self._subscriptions):
            subscription.close()
