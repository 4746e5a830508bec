"""Containers that run without a definition are taken over: each keeps its id, its process and its connections."""

import asyncio
from pathlib import Path

import pytest

from api.conditions import ConditionType, Reason
from api.manifest import dump, load
from api.secrecy import shown
from api.service import Change, Service
from api.spec import ServiceSpec
from stack import images
from tests.system.agent.rig import Rig

pytestmark = pytest.mark.system


def state(rig: Rig) -> Path:
    """The agent's folder."""
    return rig.host.layout.root / "agent"


def born(rig: Rig, *containers: str) -> list[str]:
    """Which containers run, and since when."""
    return [rig.inspect("{{.Id}} {{.State.StartedAt}} {{.State.Pid}}", one) for one in containers]


def make(folder: str) -> None:
    """Makes a folder of the host's."""
    Path(folder).mkdir(parents=True)


def lose_the_registry(rig: Rig) -> None:
    rig.kill_agent()
    for file in state(rig).glob("registry.db*"):
        file.unlink()
    rig.start_agent()


def serves(service: Service) -> bool:
    """Whether its containers are as defined."""
    found = service.condition(ConditionType.CONTAINERS_RUNNING)
    return found is not None and (found.reason, found.observed_generation) == (Reason.CONVERGED, service.generation)


async def is_as_defined(rig: Rig, written: ServiceSpec) -> None:
    """Whether applying what was written changes nothing, and neither does another look."""
    async with rig.client() as client:
        planned = await client.apply(written, dry_run=True)
        assert (planned.change, [action.description for action in planned.actions]) == (Change.UNCHANGED, [])
        assert (await client.apply(written)).change is Change.UNCHANGED
        assert (await client.reconcile(written.name)).late == ()


async def test_what_a_lost_registry_left_is_defined_again_as_it_was(rig: Rig) -> None:
    root = f"{rig.host.layout.root}/srv/{rig.name}"
    web = {
        "name": "web",
        "image": images.HELLO,
        "routes": [rig.route(), rig.route(name="admin", hostname=f"admin.{rig.hostname}")],
        "volumes": [f"{root}/z:/z", f"{root}/a:/a:ro"],
        "cmd": ["/bin/sh", "-c", "httpd -f -p 0.0.0.0:$PORT_ADMIN -h /www & exec httpd -f -p 0.0.0.0:$PORT -h /www"],
        "env": ["COLOUR=red", "DSN=correct horse"],
        "secret_env": ["DSN"],
        "secrets": [f"{rig.name}:env:PIN"],
        "memory": "64M",
        "tmpfs": ["/scratch:size=1M"],
        "labels": {"team": "x"},
    }
    (secret := rig.host.layout.root / "secret").write_text("battery staple")
    rig.podman.run("secret", "create", rig.name, secret)
    for folder in ("z", "a"):
        make(f"{root}/{folder}")
    spec = ServiceSpec.model_validate(
        {"name": rig.name, "components": [web, {"name": "peer", "image": images.HELLO, "volumes": []}]}
    )
    await rig.apply(spec)
    await rig.until_ready()
    rig.until_it_answers()
    names = (rig.container, f"{rig.name}-peer")
    before = born(rig, *names)
    lose_the_registry(rig)
    dry = rig.host.mcp("adopt", rig.name, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "without a definition" in rig.host.mcp("status").stderr
    file = rig.host.layout.root / "adopted.toml"
    done = rig.host.mcp("adopt", rig.name, "--write", str(file))
    assert done.returncode == 0, done.stderr
    await rig.until_ready()
    written = load(file.read_bytes(), "adopted.toml").spec
    assert written == load(dry.stdout, "dry").spec
    # In the order of the names, and otherwise as it was applied.
    assert sorted(written.components, key=repr) == sorted(shown(spec).components, key=repr)
    assert not any(word in file.read_text() + dry.stdout for word in ("horse", "staple"))
    await is_as_defined(rig, written)
    assert load(rig.host.mcp("export", rig.name).stdout, "export").spec == written
    assert (born(rig, *names), rig.answers()) == (before, True)
    assert "without a definition" not in rig.host.mcp("status").stderr


async def test_a_container_made_by_hand_is_taken_over_until_its_definition_changes(rig: Rig) -> None:
    network = rig.podman.make_network()
    stranger, hand = f"hand_{rig.name}", ["run", "--detach", "--network", network]
    rig.podman.run(*hand, "--name", stranger, "--env", "A=b c", "--restart", "on-failure", images.HELLO)
    rig.podman.run(
        *hand, "--name", f"{rig.name}-db", "--restart", "always", "--volume", f"{rig.name}:/data", images.HELLO
    )
    bystander = f"{rig.name}x"
    rig.podman.run(*hand, "--name", bystander, images.HELLO)
    try:
        before = born(rig, stranger, f"{rig.name}-db", bystander)
        pairs = ["--container", f"{stranger}=web", "--container", f"{rig.name}-db=db"]
        done = rig.host.mcp("adopt", rig.name, *pairs)
        assert done.returncode == 0, done.stderr
        assert "# " + stranger + ": podman goes on restarting it by itself" in done.stdout
        written = load(done.stdout, "stdout").spec
        await rig.until(serves)
        names = (rig.container, f"{rig.name}-db", bystander)
        assert born(rig, *names) == before
        await is_as_defined(rig, written)
        assert all(name in rig.host.mcp("ps").stdout for name in names)
        # It is known after the agent was killed, too.
        rig.kill_agent()
        rig.start_agent()
        await is_as_defined(rig, written)
        assert born(rig, *names) == before
        # What ends is started again, as what MCP made itself is: often before podman's own command has tidied up,
        # which then complains.
        await asyncio.to_thread(rig.podman.run, "stop", "--time", "0", f"{rig.name}-db", check=False)
        await rig.until(lambda service: serves(service) and born(rig, names[1]) != [before[1]])
        assert rig.inspect("{{.Id}}", names[1]) == before[1].split()[0]
        # The next change makes it one of MCP's own.
        changed = load(dump(written).replace("A=b c", "A=c"), "changed").spec
        await rig.apply(changed)
        await rig.until(serves)
        assert born(rig, bystander) == before[2:]
        assert rig.inspect("{{.Id}}") != before[0].split()[0]
        assert rig.container in rig.containers()
        await rig.delete()
        assert born(rig, bystander) == before[2:]
    finally:
        rig.podman.run("rm", "--force", "--time", "0", "--ignore", stranger, f"{rig.name}-db", rig.container, bystander)
        rig.podman.run("volume", "rm", "--force", rig.name)
