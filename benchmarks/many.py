"""Twenty services at once: cold, and once more when there is nothing to do."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import ground
from benchmarks.figures import Comparison, Result, in_turn
from benchmarks.floor import Floor
from benchmarks.ground import Agent, Caller, command, hostname
from benchmarks.peers import Peers
from stack.host import Host

_SERVICES = 20
_ROUNDS = 7
_REPEATS = 11
_AT_A_TIME = 4
"""Of the raw calls: more at once are no faster on two cores."""


def twenty() -> list[Result]:
    """`mcp apply -f DIR` against the peers and the raw calls, from nothing and again."""
    with ground.host() as host, Agent(host) as agent, Floor(host, host.network) as floor:
        agent.apply("first")
        Caller(host.address, host.ca_file).wait(hostname("first"))
        folder = _definitions(host)
        peers = Peers(host, _SERVICES)

        def apply() -> None:
            command(host, "apply", "-f", folder)

        cold = in_turn(
            _ROUNDS,
            lambda _: _timed(apply, lambda: agent.delete_all_but("first")),
            lambda _: _timed(peers.compose_up, peers.compose_down),
            lambda _: _timed(lambda: peers.kube_play("one-pod"), peers.kube_down),
            lambda _: _timed(lambda: peers.kube_play("pods"), peers.kube_down),
            lambda number: _raw(floor, number),
        )
        apply()
        peers.compose_up()
        again = in_turn(_REPEATS, lambda _: _timed(apply), lambda _: _timed(peers.compose_up))
    mcp, compose, pod, pods, raw = cold
    first, second = f"{_SERVICES} services from nothing", f"{_SERVICES} unchanged services applied again"
    return [
        Comparison(first, "podman-compose up -d", mcp, compose),
        Comparison(first, f"podman kube play, {_SERVICES} pods", mcp, pods),
        Comparison(first, "podman kube play, one pod: one network for all", mcp, pod),
        Comparison(first, f"raw create + start + AddRoute, {_AT_A_TIME} at a time", mcp, raw),
        Comparison(second, "podman-compose up -d", *again),
    ]


def _definitions(host: Host) -> Path:
    folder = host.layout.root / "twenty"
    folder.mkdir()
    for number in range(_SERVICES):
        name = f"s{number:02}"
        (folder / f"{name}.toml").write_text(ground.definition(host, name))
    return folder


def _timed(work: Callable[[], object], undo: Callable[[], object] = lambda: None) -> float:
    began = time.perf_counter()
    work()
    took = time.perf_counter() - began
    undo()
    return took


def _raw(floor: Floor, number: int) -> float:
    names = [f"twenty-{number}-{index}" for index in range(_SERVICES)]
    began = time.perf_counter()
    with ThreadPoolExecutor(_AT_A_TIME) as workers:
        containers = list(workers.map(floor.serve, names))
    for name in names:
        floor.caller.wait(floor.hostname(name))
    took = time.perf_counter() - began
    for container in containers:
        floor.podman.remove(container)
    return took
