"""A new version under a steady load: what its clients notice, and when all of them have it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path

from benchmarks import ground
from benchmarks.figures import Comparison, Figure, Result, in_turn
from benchmarks.floor import Floor
from benchmarks.ground import Agent, Caller, hostname
from benchmarks.load import Load
from stack import images
from stack.web import wait_for

_ROUNDS = 5
_BEFORE = 0.5
"""Seconds of load before the change."""
_LOOK = 0.1
_PATIENCE = 30.0
_VERSIONS = (images.HELLO, images.HELLO_NEXT)


@dataclass
class _Way:
    """One way to bring the other image before the clients of a hostname, and what they noticed in each round.

    `change` brings an image and may return before it serves; `tidied` tells whether nothing is left of the other one.
    """

    address: tuple[str, int]
    hostname: str
    ca: Path
    change: Callable[[str], object]
    tidied: Callable[[], bool] = lambda: True
    times: list[float] = field(default_factory=list)
    """Seconds from the change until each client had an answer of the new version."""
    failures: int = 0
    requests: int = 0

    def __post_init__(self) -> None:
        self._images = cycle(_VERSIONS)
        self._image = next(self._images)
        self.change(self._image)
        Caller(self.address, self.ca).wait(self.hostname)

    def gap(self, _: int) -> float:
        """The longest gap between two answers of one client around one change, in seconds."""
        self._image = next(self._images)
        version = _version(self._image)
        with Load(self.address, self.hostname, self.ca) as load:
            time.sleep(_BEFORE)
            began = time.perf_counter()
            self.change(self._image)
            wait_for(partial(load.all_have, version), seconds=_PATIENCE, what=f"{version} everywhere")
            while not self.tidied():
                time.sleep(_LOOK)
        self.times.append(load.switched_to(version) - began)
        self.failures += len(load.failures)
        self.requests += load.requests
        return load.longest_gap


def switch() -> list[Result]:
    """A blue-green update under load, against switching a route by hand, and against strategy = "recreate"."""
    with ground.host() as host, Agent(host) as agent, Floor(host, host.network) as floor:

        def by_us(strategy: str) -> _Way:
            def apply(image: str) -> None:
                agent.apply(strategy, image=image, strategy=strategy)

            def is_alone() -> bool:
                return len(agent.containers(strategy)) == 1

            return _Way(host.address, hostname(strategy), host.ca_file, apply, is_alone)

        blue_green, recreate = by_us("blue-green"), by_us("recreate")
        bare, by_hand = _bare(floor), _by_hand(floor)
        gaps = in_turn(_ROUNDS, blue_green.gap, bare.gap, by_hand.gap, recreate.gap)
    return _results(blue_green, by_hand, recreate, gaps)


def _bare(floor: Floor) -> _Way:
    """Between two containers that both run."""
    for image in _VERSIONS:
        floor.start(_version(image), image=image)
        wait_for(partial(floor.listens, _version(image)), seconds=_PATIENCE, what=image)

    def change(image: str) -> None:
        floor.route(_version(image), "bare")

    return _Way(floor.caller.address, floor.hostname("bare"), floor.caller.ca, change)


def _by_hand(floor: Floor) -> _Way:
    """What blue-green does, in the fewest calls; the old container is left alone."""

    def change(image: str) -> None:
        name = f"hand-{time.monotonic_ns()}"
        floor.start(name, image=image)
        wait_for(partial(floor.listens, name), seconds=_PATIENCE, what=name)
        floor.route(name, "hand")

    return _Way(floor.caller.address, floor.hostname("hand"), floor.caller.ca, change)


def _results(blue_green: _Way, by_hand: _Way, recreate: _Way, gaps: list[tuple[float, ...]]) -> list[Result]:
    ours, switched, made, recreated = gaps
    what, other, raw = "blue-green update under load", 'strategy = "recreate"', "raw create + start + AddRoute"
    gap = f"{what}: longest gap between two answers of one client"
    everywhere = f"{what}: apply → every client is answered by the new version"
    return [
        _failed(what, blue_green),
        _failed(f"the same, {other}", recreate),
        Figure(f"{gap}, the longest of all updates", max(ours), "s", _ROUNDS),
        Comparison(gap, "bare AddRoute between two running containers", ours, switched),
        Comparison(gap, raw, ours, made),
        Comparison(gap, other, ours, recreated),
        Comparison(everywhere, raw, tuple(blue_green.times), tuple(by_hand.times)),
        Comparison(everywhere, other, tuple(blue_green.times), tuple(recreate.times)),
    ]


def _failed(what: str, way: _Way) -> Figure:
    return Figure(
        f"{what}: failed of {way.requests:,} requests in {_ROUNDS} updates", way.failures, "requests", _ROUNDS
    )


def _version(image: str) -> str:
    return image.rpartition(":")[2]
