"""One agent's loops: it starts with everything, ends with nothing left, and never survives a defect by halves."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from api.service import Service
from controller.agent import Agent, Loops, Task
from controller.driver import Driver, DriverSettings
from controller.flapping import Flapping, FlappingSettings
from controller.metrics import Metrics
from controller.queue import WorkQueue
from controller.registry import Registry, utc_now
from controller.rollouts import Rollouts
from controller.wakes import ALL, Wakes
from reconcilers.base import Action
from reconcilers.containers.watching.waiting import Waiting
from tests.unit.controller.recording import RecordingPorts
from tests.unit.controller.registry.samples import spec


class Gated(RecordingPorts):
    """Says when it begins an action, and ends it when it may."""

    def __init__(self, registry: Registry) -> None:
        super().__init__()
        self.registry = registry
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()

    async def execute(self, service: Service, action: Action) -> None:
        self.begun.set()
        await self.may_end.wait()
        await self.registry.allocate_port(service.name, "web", "default", 10001)
        await super().execute(service, action)


class Started:
    """A running agent with one reconciler."""

    def __init__(self, registry: Registry, ports: Gated, watchers: dict[str, Task], stop_seconds: float) -> None:
        metrics = Metrics(ALL)
        queues = {name: WorkQueue(metrics.reconciler(name).queue) for name in ALL}
        flapping = Flapping(FlappingSettings(), metrics.flapping.inc, utc_now)
        series, how = metrics.reconciler("ports"), DriverSettings(workers=1)
        driver = Driver(ports, registry, queues["ports"], series, how, flapping, utc_now)
        loops = Loops([driver], watchers, Wakes(queues, registry, Waiting()), Rollouts(registry, metrics))
        self.stop = asyncio.Event()
        agent = Agent(registry, loops, resync_seconds=600, stop_seconds=stop_seconds)
        self.running = asyncio.create_task(agent.run(self.stop))

    async def ends(self) -> None:
        self.stop.set()
        async with asyncio.timeout(5):
            await self.running


StartAgent = Callable[..., Started]


@pytest.fixture
def ports(lite: Registry) -> Gated:
    return Gated(lite)


@pytest.fixture
async def start(lite: Registry, ports: Gated) -> AsyncIterator[StartAgent]:
    started: list[Started] = []

    def run(watchers: dict[str, Task] | None = None, stop_seconds: float = 5) -> Started:
        started.append(Started(lite, ports, watchers or {}, stop_seconds))
        return started[-1]

    yield run
    for one in started:
        one.running.cancel()
        await asyncio.wait([one.running])


async def forever() -> None:
    await asyncio.Event().wait()


async def test_what_is_there_is_looked_at_from_the_start(lite: Registry, ports: Gated, start: StartAgent) -> None:
    await lite.apply(spec(), actor="ann")
    agent = start()
    async with asyncio.timeout(5):
        await ports.begun.wait()
    ports.may_end.set()
    await agent.ends()


async def test_what_was_begun_is_finished_and_nothing_else_is_begun(
    lite: Registry, ports: Gated, start: StartAgent
) -> None:
    await lite.apply(spec(), actor="ann")
    agent = start({"watcher": forever})
    async with asyncio.timeout(5):
        await ports.begun.wait()
    agent.stop.set()
    await lite.apply(spec("late"), actor="ann")
    ports.may_end.set()
    await agent.ends()
    service = await lite.service("hello")
    assert service is not None
    assert [port.port for port in service.ports] == [10001]
    assert len(service.conditions) == 2
    assert {seen.name for seen in ports.seen} == {"hello"}


async def test_what_does_not_end_in_time_is_cut_off(lite: Registry, ports: Gated, start: StartAgent) -> None:
    await lite.apply(spec(), actor="ann")
    agent = start(stop_seconds=0.05)
    async with asyncio.timeout(5):
        await ports.begun.wait()
    await agent.ends()
    service = await lite.service("hello")
    assert service is not None
    assert (service.ports, ports.executed) == ((), [])


async def test_a_defect_in_a_watcher_ends_the_agent(start: StartAgent) -> None:
    async def breaks() -> None:
        raise ZeroDivisionError

    agent = start({"fine": forever, "breaks": breaks})
    with pytest.raises(ExceptionGroup) as ended:
        async with asyncio.timeout(5):
            await agent.running
    assert ended.value.subgroup(ZeroDivisionError) is not None


async def test_a_defect_in_a_reconciler_ends_nothing(lite: Registry, ports: Gated, start: StartAgent) -> None:
    async def breaks(service: Service, action: Action) -> None:
        ports.begun.set()
        raise ZeroDivisionError

    ports.execute = breaks  # type: ignore[method-assign]
    agent = start()
    await lite.apply(spec(), actor="ann")
    async with asyncio.timeout(5):
        await ports.begun.wait()
    assert not agent.running.done()
    await agent.ends()


@asynccontextmanager
async def manager(address: str) -> AsyncIterator[Callable[[], str]]:
    """What systemd does with NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(address.replace("@", "\0"))
        channel.settimeout(5)
        yield lambda: channel.recv(100).decode()


@pytest.mark.parametrize("kind", ["path", "abstract"])
async def test_systemd_hears_of_the_start_and_of_the_end(
    start: StartAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    address = {"path": f"{tmp_path}/notify", "abstract": f"@{tmp_path}"}[kind]
    async with manager(address) as heard:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        agent = start()
        assert await asyncio.to_thread(heard) == "READY=1"
        await agent.ends()
        assert heard() == "STOPPING=1"


async def test_a_manager_that_is_gone_is_no_reason_to_go(
    start: StartAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", f"{tmp_path}/nobody")
    await start().ends()
