"""The agent told to stop, and killed at any moment: the next one finds everything again."""

import asyncio
import random
import re
import signal

import pytest

from stack import images, web
from tests.system import faults
from tests.system.agent.rig import Rig
from tests.system.faults import FaultySocket

pytestmark = pytest.mark.system

SEED = 20261125


async def test_nothing_happens_to_the_world_when_the_agent_stops_and_starts(rig: Rig) -> None:
    await rig.apply(rig.spec())
    before = await rig.until_ready()
    world, events = await picture(rig), await rig.events()
    rig.host.stop_agent()
    assert rig.answers()
    rig.start_agent()
    web.wait_for(lambda: web.is_ok(f"{rig.host.metrics_url}/readyz"), seconds=10, what="readiness")
    assert await rig.until_ready() == before
    assert (await picture(rig), await rig.events()) == (world, events)


async def test_told_to_stop_in_the_middle_it_ends_soon_and_leaves_what_can_be_resumed(rig: Rig) -> None:
    await rig.apply(rig.spec())
    process = rig.host.agent
    began = asyncio.get_running_loop().time()
    rig.host.stop_agent(signal.SIGTERM)
    assert asyncio.get_running_loop().time() - began < 5
    assert "cut_off" not in rig.agent_log()
    rig.start_agent()
    assert rig.host.agent != process
    await rig.until_ready()
    assert rig.answers()
    assert rig.containers() == [rig.container]


@pytest.mark.parametrize("call", ["POST .*/images/pull", "POST .*/start"])
async def test_a_call_that_hangs_does_not_hold_up_the_end(stopped: Rig, engine: FaultySocket, call: str) -> None:
    stopped.start_agent(MCP_LOOP_STOP_SECONDS="0.5", MCP_PODMAN_TIMEOUT_SECONDS="60")
    image = f"localhost/absent:{stopped.name}" if "pull" in call else images.HELLO
    with engine.misbehaving(call, faults.hangs) as hits:
        await stopped.apply(stopped.spec(image=image))
        await asyncio.to_thread(web.wait_for, hits, seconds=10, what=call)
        began = asyncio.get_running_loop().time()
        stopped.host.stop_agent(signal.SIGTERM)
        assert asyncio.get_running_loop().time() - began < 5


@pytest.mark.timeout(150)
async def test_killed_at_any_moment_it_ends_where_an_undisturbed_one_does(rig: Rig) -> None:
    """Each wish is killed on its way, twice, before it may be fulfilled."""
    dice = random.Random(SEED)
    undisturbed = [await fulfil(rig, number) for number in range(3)]
    for attempt in range(2):
        for number in range(3):
            for _ in range(2):
                await wish(rig, number)
                await asyncio.sleep(dice.uniform(0, 0.3))
                rig.kill_agent()
                rig.start_agent()
            assert await fulfil(rig, number) == undisturbed[number], f"seed {SEED}, attempt {attempt}, wish {number}"


async def wish(rig: Rig, number: int) -> None:
    """A creation, a replacement, a deletion."""
    async with rig.client() as client:
        if number < 2:
            await client.apply(rig.spec(image=(images.HELLO, images.HELLO_NEXT)[number]))
        elif await exists(rig):
            await client.delete(rig.name)


async def fulfil(rig: Rig, number: int) -> object:
    """The world once the wish is fulfilled."""
    await wish(rig, number)
    if number < 2:
        await rig.until_ready()
        rig.until_it_answers(f"mcp-hello v1.0.{number}")
    else:
        await rig.until_gone()
    return await picture(rig)


async def exists(rig: Rig) -> bool:
    async with rig.client() as client:
        return rig.name in [service.name for service in await client.services()]


async def picture(rig: Rig) -> object:
    """All that a service leads to, but for what differs from run to run: ids, times, ports."""
    async with rig.client() as client:
        services = await client.services()
    known = [
        (
            service.spec,
            [(condition.type, condition.status, condition.reason) for condition in service.conditions],
            [(component.name, component.state, component.ready, component.image) for component in service.components],
            [(claim.listener, claim.hostname, claim.mode) for claim in service.claims],
            len(service.ports),
            len(service.certificates),
        )
        for service in services
    ]
    routes = [(listener, re.sub(r":\d+", "", str(route))) for listener, route in rig.table.routes()]
    return known, rig.containers(), rig.containers("status=running"), routes, rig.files()
