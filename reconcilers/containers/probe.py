"""Finds out which containers are ready, and which are not well.

A container with a check is ready after the first that succeeds, and stops being
so after a number of failures in a row. One without is ready when it listens on
the port of each of its routes, and stays so for as long as its process runs.

Each container is asked by a task of its own, never twice at once: often while
it starts, then at its interval. Whoever hangs holds up nobody else.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from random import random
from typing import Protocol

import structlog

from api.resolve import ResolvedHealth
from api.service import Component
from reconcilers.base import Transient
from reconcilers.containers.deaths import belongs
from reconcilers.containers.health import Unwell, listens_already
from reconcilers.containers.model import ContainerObservation, Observation

log = structlog.get_logger("probe")


class Asking(Protocol):
    """How a container is asked; see reconcilers.containers.health.Checks."""

    async def ask(self, container: ContainerObservation, health: ResolvedHealth) -> None:
        """Returns where it is well. Raises Unwell, and Transient where nobody can say."""
        ...

    async def listens(self, container: ContainerObservation) -> bool:
        """Whether it can be reached at the port of each of its routes."""
        ...

    async def close(self) -> None:
        """Waits for no answer any more."""
        ...


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """How often containers are asked. Times are in seconds."""

    first: float = 0.002
    """A starting container is asked again after this pause, and then after ever longer ones."""
    growth: float = 1.3
    most: float = 0.25
    """The longest pause for one without a check."""
    most_checked: float = 1.0
    """The longest pause for one with a check, unless its interval is shorter."""
    most_run: float = 2.0
    """The same where a command is run in it: podman keeps what belongs to one for five minutes."""
    jitter: float = 0.05
    """Intervals differ by up to this share, so that many containers are not asked at the same time."""


@dataclass(slots=True, eq=False)
class _Watch:
    """What is known of one process of a container."""

    container: ContainerObservation
    began: float
    """When the process started, by the loop's clock."""
    check: ResolvedHealth | None = None
    ready: bool = False
    failures: int = 0
    """Those in a row that count: they are an interval apart, and none is in the start period."""
    trouble: str = ""
    """The last failure; empty after a success."""
    counted_at: float = 0.0
    told: tuple[bool, str, str] = (False, "", "")
    """What the listeners know of it."""
    told_at: float = 0.0

    @property
    def starting(self) -> bool:
        """Whether it was not ready yet, and has not failed so often either."""
        return not self.ready and not self.out

    @property
    def out(self) -> bool:
        """Whether it failed so often that it counts."""
        return self.check is not None and self.failures >= self.check.retries

    @property
    def unwell(self) -> str:
        """Why it should be restarted; empty where it should not."""
        if self.check is None or not self.check.liveness or not self.out:
            return ""
        times = "once" if self.check.retries == 1 else f"{self.check.retries} times"
        return f"health check failed {times}: {self.trouble}"

    @property
    def shown(self) -> tuple[bool, str, str]:
        """What others see of it."""
        return self.ready, self.unwell, "" if self.ready else self.trouble

    def succeeded(self) -> None:
        """Takes note of a success."""
        self.ready, self.failures, self.trouble = True, 0, ""

    def failed(self, why: str, check: ResolvedHealth, now: float) -> None:
        """Takes note of a failure. A starting container is asked more often than failures count."""
        self.trouble = why
        if self.starting and now < max(self.counted_at, self.began) + check.interval:
            return
        self.counted_at = now
        if now >= self.began + check.start_period:
            self.failures += 1
        self.ready = self.ready and not self.out

    def news(self, now: float) -> bool:
        """Whether others must be told. That a failure is put in other words is worth it once a second."""
        shown, told = self.shown, self.told
        if shown == told or (shown[0] == told[0] and bool(shown[1]) == bool(told[1]) and now < self.told_at + 1.0):
            return False
        self.told, self.told_at = shown, now
        return True


