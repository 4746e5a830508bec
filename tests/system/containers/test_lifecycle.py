"""A definition becomes a running container, follows its definition, and goes."""

import os
import signal

import pytest

from api.conditions import Reason
from api.service import ContainerState
from stack import images
from tests.system.containers.node import Node, answer, kill, web

pytestmark = pytest.mark.system


async def test_a_definition_becomes_an_answering_container(node: Node) -> None:
    await node.apply(web("alpha"))
    service = await node.until_ready("alpha")
    component = await node.component("alpha")
    assert (component.state, component.ready, component.generation) == (ContainerState.RUNNING, True, 1)
    assert answer(service) == "mcp-hello v1.0.0\n"
    environment = answer(service, "/cgi-bin/env").splitlines()
    assert f"PORT={component.ports[0].port}" in environment
    assert {"MCP_SERVICE=alpha", "MCP_COMPONENT=web", f"MCP_NODE={node.name}"} <= set(environment)
    assert node.inspect("alpha-web", "{{.HostConfig.RestartPolicy.Name}}") == "no"


async def test_who_only_thinks_of_a_service_takes_nothing_from_the_one_that_is_there(node: Node) -> None:
    await node.apply(web("alpha").model_copy(update={"depends_on": ("beta",)}))
    await node.until_reason("alpha", Reason.WAITING_FOR_DEPENDENCY)
    kept = await node.service("alpha")
    thoughts = [
        kept.model_copy(update={"spec": web("alpha")}),
        kept.model_copy(update={"deletion_requested_at": kept.created_at}),
        kept.model_copy(update={"name": "thought"}),
    ]
    for thought in thoughts:
        await node.containers.plan(thought, attend=False)
    assert node.containers.waiting.waiting_for("beta") == {"alpha"}
    await node.apply(web("beta"))
    await node.until_ready("alpha")


async def test_what_was_killed_starts_again_as_the_same_container(node: Node) -> None:
    await node.apply(web("alpha"))
    before = (await node.until_ready("alpha")).components[0]
    kill(node, "alpha-web")
    after = (await node.until("alpha", lambda s: s.components[0].restarts == 1 and s.components[0].ready)).components[0]
    assert after.container_id == before.container_id
    service = await node.until_ready("alpha")
    assert answer(service) == "mcp-hello v1.0.0\n"
    (event,) = [event for event in await node.registry.events("alpha") if event.kind == "started"]
    assert event.message == "alpha-web: it exited with 137"
    assert event.drift


async def test_what_was_killed_together_with_its_monitor_is_made_anew(node: Node) -> None:
    """Without conmon the engine calls a dead container running, for ever."""
    await node.apply(web("alpha"))
    before = (await node.until_ready("alpha")).components[0]
    os.kill(int(node.inspect("alpha-web", "{{.State.ConmonPid}}")), signal.SIGKILL)
    kill(node, "alpha-web")
    service = await node.until("alpha", lambda s: s.components[0].container_id != before.container_id)
    service = await node.until_ready("alpha")
    assert answer(service) == "mcp-hello v1.0.0\n"
    assert node.names("alpha") == ["alpha-web"]


async def test_what_was_removed_is_made_again(node: Node) -> None:
    await node.apply(web("alpha"))
    before = (await node.until_ready("alpha")).components[0]
    node.podman("rm", "--force", "--time", "0", "alpha-web")
    service = await node.until("alpha", lambda s: s.components[0].container_id != before.container_id)
    service = await node.until_ready("alpha")
    assert answer(service) == "mcp-hello v1.0.0\n"
    assert service.components[0].restarts == 0
    # One is the service's own.
    await node.until_event("alpha", "created", times=3)
    events = [event.message for event in await node.registry.events("alpha") if event.kind == "created"]
    assert events[-1] == f"alpha-web from {images.HELLO}: it is gone"


@pytest.mark.parametrize("way", ["stop", "pause"])
async def test_what_was_stopped_or_paused_by_hand_goes_on(node: Node, way: str) -> None:
    await node.apply(web("alpha"))
    await node.until_ready("alpha")
    kind = {"stop": "started", "pause": "unpaused"}[way]
    node.podman(way, "alpha-web")
    await node.until_event("alpha", kind)
    assert answer(await node.until_ready("alpha")) == "mcp-hello v1.0.0\n"


