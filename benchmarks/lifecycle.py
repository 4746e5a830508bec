"""One service: from the command to the first answered request, and back again after each kind of loss."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import ground
from benchmarks.figures import Comparison, Figure, Result, in_turn
from benchmarks.floor import Floor
from benchmarks.ground import Agent, Caller, beside, command, hostname
from stack.admin import Table
from stack.host import Host

_ROUNDS = 15
_BETWEEN_LOOKS = 0.5
"""Seconds between two looks of the agent at the proxy's table: `mcproxy.interval_seconds`."""


@contextmanager
def _prepared() -> Iterator[tuple[Host, Agent, Caller, Floor]]:
    """A host with one service: its network exists, and nothing is done there for the first time."""
    with ground.host() as host, Agent(host) as agent:
        caller = Caller(host.address, host.ca_file)
        agent.apply("first")
        caller.wait(hostname("first"))
        with Floor(host, host.network) as floor:
            _served(floor, "floor-first")
            yield host, agent, caller, floor


def apply() -> list[Result]:
    """From apply to an answered request, asked by the RPC and by the command, against the raw calls."""
    with _prepared() as (host, agent, caller, floor):

        def by_rpc(number: int) -> float:
            name = f"rpc-{number}"
            return beside(lambda: agent.apply(name), lambda: caller.wait(hostname(name)))

        def by_command(number: int) -> float:
            name = f"command-{number}"
            file = host.layout.root / f"{name}.toml"
            file.write_text(ground.definition(host, name))
            return beside(lambda: command(host, "apply", "-f", file), lambda: caller.wait(hostname(name)))

        def raw(number: int) -> float:
            name = f"floor-{number}"
            return beside(lambda: floor.serve(name), lambda: floor.caller.wait(floor.hostname(name)))

        rpc, typed, least = in_turn(_ROUNDS, by_rpc, by_command, raw)
    against = "raw create + start + AddRoute"
    return [
        Comparison("apply → answered HTTPS request, from the RPC", against, rpc, least),
        Comparison("apply → answered HTTPS request, from the start of `mcp apply`", against, typed, least),
    ]


def killed() -> list[Result]:
    """A container that is killed, until it answers again, against the engine's own restart=always, and a bare start."""
    with _prepared() as (_, agent, caller, floor):
        ours = _up(agent, caller, "killed", _ROUNDS)
        always = [_served(floor, f"always-{number}", restart_policy="always") for number in range(_ROUNDS)]
        stopped = [_served(floor, f"stopped-{number}") for number in range(_ROUNDS)]

        def by_us(number: int) -> float:
            began = time.perf_counter()
            floor.podman.kill(ours[number])
            return caller.wait(hostname(f"killed-{number}")) - began

        def by_engine(number: int) -> float:
            began = time.perf_counter()
            floor.podman.kill(always[number])
            return floor.caller.wait(floor.hostname(f"always-{number}")) - began

        def started(number: int) -> float:
            floor.podman.stop(stopped[number])
            hostname = floor.hostname(f"stopped-{number}")
            return beside(lambda: floor.podman.start(stopped[number]), lambda: floor.caller.wait(hostname))

        mcp, engine, start = in_turn(_ROUNDS, by_us, by_engine, started)
    what = "container killed → answered again"
    return [Comparison(what, "podman's restart=always", mcp, engine), Comparison(what, "raw start", mcp, start)]


def removed() -> list[Result]:
    """A container that is removed, until its successor answers, against making it by hand."""
    with _prepared() as (_, agent, caller, floor):
        ours = _up(agent, caller, "removed", _ROUNDS)
        theirs = [_served(floor, f"raw-{number}") for number in range(_ROUNDS)]

        def by_us(number: int) -> float:
            floor.podman.remove(ours[number])
            began = time.perf_counter()
            return caller.wait(hostname(f"removed-{number}")) - began

        def raw(number: int) -> float:
            name = f"raw-{number}"
            floor.podman.remove(theirs[number])
            return beside(lambda: floor.start(name), lambda: floor.caller.wait(floor.hostname(name)))

        mcp, least = in_turn(_ROUNDS, by_us, raw)
    return [Comparison("container removed → answered again, from its removal", "raw create + start", mcp, least)]


def drift() -> list[Result]:
    """What somebody else does to the proxy's table and to the certificates, until it is undone."""
    with _prepared() as (host, agent, caller, _):
        _up(agent, caller, "moved", _ROUNDS)
        table = Table(host.proxy_socket)

        def route(number: int) -> float:
            name = hostname(f"moved-{number}")
            # The agent looks every so often: the harm is done at another moment between two looks each time.
            time.sleep(_BETWEEN_LOOKS * number / _ROUNDS)
            table.remove(table.listener_of(name), name)
            began = time.perf_counter()
            return caller.wait(name) - began

        def certificate(number: int) -> float:
            file = host.cert_dir / f"moved-{number}.pem"
            began = time.perf_counter()
            file.unlink()
            while not file.exists():
                time.sleep(0.001)
            return time.perf_counter() - began

        routes, certificates = in_turn(_ROUNDS, route, certificate)
    return [
        Figure.median("route removed behind our back → answered again", routes),
        Figure.median("certificate file deleted → there again", certificates),
    ]


def _up(agent: Agent, caller: Caller, prefix: str, count: int) -> list[str]:
    """Applies so many services; returns their containers' ids once all are answered."""
    names = [f"{prefix}-{number}" for number in range(count)]
    for name in names:
        agent.apply(name)
    for name in names:
        caller.wait(hostname(name))
    return [agent.service(name).components[0].container_id for name in names]


def _served(floor: Floor, name: str, **more: object) -> str:
    """Makes a container and its route by hand; returns the container's id once it is answered."""
    container = floor.serve(name, **more)
    floor.caller.wait(floor.hostname(name))
    return container
