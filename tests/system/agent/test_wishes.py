"""Wishes that are less than a definition, from the command line to the container and its route."""

import pytest

from api.service import ContainerState
from stack import images
from tests.system.agent.rig import Rig

pytestmark = pytest.mark.system


async def test_a_component_is_restarted_stopped_and_started_by_a_wish(rig: Rig) -> None:
    await rig.apply(rig.spec())
    before = (await rig.until_ready()).components[0].container_id
    assert rig.host.mcp("restart", f"{rig.name}/web").returncode == 0
    after = (await rig.until_ready()).components[0].container_id
    assert after != before
    assert rig.host.mcp("stop", f"{rig.name}/web").returncode == 0
    stopped = await rig.until(lambda service: service.components[0].state is ContainerState.EXITED)
    assert [claim.backend for claim in stopped.claims] == [""]
    assert rig.hostname not in rig.table.hostnames()
    assert rig.host.mcp("start", f"{rig.name}/web").returncode == 0
    started = await rig.until(lambda service: service.components[0].ready)
    assert started.components[0].container_id == after
    rig.until_it_answers()
    told = [event for event in await rig.events() if event.actor == "containers"]
    assert not any(event.drift for event in told)
    assert any("restart asked by " in event.message for event in told)


async def test_a_rollback_runs_what_ran_before(rig: Rig) -> None:
    await rig.apply(rig.spec())
    await rig.until_ready()
    await rig.apply(rig.spec(image=images.HELLO_NEXT))
    await rig.until_ready()
    assert rig.host.mcp("service", "rollback", rig.name).returncode == 0
    assert (await rig.get()).spec == rig.spec()
    rig.until_it_answers("mcp-hello v1.0.0")
