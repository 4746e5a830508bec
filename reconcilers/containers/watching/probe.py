"""Finds out which containers are ready, and which are not well.

A container with a check is ready after the first that succeeds, and stops being
so after a number of failures in a row. One without is ready when it listens on
the port of each of its routes, and stays so for as long as its process runs.

Each container is asked by a task of its own, never twice at once: often while
it starts, then at its interval. Whoever hangs holds up nobody else.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from random import random
from typing import Final, Protocol

import structlog

from api.resolve import ResolvedHealth
from api.service import Component
from reconcilers.base import Transient
from reconcilers.containers.model import ContainerObservation, Observation
from reconcilers.containers.watching.deaths import belongs
from reconcilers.containers.watching.health import Unwell, listens_already
from reconcilers.containers.watching.watch import Watch

log = structlog.get_logger("probe")


class Asking(Protocol):
    """How a container is asked; see reconcilers.containers.watching.health.Checks."""

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
class Pauses:
    """Between two questions to a container that starts: ever longer, from the first to the longest, in seconds."""

    first: float
    most: float

    def __iter__(self) -> Iterator[float]:
        pause = self.first
        while True:
            yield min(pause, self.most)
            pause = min(pause * 1.3, self.most)


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """How often containers are asked."""

    listening: Pauses = Pauses(0.002, 0.25)
    """Of a container without a check."""
    checking: Pauses = Pauses(0.002, 1.0)
    """Of one with a check, unless its interval is shorter."""
    running: Pauses = Pauses(0.1, 2.0)
    """The same where a command is run in it: that costs more, and podman keeps its remains for five minutes."""
    jitter: float = 0.05
    """Intervals differ by up to this share, so that many containers are not asked at the same time."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """How the containers of one service are asked."""

    checks: Mapping[str, ResolvedHealth | None]
    """By component; None: whether it listens."""
    spared: frozenset[str] = frozenset()
    """The ids of containers that were made for an earlier wish: they are asked as before, or whether they listen."""

    def check_of(self, container: ContainerObservation) -> ResolvedHealth | None:
        """How that container is asked, where nobody asked it before."""
        return None if container.id in self.spared else self.checks.get(container.component)

    def changes(self, before: "Expectation", container: ContainerObservation) -> bool:
        """Whether the container is asked otherwise than before."""
        if container.id in self.spared:
            return before is NOTHING
        was_spared = before is NOTHING or container.id in before.spared
        return was_spared or before.checks.get(container.component) != self.checks.get(container.component)


NOTHING: Final = Expectation({})


class Prober:
    """Which containers are ready. `follow` and `expect` say what to ask; `run` asks."""

    def __init__(self, node: str, asking: Asking, settings: ProbeSettings) -> None:
        self._node = node
        self._asking = asking
        self._settings = settings
        self._listeners: list[Callable[[str], None]] = []
        self._expected: dict[str, Expectation] = {}
        self._watches: dict[str, Watch] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._arrivals: asyncio.Queue[tuple[Watch, float]] = asyncio.Queue()

    def listen(self, listener: Callable[[str], None]) -> None:
        """Has `listener` called with the service's name when what `ready`, `unwell` or `trouble` says of it changed."""
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
            if watch is not None and watch.container.pid == container.pid:
                watch.container = container
                continue
            new = Watch(container, _began(container))
            self._watch(new)
            # Whoever follows the picture looks anyway.
            new.told = new.shown

    def recall(self, components: Iterable[Component]) -> None:
        """Takes what was recorded of containers as ready for the case where nothing is expected of them yet.

        So an agent that was restarted does not doubt what runs: until it is
        told what to ask, and then until that fails.
        """
        for known in components:
            watch = self._watches.get(known.container_id)
            if watch is None or watch.container.service in self._expected:
                continue
            if known.ready and known.started_at == watch.container.started_at:
                watch.succeeded()
                # Required: it may have been looked at before anybody recalled it.
                self._tell(watch)

    def expected(self, service: str) -> Expectation:
        """What is expected of the service's containers; nothing where nobody said."""
        return self._expected.get(service, NOTHING)

    def expect(self, service: str, expectation: Expectation) -> None:
        """Says how the service's containers are asked from now on.

        What is known already costs nothing. A changed check holds for running
        containers; whoever was ready stays so until it fails. Nothing at all
        is expected of a service that is gone.
        """
        before = self._expected.get(service, NOTHING)
        if before == expectation:
            return
        if not expectation.checks:
            self._expected.pop(service, None)
            return
        self._expected[service] = expectation
        for old in [watch for watch in self._watches.values() if watch.container.service == service]:
            if expectation.changes(before, old.container):
                new = Watch(old.container, old.began, ready=old.ready, told=old.told)
                # Those that an agent finds running are not all asked at once.
                self._watch(new, spread=before is NOTHING and old.ready)
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

    def _watch(self, watch: Watch, *, spread: bool = False) -> None:
        """Has the container probed in this way alone."""
        container = watch.container
        self._forget(container.id)
        self._watches[container.id] = watch
        if container.service not in self._expected:
            return
        watch.check = self._expected[container.service].check_of(container)
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

    async def _wait(self, watch: Watch) -> None:
        """Until a container without a check listens."""
        for pause in self._settings.listening:
            if await self._asking.listens(watch.container):
                break
            await asyncio.sleep(pause)
        watch.succeeded()
        self._tell(watch)

    async def _probe(self, watch: Watch, check: ResolvedHealth, pause: float) -> None:
        """Asks a container with a check for as long as its process runs."""
        certain = belongs(watch.container.pid, watch.container.id)
        pauses = iter(self._settings.running if check.exec else self._settings.checking)
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
            pause = min(next(pauses), check.interval) if watch.starting else check.interval + self._jitter(check)

    def _jitter(self, check: ResolvedHealth) -> float:
        return check.interval * self._settings.jitter * (2 * random() - 1)  # noqa: S311  # not a secret

    def _tell(self, watch: Watch) -> None:
        if watch.news(self._now()):
            for listener in self._listeners:
                listener(watch.container.service)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _began(container: ContainerObservation) -> float:
    """When its process started, by the loop's clock, and up to a second later: the engine tells whole seconds."""
    age = (datetime.now(UTC) - container.started_at).total_seconds() if container.started_at else 0.0
    return asyncio.get_running_loop().time() - max(0.0, age - 1.0)
