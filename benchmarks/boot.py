"""A whole host comes back: fifty services that need each other, their containers stopped, or gone."""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from benchmarks import ground
from benchmarks.figures import Comparison, Result, in_turn
from benchmarks.floor import Floor
from benchmarks.ground import Agent, Caller, beside, hostname
from stack.host import Host

_TIERS = 5
_WIDTH = 10
_ROUNDS = 3
_AT_A_TIME = 4
"""Of the raw calls: more at once are no faster on two cores."""
_SETTINGS = "[restarts]\nfirst_seconds = 0.1\n"
"""One reboot after another is no crash loop here."""


def _services() -> Mapping[str, tuple[str, ...]]:
    """Each service, and which it needs: ten chains of five, and in each tier one that the whole next tier needs."""
    needs = {}
    for tier in range(_TIERS):
        for number in range(_WIDTH):
            needed = {f"tier{tier - 1}-{number}", f"tier{tier - 1}-0"} if tier else set()
            needs[f"tier{tier}-{number}"] = tuple(sorted(needed))
    return needs


_NEEDS: Final = _services()


def boot() -> list[Result]:
    """Fifty services in five tiers, from the agent's start to the last first answer, against starting them by hand."""
    with ground.host(_SETTINGS) as host, Agent(host) as agent, Floor(host, host.network) as floor:
        ours, by_hand = _Ours(host, agent, floor), _ByHand(floor)
        stopped = in_turn(_ROUNDS, ours.stopped, by_hand.started(1), by_hand.started(_AT_A_TIME))
        emptied = in_turn(_ROUNDS, ours.emptied, by_hand.made(1), by_hand.made(_AT_A_TIME))
    results: list[Result] = []
    for what, does, (mcp, one_by_one, side_by_side) in (
        ("all containers stopped", "start", stopped),
        ("all containers removed", "create + start", emptied),
    ):
        row = f"{len(_NEEDS)} services in {_TIERS} tiers, {what} → all answered, in order"
        results += [
            Comparison(row, f"raw {does}, one after the other", mcp, one_by_one),
            Comparison(row, f"raw {does}, {_AT_A_TIME} at a time, in no order", mcp, side_by_side),
        ]
    return results


class _Ours:
    """The services as the agent has them."""

    def __init__(self, host: Host, agent: Agent, floor: Floor) -> None:
        self._host, self._agent, self._podman = host, agent, floor.podman
        self._caller = Caller(host.address, host.ca_file)
        for name, needs in _NEEDS.items():
            agent.apply(name, needs=needs)
        self._answered()

    def stopped(self, _: int) -> float:
        """Seconds until all are answered again after a reboot that left the containers."""
        return self._rebooted(self._podman.stop)

    def emptied(self, _: int) -> float:
        """Seconds until all are answered again after a reboot that left none."""
        return self._rebooted(self._podman.remove)

    def _rebooted(self, lose: Callable[[str], None]) -> float:
        containers = self._containers().values()
        self._host.stop_agent()
        _each(lose, containers)
        took = beside(self._host.start_agent, self._answered)
        self._check_order()
        return took

    def _answered(self) -> float:
        return max(self._caller.wait(hostname(name)) for name in _NEEDS)

    def _containers(self) -> dict[str, str]:
        return {name: self._agent.ready(name).components[0].container_id for name in _NEEDS}

    def _check_order(self) -> None:
        started = {name: self._podman.started(container) for name, container in self._containers().items()}
        for name, needs in _NEEDS.items():
            if early := [need for need in needs if started[need] >= started[name]]:
                raise RuntimeError(f"{name} was started before {', '.join(early)}")


class _ByHand:
    """As many containers and routes, made by hand, in no order."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._containers = {name: floor.serve(name) for name in _NEEDS}

    def started(self, at_a_time: int) -> Callable[[int], float]:
        """Measures how long it takes to start all, so many at a time, each until it is answered."""

        def measured(_: int) -> float:
            _each(self._floor.podman.stop, self._containers.values())
            return self._timed(at_a_time, self._start)

        return measured

    def made(self, at_a_time: int) -> Callable[[int], float]:
        """The same from nothing."""

        def measured(_: int) -> float:
            _each(self._floor.podman.remove, self._containers.values())
            return self._timed(at_a_time, self._make)

        return measured

    def _start(self, name: str) -> None:
        self._floor.podman.start(self._containers[name])
        self._floor.caller.wait(self._floor.hostname(name))

    def _make(self, name: str) -> None:
        self._containers[name] = self._floor.start(name)
        self._floor.caller.wait(self._floor.hostname(name))

    def _timed(self, at_a_time: int, work: Callable[[str], None]) -> float:
        began = time.perf_counter()
        _each(work, _NEEDS, at_a_time)
        return time.perf_counter() - began


def _each(work: Callable[[str], None], those: Iterable[str], at_a_time: int = _AT_A_TIME) -> None:
    with ThreadPoolExecutor(at_a_time) as workers:
        list(workers.map(work, those))
