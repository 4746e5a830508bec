"""All kinds of harm in any order, faster than it can be mended: in the end the world is as it is defined."""

import random
import re
import signal
from collections.abc import Callable
from contextlib import suppress

import grpc
import pytest

from stack import images, processes
from stack.host import ZONE
from stack.processes import StackError
from tests.system.agent.rig import Rig, restarted

pytestmark = pytest.mark.system

SEED = 4


@pytest.mark.timeout(150)
async def test_any_order_of_harm_ends_where_it_began(rig: Rig) -> None:
    names = [f"{letter}{rig.name}" for letter in "abc"]
    for name in names:
        await rig.apply(rig.spec(name))
        await rig.until_ready(name)
    dice = random.Random(SEED)
    version = dict.fromkeys(names, 0)
    for _ in range(25):
        name = dice.choice(names)
        harm = dice.choice([*HARMS, None])
        if harm is None:
            version[name] = 1 - version[name]
            await rig.apply(rig.spec(name, image=(images.HELLO, images.HELLO_NEXT)[version[name]]))
        else:
            with suppress(StackError, OSError, grpc.RpcError):  # it may be gone already
                harm(rig, name)
    for name in names:
        await rig.until_ready(name, seconds=60)
        rig.until_it_answers(f"mcp-hello v1.0.{version[name]}", f"{name}.svc.{ZONE}")
    assert rig.containers("status=running") == rig.containers() == [f"{name}-web" for name in names]
    assert sorted(rig.table.hostnames()) == [f"{name}.svc.{ZONE}" for name in names]
    assert rig.files() == sorted(f"{name}.{kind}" for name in names for kind in ("pem", "key"))
    for name in names:
        await rig.delete(name)
    assert (rig.containers(), rig.files(), rig.table.hostnames()) == ([], [], [])


def kill_container(rig: Rig, name: str) -> None:
    if process := processes.identify(int(rig.inspect("{{.State.Pid}}", f"{name}-web")) or -1):
        processes.end(process, sig=signal.SIGKILL)


def remove_container(rig: Rig, name: str) -> None:
    rig.podman.run("rm", "--force", "--time", "0", f"{name}-web")


def stop_container(rig: Rig, name: str) -> None:
    rig.podman.run("stop", "--time", "0", f"{name}-web")


def remove_route(rig: Rig, name: str) -> None:
    rig.table.remove(rig.listener, f"{name}.svc.{ZONE}")


def remove_certificate(rig: Rig, name: str) -> None:
    (rig.host.cert_dir / f"{name}.pem").unlink()


def garble_key(rig: Rig, name: str) -> None:
    (rig.host.cert_dir / f"{name}.key").write_text("garbage")


def kill_agent(rig: Rig, name: str) -> None:
    rig.kill_agent()
    rig.start_agent()


def empty_proxy(rig: Rig, name: str) -> None:
    rig.host.stop_proxy(signal.SIGKILL)
    rig.host.forget_routes()
    rig.host.start_proxy()


HARMS: tuple[Callable[[Rig, str], None], ...] = (
    kill_container,
    remove_container,
    stop_container,
    remove_route,
    remove_certificate,
    garble_key,
    kill_agent,
    empty_proxy,
)


async def test_a_folder_of_certificates_that_is_taken_away_comes_back(rig: Rig) -> None:
    await rig.apply(rig.spec())
    before = await rig.until_ready()
    old = before.certificates[0].fingerprint
    rig.host.cert_dir.rename(rig.host.layout.root / "taken-away")
    new = (await rig.until(lambda s: s.certificates[0].fingerprint not in (old, ""))).certificates[0].fingerprint
    await rig.until(lambda s: s.claims[0].certificate == new)
    assert rig.answers()
    (rig.host.cert_dir / f"{rig.name}.pem").unlink()
    await rig.until(lambda s: s.certificates[0].fingerprint not in (old, new, ""))


async def test_a_podman_service_that_is_started_anew_costs_nothing(rig: Rig) -> None:
    await rig.apply(rig.spec())
    await rig.until_ready()
    started = rig.inspect("{{.Id}} {{.State.StartedAt}}")
    rig.podman.stop()
    rig.podman.start()
    await rig.until_ready()
    assert rig.inspect("{{.Id}} {{.State.StartedAt}}") == started
    before = await rig.get()
    rig.podman.run("kill", "--signal", "KILL", rig.container)
    await rig.until(restarted(before))


async def test_a_dry_run_tells_exactly_what_is_then_done(rig: Rig) -> None:
    for spec in (rig.spec(), rig.spec(image=images.HELLO_NEXT, env=["A=b"])):
        seen = {event.id for event in await rig.events()}
        async with rig.client() as client:
            planned = (await client.apply(spec, dry_run=True)).actions
            assert {event.id for event in await client.events(rig.name)} == seen
            await client.apply(spec)
        await rig.until_ready()
        done = [event for event in await rig.events() if event.id not in seen and event.actor != "test"]
        told = sorted((action.resource, action.verb, action.description.partition(" ")[2]) for action in planned)
        wish = f", generation {done[0].generation} by test"
        assert told == sorted((e.actor, e.kind, e.message.removesuffix(wish)) for e in done if e.actor != "mcp-agent")
    async with rig.client() as client:
        planned = (await client.delete(rig.name, dry_run=True)).actions
        seen = {event.id for event in await client.events(rig.name)}
    await rig.delete()
    done = [e for e in await rig.events() if e.id not in seen and e.kind not in ("deleting", "deleted")]
    told = [(a.resource, a.verb, a.description.partition(" ")[2]) for a in planned]
    # What is drained is removed once it has no connections, and the container of before may go at any moment.
    removed = ("containers", "removed")
    assert [one for one in told if one[:2] != removed] == [
        (e.actor, e.kind, e.message) for e in done if (e.actor, e.kind) != removed
    ]
    assert rig.containers() == []


async def test_the_command_says_what_became_of_it(rig: Rig) -> None:
    definition = rig.host.layout.root / "one.toml"
    definition.write_text(re.sub(r"\n +", "\n", f"""
        name = "{rig.name}"
        [[components]]
        name = "web"
        image = "{images.HELLO}"
        """))  # fmt: skip
    done = rig.host.mcp("apply", "-f", definition)
    assert done.returncode == 0, done.stderr
    assert "created" in done.stdout
    assert "unchanged" in rig.host.mcp("apply", "-f", definition).stdout
    assert rig.host.mcp("diff", "-f", definition).returncode == 0
    rig.host.stop_agent()
    done = rig.host.mcp("apply", "-f", definition)
    assert (done.returncode, "does not answer" in done.stderr) == (4, True)
