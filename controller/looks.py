"""Has everybody look at a service now, for whoever wants to hear that they did."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Final

from controller.queue import WorkQueue
from reconcilers.base import Transient

MOST_SECONDS: Final = 600.0
"""So long anybody may wait for an answer."""
_REFRESH_SECONDS: Final = 5.0


class Looks:
    """All queues at once; `refresh` brings the picture of the engine up to date, or raises Transient."""

    def __init__(self, queues: Mapping[str, WorkQueue], refresh: Callable[[], Awaitable[object]]) -> None:
        self._queues = queues
        self._refresh = refresh

    async def __call__(self, service: str, within: float) -> tuple[str, ...]:
        """Returns once all have looked, or after `within` seconds the names of those that have not.

        Each look begins after the call; what was under way before has then ended.
        """
        deadline = asyncio.get_running_loop().time() + min(within, MOST_SECONDS)
        with suppress(Transient, TimeoutError):  # the reconciler says why it sees nothing
            # An engine that hangs holds up nobody but those who act on it.
            async with asyncio.timeout(min(within / 2, _REFRESH_SECONDS)):
                await self._refresh()
        asked = {name: queue.look(service) for name, queue in self._queues.items()}
        try:
            await asyncio.wait(asked.values(), timeout=deadline - asyncio.get_running_loop().time())
            return tuple(name for name, look in asked.items() if not _ended(look))
        finally:
            # Nobody waits any more; the looks come all the same.
            for look in asked.values():
                look.cancel()


def _ended(look: asyncio.Future[None]) -> bool:
    # One that will not come, as the agent stops, is as good as late.
    return look.done() and not look.cancelled() and look.exception() is None
