"""What an operator is told of a service: its timeline, that it flaps, and what differs from what is wanted."""

import asyncio
import json
import time
from pathlib import Path

import pytest

from api.conditions import ConditionType, Reason, Status
from api.service import Event, FieldChange
from api.timeline import NodeEvent
from stack import images
from stack.host import ZONE
from stack.web import wait_for
from tests.system.agent.rig import Rig, restarted

pytestmark = pytest.mark.system


async def test_the_timeline_names_the_wish_and_the_drift(rig: Rig) -> None:
    await rig.apply(rig.spec())
    before = await rig.until_ready()
    rig.podman.run("rm", "--force", "--time", "0", rig.container)
    await rig.until(restarted(before))
    await rig.apply(rig.spec(image=images.HELLO_NEXT))
    await rig.until_ready()
    told = [_sentence(event) for event in await rig.events() if event.actor == "containers"]
    assert told[0] == f"created {rig.container} from {images.HELLO}, generation 1 by test"
    change = f"image {images.HELLO} -> {images.HELLO_NEXT}"
    assert f"replaced {rig.container}: {change}, generation 2 by test" in told
    assert f"drift: created {rig.container} from {images.HELLO}: it is gone" in told


def _sentence(event: Event) -> str:
    return f"{'drift: ' if event.drift else ''}{event.kind} {event.message}"


@pytest.mark.timeout(60)
async def test_what_somebody_undoes_again_and_again_is_mended_more_slowly_but_what_a_person_applies_at_once(
    stopped: Rig, tmp_path: Path
) -> None:
    rig, told = stopped, tmp_path / "told"
    rig.start_agent(MCP_ALERTS_COMMAND=str(_notify(told)))
    await rig.apply(rig.spec())
    await rig.until_ready()
    undoing = asyncio.create_task(_undo(rig))
    found = await rig.until(lambda s: s.condition(ConditionType.FLAPPING) is not None)
    waits = await rig.until_reason(ConditionType.ROUTES_PROGRAMMED, Reason.FLAPPING)
    flapping = found.condition(ConditionType.FLAPPING)
    assert flapping is not None
    assert flapping.status is Status.TRUE
    assert flapping.message.startswith("routes were mended 10 times in ")
    assert f"{rig.name}.svc.{ZONE}" in waits.message
    page = rig.host.mcp("status", rig.name).stdout
    assert "Flapping for " in page
    started = time.monotonic()
    await rig.apply(rig.spec(image=images.HELLO_NEXT))
    undoing.cancel()
    await rig.until_ready()
    rig.until_it_answers("mcp-hello v1.0.1")
    assert time.monotonic() - started < 5
    calm = (await rig.get()).condition(ConditionType.FLAPPING)
    assert calm is not None
    assert calm.status is Status.FALSE
    kinds = [event.kind for event in await rig.events() if event.actor == "mcp-agent"]
    assert kinds == ["ready", "flapping", "calmed", "ready"]
    wait_for(lambda: told.read_text().count("\n") == 2, seconds=5, what="the alerts")
    alerts = [NodeEvent.model_validate_json(line) for line in told.read_text().splitlines()]
    assert [(alert.kind, alert.service, alert.node) for alert in alerts] == [
        ("flapping", rig.name, rig.host.node),
        ("calmed", rig.name, rig.host.node),
    ]
    assert f"the last one was told, of {rig.name} (calmed)" in rig.host.mcp("doctor").stdout


async def test_what_needs_a_person_after_a_start_is_told_and_that_it_is_over(stopped: Rig, tmp_path: Path) -> None:
    rig, told = stopped, tmp_path / "told"
    rig.start_agent()
    await rig.apply(rig.spec())
    await rig.until_event("ready")
    rig.host.stop_agent()
    rig.podman.run("rm", "--force", "--time", "0", rig.container)
    rig.podman.run("run", "--detach", "--name", rig.container, images.HELLO)
    rig.start_agent(MCP_ALERTS_COMMAND=str(_notify(told)))
    await rig.until_reason(ConditionType.CONTAINERS_RUNNING, Reason.CONFLICT)
    rig.podman.run("rm", "--force", "--time", "0", rig.container)
    await rig.until_ready()
    wait_for(lambda: told.read_text().count("\n") == 2, seconds=5, what="the alerts")
    failed, recovered = (NodeEvent.model_validate_json(line) for line in told.read_text().splitlines())
    assert (failed.kind, failed.message.partition(":")[0]) == ("failed", "Conflict")
    assert (recovered.kind, recovered.message) == ("recovered", "everything is as defined again")


def _notify(told: Path) -> Path:
    """A command that writes down what it is told."""
    told.touch()
    path = told.with_name("notify")
    path.write_text(f"#!/bin/sh\ncat >>{told}\n")
    path.chmod(0o700)
    return path


async def _undo(rig: Rig) -> None:
    """Takes the route away as often as it is there."""
    while True:
        if rig.hostname in await asyncio.to_thread(rig.table.hostnames):
            await asyncio.to_thread(rig.table.remove, rig.listener, rig.hostname)
        await asyncio.sleep(0.05)


async def test_a_person_is_shown_what_is_wanted_and_what_is_there(rig: Rig) -> None:
    everything = {
        "env": ["LEVEL=debug", "API_TOKEN=old"],
        "memory": "64M",
        "cpus": 0.5,
        "volumes": [],
        "labels": {"team": "x"},
        "cap_drop": ["ALL"],
        "read_only": True,
        "tmpfs": ["/scratch:size=1M"],
        "stop_timeout": "3s",
    }
    changed = everything | {"env": ["LEVEL=info", "API_TOKEN=new"], "memory": "96M", "cap_drop": [], "cpus": 0.25}
    await rig.apply(rig.spec(**everything))
    await rig.until_ready()
    async with rig.client() as client:
        assert (await client.apply(rig.spec(**everything), dry_run=True)).actions == ()
        (action,) = (await client.apply(rig.spec(**changed), dry_run=True)).actions
    assert set(action.fields) == {
        FieldChange(path="components[web].env.LEVEL", old='"debug"', new='"info"'),
        FieldChange(path="components[web].env.API_TOKEN", old='"********"', new='"********"'),
        FieldChange(path="components[web].memory", old='"64M"', new='"96M"'),
        FieldChange(path="components[web].cpus", old="0.5", new="0.25"),
        FieldChange(path="components[web].cap_drop", old='["ALL"]', new="[]"),
    }
    report = json.loads(rig.host.mcp("status", rig.name, "-o", "json").stdout)
    assert report["actions"] == []
