"""What running containers use, by the engine's own figures; it is asked only while somebody looks on.

One question for all containers, and one answer for all who look on. The
engine says 0 where it cannot measure, as rootless without control groups of
its own: a process that runs uses some of everything, so that 0 is unknown.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from api.conditions import Reason
from api.errors import Unreachable
from api.inspection import ContainerUsage, NodeUsage
from reconcilers.base import Transient
from reconcilers.containers.engine.podman import Engine
from reconcilers.containers.engine.transport import EngineError
from reconcilers.containers.model import ContainerObservation, Observation
from reconcilers.containers.watching.picture import Picture


@dataclass(frozen=True, slots=True)
class Sample:
    """What the engine said at one moment; `at` is the loop's time in seconds."""

    at: float
    taken: datetime
    figures: Mapping[str, Mapping[str, Any]]
    """libpod's ContainerStats, by the container's id."""
    problem: str = ""


class Meter:
    """The usage of one node's containers."""

    def __init__(self, engine: Engine, picture: Picture, node: str) -> None:
        self._engine = engine
        self._picture = picture
        self._node = node
        self._asking = asyncio.Lock()
        self._last: Sample | None = None

    async def watch(self, interval: float) -> AsyncGenerator[NodeUsage, None]:
        """What is used, each `interval` seconds; the first look knows no processor time. Raises Unreachable."""
        before: Sample | None = None
        while True:
            try:
                sample = await self._sample(interval / 2)
                observation = await self._picture.known()
            except Transient as failure:
                raise Unreachable(failure.message) from failure
            yield usage(observation, sample, before, self._node)
            before = sample
            await asyncio.sleep(interval)

    async def _sample(self, age: float) -> Sample:
        """What the engine says, or said within the last `age` seconds."""
        loop = asyncio.get_running_loop()
        async with self._asking:
            if self._last is None or loop.time() - self._last.at > age:
                self._last = await self._ask(loop.time())
            return self._last

    async def _ask(self, at: float) -> Sample:
        try:
            found = await self._engine.stats()
            figures = {str(entry["ContainerID"]): entry for entry in found}
        except EngineError as error:
            return Sample(at, datetime.now(UTC), {}, error.message)
        except LookupError as error:
            raise Transient(Reason.ENGINE_ERROR, "podman's answer about usage is incomplete") from error
        return Sample(at, datetime.now(UTC), figures)


def usage(observation: Observation, sample: Sample, before: Sample | None, node: str) -> NodeUsage:
    """What each running container uses, by name."""
    containers = tuple(
        _of(container, sample.figures.get(container.id, {}), _earlier(container, before), node)
        for container in sorted(observation, key=lambda container: container.name)
        if container.running
    )
    return NodeUsage(at=sample.taken, containers=containers, problem=sample.problem)


def _earlier(container: ContainerObservation, before: Sample | None) -> Mapping[str, Any]:
    return before.figures.get(container.id, {}) if before else {}


def _of(
    container: ContainerObservation, now: Mapping[str, Any], before: Mapping[str, Any], node: str
) -> ContainerUsage:
    # Who has no network of its own has no figures of its own either.
    networked = bool(container.networks)
    return ContainerUsage(
        container=container.name,
        owned=container.owned_by(node),
        service=container.service,
        component=container.component,
        cpu=_cores(now, before),
        memory=now.get("MemUsage") or None,
        memory_limit=now.get("MemLimit") or None,
        pids=now.get("PIDs") or None,
        received=now.get("NetInput") or None if networked else None,
        sent=now.get("NetOutput") or None if networked else None,
    )


def _cores(now: Mapping[str, Any], before: Mapping[str, Any]) -> float | None:
    """Processor time over time, both as the engine counts them in nanoseconds."""
    if not now.get("CPUNano") or not before.get("CPUNano"):
        return None
    passed = now["SystemNano"] - before["SystemNano"]
    used = now["CPUNano"] - before["CPUNano"]
    return float(used / passed) if passed > 0 and used >= 0 else None
