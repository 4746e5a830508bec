"""One running agent: starts everything, keeps it running, and stops it without losing anything."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from api.errors import RegistryUnavailable
from controller.driver import Driver
from controller.registry import Registry
from controller.rollouts import Rollouts
from controller.systemd import notify
from controller.wakes import Wakes

log = structlog.get_logger("agent")

Task = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Loops:
    """What runs for as long as the agent does."""

    drivers: Sequence[Driver]
    watchers: Mapping[str, Task]
    """The pictures of the outside, by name; each wakes the services that it sees changing."""
    wakes: Wakes
    rollouts: Rollouts


class Agent:
    """The loops of one agent over one registry."""

    def __init__(self, registry: Registry, loops: Loops, *, resync_seconds: float, stop_seconds: float) -> None:
        self._registry = registry
        self._loops = loops
        self._resync_seconds = resync_seconds
        self._stop_seconds = stop_seconds

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop`; a defect in any loop ends the agent, for whoever started it to start it again.

        On the way out it finishes what was begun, within `stop_seconds`; what
        is cut off then is found again by the next agent.
        """
        # Subscribed before anything is looked at: no change is missed.
        async with (
            self._registry.subscribe() as wakes,
            self._registry.subscribe() as rollouts,
            asyncio.TaskGroup() as group,
        ):
            background = [
                group.create_task(self._loops.wakes.run(wakes), name="wakes"),
                group.create_task(self._loops.rollouts.run(rollouts), name="rollouts"),
                group.create_task(self._resync(), name="resync"),
                *[group.create_task(run(), name=name) for name, run in self._loops.watchers.items()],
            ]
            drivers = [group.create_task(driver.run(), name=driver.reconciler.name) for driver in self._loops.drivers]
            notify("READY=1")
            log.info("started")
            await stop.wait()
            notify("STOPPING=1")
            await self._finish(drivers)
            for task in background:
                task.cancel()

    async def _resync(self) -> None:
        while True:
            with suppress(RegistryUnavailable):  # the next round finds it again
                await self._loops.wakes.resync()
            await asyncio.sleep(self._resync_seconds)

    async def _finish(self, drivers: Sequence[asyncio.Task[None]]) -> None:
        log.info("stopping", within_seconds=self._stop_seconds)
        for driver in self._loops.drivers:
            driver.queue.shut_down()
        _, late = await asyncio.wait(drivers, timeout=self._stop_seconds)
        for task in late:
            log.warning("cut_off", reconciler=task.get_name())
            task.cancel()
