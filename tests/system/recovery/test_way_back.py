"""From a snapshot back to a host that serves: nothing that runs is restarted, and nothing is rolled back unasked."""

import asyncio
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from api.client import Client
from api.conditions import ConditionType, Reason
from api.service import Service
from stack import images
from tests.system.agent.rig import Rig, is_ready

pytestmark = pytest.mark.system


def agent(rig: Rig, *arguments: str | Path) -> str:
    """What `mcp-agent` says with the settings of this host's agent."""
    command: list[str | Path] = [Path(sys.executable).parent / "mcp-agent", *arguments, "-c", rig.host.agent_config]
    environment = rig.host.environment | rig.variables
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def snapshot(rig: Rig, disk: Path) -> Path:
    """The newest snapshot, taken now."""
    agent(rig, "snapshot", "--to", disk)
    return max(disk.iterdir())


def state(rig: Rig) -> Path:
    """The agent's folder."""
    return rig.host.layout.root / "agent"


def born(rig: Rig) -> str:
    """Which container runs, and since when."""
    return rig.inspect("{{.Id}} {{.State.StartedAt}} {{.State.Pid}}")


def is_left_alone(service: Service) -> bool:
    """Whether it was looked at since it is suspended, and is not as defined."""
    condition = service.condition(ConditionType.CONTAINERS_RUNNING)
    return condition is not None and condition.reason is Reason.SUSPENDED


async def written_to(client: Client, rig: Rig) -> None:
    """Definitions without end; none of them runs."""
    for number in range(10_000):
        spec = rig.spec(f"w{number}-{rig.name}", routes=[])
        await client.apply(spec.model_copy(update={"active": False}))


async def test_a_dead_disk_costs_nothing_that_runs(rig: Rig, disk: Path) -> None:
    await rig.apply(rig.spec())
    await rig.until_ready()
    rig.until_it_answers()
    ca = rig.host.ca_file.read_bytes()
    async with rig.client() as client:
        writing = asyncio.create_task(written_to(client, rig))
        taken = [await asyncio.to_thread(snapshot, rig, disk) for _ in range(2)][-1]
        assert not writing.done()
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
    before = born(rig)
    rig.kill_agent()
    shutil.rmtree(state(rig))
    assert "all services are suspended" in agent(rig, "restore", taken)
    rig.start_agent()
    service = await rig.until(is_ready)
    assert service.suspended is not None
    assert service.suspended.reason.startswith("restored from the snapshot of ")
    assert rig.host.mcp("resume", "--all").returncode == 0
    rig.until_it_answers()
    await rig.until(lambda one: is_ready(one) and one.suspended is None)
    done = rig.host.mcp("reconcile", rig.name)
    assert (done.returncode, born(rig), rig.host.ca_file.read_bytes()) == (0, before, ca)


async def test_an_older_registry_rolls_nothing_back_until_somebody_says_so(any_rig: Rig, disk: Path) -> None:
    rig = any_rig
    await rig.apply(rig.spec())
    await rig.until_ready()
    taken = await asyncio.to_thread(snapshot, rig, disk)
    await rig.apply(rig.spec(image=images.HELLO_NEXT))
    await rig.until_ready()
    rig.until_it_answers("mcp-hello v1.0.1")
    before = born(rig)
    rig.host.stop_agent()
    assert "kept in" in agent(rig, "restore", taken, "--force")
    rig.start_agent()
    service = await rig.until(is_left_alone)
    assert rig.host.mcp("reconcile", rig.name).returncode == 0
    assert (service.generation, born(rig)) == (1, before)
    assert rig.answers("mcp-hello v1.0.1")
    shown = rig.host.mcp("status", rig.name).stdout
    assert "restored from the snapshot of" in shown
    assert images.HELLO in shown
    # What is new is served as ever.
    other = f"n{rig.name}"
    await rig.apply(rig.spec(other, routes=[]))
    assert (await rig.until_ready(other)).suspended is None
    assert rig.host.mcp("resume", rig.name).stdout == f"{rig.name} is resumed\n"
    rig.until_it_answers("mcp-hello v1.0.0")
    await rig.until_ready()


async def test_a_wiped_engine_is_filled_again_once_somebody_says_so(rig: Rig, disk: Path) -> None:
    await rig.apply(rig.spec())
    await rig.until_ready()
    taken = await asyncio.to_thread(snapshot, rig, disk)
    rig.host.stop_agent()
    rig.remove_containers()
    agent(rig, "restore", taken, "--force")
    rig.start_agent()
    await rig.until(is_left_alone)
    assert rig.containers() == []
    assert rig.host.mcp("resume", "--all").returncode == 0
    await rig.until_ready()
    rig.until_it_answers()


async def test_containers_that_nobody_defines_are_offered_and_never_removed(rig: Rig) -> None:
    await rig.apply(rig.spec())
    await rig.until_ready()
    rig.until_it_answers()
    before = born(rig)
    rig.kill_agent()
    for file in state(rig).glob("registry.db*"):
        file.unlink()
    rig.start_agent(MCP_LOOP_RESYNC_SECONDS="0.5")
    # Others come and go beside it.
    other = f"n{rig.name}"
    await rig.apply(rig.spec(other))
    await rig.until_ready(other)
    await rig.delete(other)
    status = rig.host.mcp("status")
    assert (
        f"1 container of {rig.name} carries the labels of node {rig.host.node} without a definition,"
        f" and is left alone: mcp adopt {rig.name} takes over what runs"
    ) in status.stderr
    assert "containers_without_definition" in rig.agent_log()
    assert born(rig) == before
    assert rig.answers()
    # Whoever defines it as it was has it again as it runs.
    await rig.apply(rig.spec())
    await rig.until_ready()
    assert "without a definition" not in rig.host.mcp("status").stderr


async def test_what_is_suspended_is_left_alone_by_everybody(rig: Rig) -> None:
    await rig.apply(rig.spec())
    await rig.until_ready()
    assert rig.host.mcp("suspend", rig.name, "--reason", "the disk").returncode == 0
    rig.podman.run("stop", "--time", "0", rig.container)
    rig.table.remove(rig.listener, rig.hostname)
    for file in rig.files():
        (rig.host.cert_dir / file).unlink()
    await rig.until(is_left_alone)
    looked = rig.host.mcp("reconcile", rig.name)
    assert (looked.returncode, "Suspended" in looked.stdout) == (0, True)
    assert rig.inspect("{{.State.Status}}") == "exited"
    assert (rig.files(), rig.table.hostnames()) == ([], [])
    changed = rig.spec(image=images.HELLO_NEXT)
    async with rig.client() as client:
        assert (await client.apply(changed)).service.suspended is not None
        assert (await client.reconcile(rig.name)).late == ()
    assert rig.inspect("{{.State.Status}}") == "exited"
    assert rig.host.mcp("resume", rig.name).returncode == 0
    await rig.until_ready()
    rig.until_it_answers("mcp-hello v1.0.1")
    told = [event.kind for event in await rig.events()]
    assert "left alone" in told[told.index("suspended") : told.index("resumed")]


async def test_a_suspended_service_can_be_deleted(rig: Rig) -> None:
    await rig.apply(rig.spec())
    await rig.until_ready()
    rig.host.mcp("suspend", rig.name)
    await rig.delete()
    assert (rig.containers(aside=True), rig.table.hostnames()) == ([], [])
