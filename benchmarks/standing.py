"""What it costs to have it: an idle agent, its start, and the commands that people type most."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import ground
from benchmarks.figures import Figure, Result
from benchmarks.ground import Agent, Caller, command, hostname
from stack import processes
from stack.host import Host
from stack.layout import Layout

_SERVICES = 100
_QUIET = 10.0
"""Seconds to let everything come to rest."""
_WINDOW = 60.0
"""Seconds over which it is measured; longer than every period in the agent but the resync's ten minutes."""
_STARTS = 5
_COMMANDS = 15
_MANY = 1000
_TICKS = os.sysconf("SC_CLK_TCK")


def idle() -> list[Result]:
    """The agent and the proxy with 100 running services and nothing to do."""
    with ground.host() as host, Agent(host) as agent:
        names = [f"idle-{number:03}" for number in range(_SERVICES)]
        for name in names:
            agent.apply(name)
        caller = Caller(host.address, host.ca_file)
        for name in names:
            caller.wait(hostname(name))
        # Nothing may happen during a measurement, and there is no event for that.
        time.sleep(_QUIET)
        return _at_rest(host)


def restart() -> list[Result]:
    """The agent killed with -9 and started again, over 20 services."""
    with ground.host() as host, Agent(host) as agent:
        for number in range(20):
            agent.apply(f"still-{number}")
        caller = Caller(host.address, host.ca_file)
        for number in range(20):
            caller.wait(hostname(f"still-{number}"))

        def start() -> None:
            host.stop_agent(signal.SIGKILL)
            host.start_agent()

        times = _times(_STARTS, start)
    return [Figure.median("agent killed with -9, started again, until /readyz", times)]


def commands() -> list[Result]:
    """What a person waits for at a prompt."""
    with ground.host() as host, Agent(host) as agent:
        for number in range(20):
            agent.apply(f"shown-{number}")
        caller = Caller(host.address, host.ca_file)
        for number in range(20):
            caller.wait(hostname(f"shown-{number}"))
        few = [_typed(host, words) for words in ("--help", "status", "ps")]
        for number in range(_MANY - 20):
            agent.apply(f"many-{number:03}", active=False)
        return [*few, *[_typed(host, words, f", {_MANY} services of which 20 run") for words in ("status", "list")]]


def _typed(host: Host, words: str, setting: str = "") -> Figure:
    return Figure.median(f"mcp {words}{setting}", _times(_COMMANDS, partial(command, host, words)))


def _at_rest(host: Host) -> list[Result]:
    watched = {
        "agent": host.agent.pid,
        "mcproxyd": _pid(host.layout, "mcproxyd"),
        "podman's API service": _pid(host.podman.layout, "podman"),
    }
    before = {name: _cpu_seconds(pid) for name, pid in watched.items()}
    switches = _switches(host.agent.pid)
    time.sleep(_WINDOW)
    minutes = _WINDOW / 60
    spent = {name: (_cpu_seconds(pid) - before[name]) / minutes for name, pid in watched.items()}
    woken = (_switches(host.agent.pid) - switches) / _WINDOW
    setting = f"idle with {_SERVICES} services"
    return [
        *[Figure(f"{name}, {setting}: CPU per minute", value, "s CPU") for name, value in spent.items()],
        *[Figure(f"{name}, {setting}: resident memory", _resident(pid), "MB") for name, pid in watched.items()],
        Figure(f"agent, {setting}: voluntary context switches, all threads", woken, "/s"),
    ]


def _times(count: int, work: Callable[[], object]) -> list[float]:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return times


def _pid(layout: Layout, name: str) -> int:
    process = processes.running(layout, name)
    if process is None:
        raise RuntimeError(f"{name} does not run")
    return process.pid


def _cpu_seconds(pid: int) -> float:
    """User and system time of the process; see proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _resident(pid: int) -> float:
    """VmRSS in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1]) / 1000


def _switches(pid: int) -> int:
    tasks = Path(f"/proc/{pid}/task").glob("*/status")
    lines = (line for task in tasks for line in task.read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches:"))
