"""What the node's policy forbids never reaches a real podman, and what runs is left alone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.conditions import Reason
from api.spec import ComponentSpec
from reconcilers.containers.policy import Policy
from stack import images
from stack.podman import PodmanHost
from tests.system.containers.node import Node, answer, kill, running_node, web


@pytest.fixture
async def lenient(podman: PodmanHost, folder: Path) -> AsyncIterator[Node]:
    """A node that allows `alpha` some things."""
    (folder / "data").mkdir()
    policy = Policy(
        mounts=(str(folder / "data"),),
        capabilities=("alpha:NET_ADMIN",),
        privileged=("alpha",),
        host_namespaces=("alpha",),
    )
    async with running_node(podman, folder, policy=policy) as running:
        yield running
        await running.delete_all()


def shares_ipc(pid: str) -> bool:
    """Whether a process shares ours; what podman tells of it is not to be relied on."""
    return Path(f"/proc/{pid}/ns/ipc").samefile("/proc/self/ns/ipc")


FORBIDDEN: dict[str, dict[str, object]] = {
    "policy.mounts": {"volumes": ["/usr:/host:ro"]},
    "podman's socket": {"volumes": ["{socket}:/podman.sock"]},
    "as a whole": {"volumes": ["/:/host"]},
    "the kernel's own": {"volumes": ["/proc:/host-proc"]},
    "policy.privileged": {"privileged": True},
    "policy.capabilities": {"cap_add": ["SYS_ADMIN"]},
    'network "host"': {"network": "host"},
    'host_namespaces "pid"': {"host_namespaces": ["pid"]},
}


async def test_what_is_forbidden_is_not_made_and_the_message_names_the_setting(node: Node) -> None:
    async def said(fields: dict[str, object]) -> str:
        volumes = [text.format(socket=node.host.socket) for text in fields.get("volumes", [])]  # type: ignore[attr-defined]
        await node.apply(web("alpha", **{**fields, "volumes": volumes}))
        return (await node.until_reason("alpha", Reason.FORBIDDEN)).message

    for name, fields in FORBIDDEN.items():
        assert name in await said(fields), name
    assert node.names("alpha") == []
    assert not (node.folder / "srv").exists()


async def test_a_forbidden_change_leaves_the_container_before_it_running(node: Node) -> None:
    await node.apply(web("alpha"))
    before = (await node.until_ready("alpha")).components[0]
    forbidden = web("alpha", images.HELLO_NEXT, privileged=True)
    await node.apply(forbidden)
    condition = await node.until_reason("alpha", Reason.FORBIDDEN)
    assert condition.message.startswith("alpha-web: privileged: not for service alpha, unless policy.privileged")
    service = await node.service("alpha")
    assert (service.components[0].container_id, answer(service)) == (before.container_id, "mcp-hello v1.0.0\n")
    # A dry run says so too: it shows the plan.
    plan = await node.containers.plan(service)
    assert (plan.actions, plan.outcome.reason) == ((), Reason.FORBIDDEN)
    await node.apply(web("alpha", images.HELLO_NEXT))
    assert answer(await node.until_ready("alpha")) == "mcp-hello v1.0.1\n"


async def test_another_component_is_made_while_one_is_forbidden(node: Node) -> None:
    spec = web("alpha", privileged=True)
    other = ComponentSpec(name="other", image=images.HELLO)
    await node.apply(spec.model_copy(update={"components": (*spec.components, other)}))
    await node.until("alpha", lambda s: any(c.name == "other" and c.ready for c in s.components))
    await node.until_reason("alpha", Reason.FORBIDDEN)
    assert node.names("alpha") == ["alpha-other"]


async def test_a_link_that_leads_out_is_seen_before_it_is_mounted_and_before_each_start(node: Node) -> None:
    (home := node.folder / "srv" / "alpha").mkdir(parents=True)
    (home / "inside").mkdir()
    (link := home / "link").symlink_to("/usr")
    mounted = web("alpha", volumes=[f"{link}:/data"])
    await node.apply(mounted)
    assert (
        f"volumes: {link} (which is /usr) may not be mounted"
        in (await node.until_reason("alpha", Reason.FORBIDDEN)).message
    )
    link.unlink()
    link.symlink_to("inside")
    await node.apply(mounted.model_copy(update={"version": "v1"}))
    await node.until_ready("alpha")
    # What a container could do that may write in there: its next start would mount another folder.
    link.unlink()
    link.symlink_to("/usr")
    kill(node, "alpha-web")
    await node.until_reason("alpha", Reason.FORBIDDEN)
    assert node.inspect("alpha-web", "{{.State.Running}}") == "false"


async def test_what_the_policy_names_is_given(lenient: Node) -> None:
    fields = {
        "volumes": [f"{lenient.folder / 'data'}:/data"],
        "cap_add": ["NET_ADMIN"],
        "host_namespaces": ["pid", "ipc", "uts"],
        "network": "host",
    }
    await lenient.apply(web("alpha", **fields))
    await lenient.until_ready("alpha")
    seen = lenient.inspect("alpha-web", "{{.HostConfig.PidMode}} {{.HostConfig.UTSMode}} {{.HostConfig.NetworkMode}}")
    assert seen == "host host host"
    pid = lenient.inspect("alpha-web", "{{.State.Pid}}")
    assert shares_ipc(pid)
    assert "CAP_NET_ADMIN" in lenient.inspect("alpha-web", "{{.EffectiveCaps}}")
    await lenient.apply(web("beta", cap_add=["NET_ADMIN"]))
    await lenient.until_reason("beta", Reason.FORBIDDEN)
    await lenient.apply(web("alpha", privileged=True))
    await lenient.until_ready("alpha")
    assert lenient.inspect("alpha-web", "{{.HostConfig.Privileged}}") == "true"