class Prober:
    """Which containers are ready. `follow` and `expect` say what to ask; `run` asks."""

    def __init__(self, node: str, asking: Asking, settings: ProbeSettings) -> None:
        self._node = node
        self._asking = asking
        self._settings = settings
        self._listeners: list[Callable[[str], None]] = []
        self._checks: dict[str, Mapping[str, ResolvedHealth | None]] = {}
        self._watches: dict[str, _Watch] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._arrivals: asyncio.Queue[tuple[_Watch, float]] = asyncio.Queue()

    def listen(self, listener: Callable[[str], None]) -> None:
        """Has `listener` called with the service's name when one of its containers became ready, or is no more."""
        self._listeners.append(listener)

    @property
    def ready(self) -> frozenset[str]:
        """The ids of the containers that are ready."""
        return frozenset(container_id for container_id, watch in self._watches.items() if watch.ready)

    @property
    def unwell(self) -> Mapping[str, str]:
        """Why, by id, for each running container that its failures should restart."""
        return {container_id: watch.unwell for container_id, watch in self._watches.items() if watch.unwell}

    @property
    def trouble(self) -> Mapping[str, str]:
        """The last failure, by id, of each running container that failed its check and is not ready."""
        return {key: watch.trouble for key, watch in self._watches.items() if watch.trouble and not watch.ready}

    def follow(self, _: Observation | None, observation: Observation | None) -> None:
        """Takes note of what runs now; an unknown picture changes nothing."""
        if observation is None:
            return
        running = {c.id: c for c in observation if c.running and c.owned_by(self._node)}
        for container_id in self._watches.keys() - running.keys():
            self._forget(container_id)
        for container_id, container in running.items():
            watch = self._watches.get(container_id)
            if watch is None or watch.container.pid != container.pid:
                new = _Watch(container, _began(container))
                self._watch(new)
                new.told = new.shown  # whoever follows the picture looks anyway

    def recall(self, components: Iterable[Component]) -> None:
        """Takes what was recorded of containers as ready for the case where nothing is expected of them yet.

        So an agent that was restarted does not doubt what runs: until it is
        told what to ask, and then until that fails.
        """
        for known in components:
            watch = self._watches.get(known.container_id)
            if watch is not None and known.ready and watch.container.service not in self._checks:
                watch.ready = watch.ready or watch.container.started_at == known.started_at

    def expect(self, service: str, checks: Mapping[str, ResolvedHealth | None]) -> None:
        """Says how the service's containers are asked from now on, by component: without a check where it is None.

        What is known already costs nothing. A changed check holds for running
        containers; whoever was ready stays so until it fails. Nothing at all
        is expected of a service that is gone.
        """
        before = self._checks.get(service)
        if before == checks:
            return
        if not checks:
            self._checks.pop(service, None)
            return
        self._checks[service] = dict(checks)
        for old in [watch for watch in self._watches.values() if watch.container.service == service]:
            component = old.container.component
            if before is None or before.get(component) != checks.get(component):
                new = _Watch(old.container, old.began, ready=old.ready, told=old.told)
                # Those that an agent finds running are not all asked at once.
                self._watch(new, spread=before is None and old.ready)
                self._tell(new)

    async def run(self) -> None:
        """Probes what runs until it is cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    watch, pause = await self._arrivals.get()
                    container, check = watch.container, watch.check
                    if self._watches.get(container.id) is watch:
                        probing = self._wait(watch) if check is None else self._probe(watch, check, pause)
                        self._tasks[container.id] = tasks.create_task(probing, name=f"probe-{container.name}")
        finally:
            await self._asking.close()

    def _watch(self, watch: _Watch, *, spread: bool = False) -> None:
        """Has the container probed in this way alone."""
        container = watch.container
        self._forget(container.id)
        self._watches[container.id] = watch
        if container.service not in self._checks:
            return
        watch.check = self._checks[container.service].get(container.component)
        if watch.check is not None:
            pause = random() * watch.check.interval if spread else 0.0  # noqa: S311  # not a secret
            self._arrivals.put_nowait((watch, pause))
        # Only faster: most listen by the time that they are seen, and are then recorded once, as ready.
        elif not watch.ready and not listens_already(container):
            self._arrivals.put_nowait((watch, 0.0))
        else:
            watch.succeeded()

    def _forget(self, container_id: str) -> None:
        self._watches.pop(container_id, None)
        if (task := self._tasks.pop(container_id, None)) is not None:
            task.cancel()

    async def _wait(self, watch: _Watch) -> None:
        """Until a container without a check listens."""
        pause = self._settings.first
        while not await self._asking.listens(watch.container):
            await asyncio.sleep(pause)
            pause = min(pause * self._settings.growth, self._settings.most)
        watch.succeeded()
        self._tell(watch)

    async def _probe(self, watch: _Watch, check: ResolvedHealth, pause: float) -> None:
        """Asks a container with a check for as long as its process runs."""
        certain = belongs(watch.container.pid, watch.container.id)
        most = min(check.interval, self._settings.most_run if check.exec else self._settings.most_checked)
        quick = self._settings.first
        while True:
            await asyncio.sleep(pause)
            try:
                await self._asking.ask(watch.container, check)
            except Unwell as failure:
                # A process that has just ended is not unwell: that it ended is on its way to us.
                if not certain or belongs(watch.container.pid, watch.container.id):
                    watch.failed(str(failure), check, self._now())
            except Transient as failure:
                log.info("container_not_asked", container=watch.container.name, reason=failure.message)
            except Exception:
                # A defect of ours in one check must not end all the others.
                log.exception("check_broke", container=watch.container.name)
            else:
                watch.succeeded()
            self._tell(watch)
            pause = quick if watch.starting else check.interval + self._jitter(check)
            quick = min(quick * self._settings.growth, most)

    def _jitter(self, check: ResolvedHealth) -> float:
        return check.interval * self._settings.jitter * (2 * random() - 1)  # noqa: S311  # not a secret

    def _tell(self, watch: _Watch) -> None:
        if watch.news(self._now()):
            for listener in self._listeners:
                listener(watch.container.service)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _began(container: ContainerObservation) -> float:
    """When its process started, by the loop's clock, and up to a second later: the engine tells whole seconds."""
    age = (datetime.now(UTC) - container.started_at).total_seconds() if container.started_at else 0.0
    return asyncio.get_running_loop().time() - max(0.0, age - 1.0)
