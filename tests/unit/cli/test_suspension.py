"""Leaving services alone, and having them looked at."""

import asyncio
import json
import re
from contextlib import aclosing

from api.conditions import ConditionType, Reason, Status
from api.service import UndefinedService
from tests.unit.cli.plane import Mcp
from tests.unit.cli.test_apply import other
from tests.unit.cli.test_commands import applied


async def test_what_is_suspended_is_seen_everywhere(mcp: Mcp) -> None:
    await applied(mcp, "hello")
    ran = await mcp("suspend", "hello", "--reason", "the disk")
    assert (ran.status, ran.stderr) == (0, "")
    assert ran.lines[0] == "hello is suspended; mcp resume hello ends that"
    assert "running, suspended" in (await mcp("list")).stdout
    assert re.search(r"Suspended: by \S+: the disk$", (await mcp("status")).lines[1])
    mcp.plane.turn("hello", ConditionType.READY, Status.FALSE, Reason.UNHEALTHY, "500")
    assert re.search(r"Suspended: by \S+: the disk; Unhealthy: 500$", (await mcp("status")).lines[1])
    line = (await mcp("status", "hello")).lines[1]
    assert re.fullmatch(r"suspended for \d+s by \S+: the disk; nothing is done to it until: mcp resume hello", line)


async def test_what_is_due_is_not_told_twice(mcp: Mcp) -> None:
    await applied(mcp, "hello")
    await mcp("suspend", "-q", "hello")
    mcp.plane.turn("hello", ConditionType.READY, Status.FALSE, Reason.SUSPENDED, "suspended by ann; once resumed: go")
    assert (await mcp("status")).lines[1].endswith("Suspended: suspended by ann; once resumed: go")


async def test_whoever_is_late_is_named(mcp: Mcp) -> None:
    await applied(mcp, "hello")
    mcp.plane.late_reconcilers = ("certs", "containers")
    for command in ("suspend", "reconcile"):
        ran = await mcp(command, "hello")
        assert ran.status == 3
        assert "hello: certs, containers have not looked yet" in ran.stderr


async def test_resume_takes_services_or_all_that_are_suspended(mcp: Mcp) -> None:
    await applied(mcp, "hello", "world", "other")
    assert (await mcp("resume")).status == (await mcp("resume", "hello", "--all")).status == 2
    assert (await mcp("resume", "--all")).stdout == "no service is suspended\n"
    await mcp("suspend", "hello", "world", "other")
    assert (await mcp("resume", "other")).stdout == "other is resumed\n"
    ran = await mcp("resume", "--all", "-o", "json")
    assert [service["name"] for service in json.loads(ran.stdout)["services"]] == ["hello", "world"]
    assert not any(service.suspended for service in mcp.plane.registry.values())


async def test_a_look_on_demand_tells_what_was_found(mcp: Mcp) -> None:
    await applied(mcp, "hello")
    ran = await mcp("reconcile", "hello")
    assert (ran.status, ran.stderr) == (0, "")
    assert ran.lines[1].split()[:4] == ["hello", "web", "running", "running"]
    (one,) = json.loads((await mcp("reconcile", "hello", "-o", "json")).stdout)["services"]
    assert (one["service"]["name"], one["late"]) == ("hello", [])
    for command in ("suspend", "resume", "reconcile"):
        assert (await mcp(command, "nobody")).status == 5


async def test_containers_of_services_that_nobody_knows_are_offered(mcp: Mcp) -> None:
    mcp.plane.undefined = (UndefinedService(name="forge", containers=2), UndefinedService(name="web", containers=1))
    assert (await mcp("status")).stderr == (
        "3 containers of forge, web carry the labels of node rift without a definition, and are left alone:"
        " mcp adopt forge takes over what runs\n"
    )


async def test_whoever_applies_to_a_suspended_service_is_told_that_it_waits(mcp: Mcp) -> None:
    await applied(mcp, "hello")
    mcp.plane.behaviour = "nothing"
    changed = asyncio.create_task(mcp("apply", "-f", "-", stdin=other("hello").replace("v1.0.0", "v2.0.0")))
    async with asyncio.timeout(20), aclosing(mcp.plane.watch(["hello"])) as watch:
        async for seen in watch:
            if seen.service is not None and seen.service.generation == 2:
                break
    message = "suspended by ann; once resumed: replace hello-web"
    mcp.plane.turn("hello", ConditionType.CONTAINERS_RUNNING, Status.FALSE, Reason.SUSPENDED, message)
    ran = await changed
    assert ran.status == 1
    assert "Suspended: suspended by ann; once resumed: replace hello-web" in ran.stderr