async def test_a_changed_definition_replaces_the_container(node: Node) -> None:
    await node.apply(web("alpha"))
    before = (await node.until_ready("alpha")).components[0]
    await node.apply(web("alpha", images.HELLO_NEXT, env=["COLOUR=blue"]))
    service = await node.until_ready("alpha")
    after = service.components[0]
    assert answer(service) == "mcp-hello v1.0.1\n"
    assert "COLOUR=blue" in answer(service, "/cgi-bin/env")
    assert (after.generation, after.ports) == (2, before.ports)
    (event,) = [event for event in await node.registry.events("alpha") if event.kind == "replaced"]
    change = f"env changed; image {images.HELLO} -> {images.HELLO_NEXT}"
    assert event.message == f"alpha-web: {change}, generation 2 by test"
    assert node.names("alpha") == ["alpha-web"]


async def test_a_change_that_is_none_of_the_container_leaves_it_alone(node: Node) -> None:
    await node.apply(web("alpha"))
    before = (await node.until_ready("alpha")).components[0]
    await node.apply(web("alpha", restart="always"))
    after = (await node.until_ready("alpha")).components[0]
    assert (after.container_id, after.started_at) == (before.container_id, before.started_at)


async def test_components_come_and_go_with_the_definition(node: Node) -> None:
    spec = web("alpha")
    worker = spec.components[0].model_copy(update={"name": "worker", "routes": ()})
    await node.apply(spec.model_copy(update={"components": (*spec.components, worker)}))
    service = await node.until_ready("alpha")
    assert [(c.name, c.ready) for c in service.components] == [("web", True), ("worker", True)]
    await node.apply(spec)
    await node.until("alpha", lambda s: len(s.components) == 1)
    await node.until_ready("alpha")
    assert node.names("alpha") == ["alpha-web"]


async def test_inactive_is_stopped_and_kept_and_starts_again(node: Node) -> None:
    spec = web("alpha", restart="no")
    await node.apply(spec)
    before = (await node.until_ready("alpha")).components[0]
    await node.apply(spec.model_copy(update={"active": False}))
    await node.until_reason("alpha", Reason.STOPPED)
    service = await node.until("alpha", lambda s: s.components[0].state is ContainerState.EXITED)
    assert not service.components[0].ready
    await node.apply(spec)
    after = (await node.until_ready("alpha")).components[0]
    assert after.container_id == before.container_id
    assert after.restarts == 0


async def test_a_deleted_service_leaves_nothing_behind(node: Node) -> None:
    await node.apply(web("alpha"))
    await node.until_ready("alpha")
    folder = node.folder / "srv" / "alpha"
    assert folder.is_dir()
    await node.delete("alpha")
    await node.until_containers_gone("alpha")
    assert node.names("alpha") == []
    assert node.network not in node.podman("network", "ls", "--format", "{{.Name}}").split()
    assert not folder.exists()


async def test_data_and_a_network_that_others_use_outlive_a_deletion(node: Node) -> None:
    await node.apply(web("alpha"))
    await node.apply(web("beta"))
    await node.until_ready("alpha")
    await node.until_ready("beta")
    data = node.folder / "srv" / "alpha" / "precious"
    data.write_text("data")
    await node.delete("alpha")
    await node.until_containers_gone("alpha")
    assert data.read_text() == "data"
    assert answer(await node.service("beta")) == "mcp-hello v1.0.0\n"


async def test_a_deletion_waits_for_the_routes_to_go_first(node: Node) -> None:
    await node.apply(web("alpha"))
    await node.until_ready("alpha")
    await node.registry.request_deletion("alpha", actor="test")
    await node.until_reason("alpha", Reason.TERMINATING)
    assert answer(await node.service("alpha")) == "mcp-hello v1.0.0\n"


async def test_a_stranger_with_our_name_is_left_alone_until_it_goes(node: Node) -> None:
    node.podman("create", "--name", "alpha-web", images.HELLO)
    stranger = node.inspect("alpha-web", "{{.Id}}")
    await node.apply(web("alpha"))
    condition = await node.until_reason("alpha", Reason.CONFLICT)
    assert stranger[:12] in condition.message
    assert node.inspect("alpha-web", "{{.Id}}") == stranger
    node.podman("rm", "alpha-web")
    assert answer(await node.until_ready("alpha")) == "mcp-hello v1.0.0\n"


async def test_another_services_container_of_the_same_name_is_left_alone(node: Node) -> None:
    """`a-b` of component `c`, and `a` of component `b-c`, both want the name a-b-c."""
    first = web("a-b")
    await node.apply(first.model_copy(update={"components": (first.components[0].model_copy(update={"name": "c"}),)}))
    await node.until_ready("a-b")
    second = web("a")
    await node.apply(
        second.model_copy(update={"components": (second.components[0].model_copy(update={"name": "b-c"}),)})
    )
    assert "service a-b holds" in (await node.until_reason("a", Reason.CONFLICT)).message
    await node.delete("a-b")
    await node.until_ready("a")
