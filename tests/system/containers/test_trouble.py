"""What goes wrong with a container is said in the engine's own words, and is retried with patience."""

import socket

import pytest

from api.conditions import Reason
from api.service import ContainerState
from stack import images
from tests.system.containers import node as node_module
from tests.system.containers.node import Node, answer, web

pytestmark = pytest.mark.system


async def test_a_container_that_ends_at_once_backs_off_and_then_counts_as_failed(node: Node) -> None:
    await node.apply(web("alpha", images.EXIT, routes=[]))
    condition = await node.until_reason("alpha", Reason.BACKING_OFF)
    assert "alpha-web exited with 3, 2 times in a row" in condition.message
    assert condition.message.endswith("it last said: ending with 3 | ending with 3")
    condition = await node.until_reason("alpha", Reason.CONTAINER_FAILED)
    assert "exited with 3, 3 times in a row" in condition.message
    component = await node.component("alpha")
    assert (component.state, component.exit_code, component.restarts) == (ContainerState.EXITED, 3, 2)


async def test_a_fix_of_the_definition_does_not_wait_for_the_backoff(node: Node) -> None:
    await node.apply(web("alpha", images.EXIT, routes=[]))
    await node.until_reason("alpha", Reason.BACKING_OFF)
    await node.apply(web("alpha"))
    service = await node.until_ready("alpha")
    assert answer(service) == "mcp-hello v1.0.0\n"
    assert service.components[0].restarts == 0


@pytest.mark.parametrize(("code", "reason"), [(0, Reason.CONVERGED), (7, Reason.CONTAINER_FAILED)])
async def test_a_task_runs_once(node: Node, code: int, reason: Reason) -> None:
    await node.apply(web("alpha", images.EXIT, routes=[], restart="no", env=[f"CODE={code}"]))
    service = await node.until("alpha", lambda s: bool(s.components) and s.components[0].exit_code is not None)
    condition = await node.until_reason("alpha", reason)
    assert condition.message.startswith("alpha-web completed" if code == 0 else "alpha-web exited with 7")
    assert (service.components[0].exit_code, service.components[0].restarts) == (code, 0)


async def test_a_task_that_must_succeed_is_repeated_until_it_does(node: Node) -> None:
    await node.apply(web("alpha", images.EXIT, routes=[], restart="on-failure"))
    await node.until_reason("alpha", Reason.BACKING_OFF)
    await node.apply(web("alpha", images.EXIT, routes=[], restart="on-failure", env=["CODE=0"]))
    service = await node.until("alpha", lambda s: s.components[0].exit_code == 0)
    assert service.components[0].state is ContainerState.EXITED
    await node.until_reason("alpha", Reason.CONVERGED)


async def test_an_image_that_is_nowhere(node: Node) -> None:
    await node.apply(web("alpha", "127.0.0.1:9/nowhere:v1"))
    condition = await node.until_reason("alpha", Reason.IMAGE_PULL_FAILED)
    assert "127.0.0.1:9/nowhere:v1 cannot be pulled" in condition.message
    assert "connection refused" in condition.message


async def test_the_old_container_serves_until_the_new_image_is_there(node: Node) -> None:
    await node.apply(web("alpha"))
    before = (await node.until_ready("alpha")).components[0]
    await node.apply(web("alpha", "127.0.0.1:9/nowhere:v1"))
    await node.until_reason("alpha", Reason.IMAGE_PULL_FAILED)
    service = await node.service("alpha")
    assert service.components[0].container_id == before.container_id
    assert answer(service) == "mcp-hello v1.0.0\n"


async def test_a_command_that_does_not_exist(node: Node) -> None:
    await node.apply(web("alpha", cmd=["/nope"]))
    condition = await node.until_reason("alpha", Reason.CONTAINER_REFUSED)
    assert "/nope" in condition.message
    await node.apply(web("alpha"))
    await node.until_ready("alpha")


async def test_a_component_that_cannot_start_holds_up_no_other(node: Node) -> None:
    spec = web("alpha", cmd=["/nope"])
    good = web("alpha").components[0].model_copy(update={"name": "good", "routes": ()})
    await node.apply(spec.model_copy(update={"components": (*spec.components, good)}))
    await node.until("alpha", lambda s: (found := s.component("good")) is not None and found.ready)
    await node.until_reason("alpha", Reason.CONTAINER_REFUSED)


async def test_a_port_stolen_between_allocation_and_start_is_contested(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        stolen = thief.getsockname()[1]
        monkeypatch.setattr(node_module, "free_port", lambda: stolen)
        await node.apply(web("alpha"))
        await node.until("alpha", lambda s: bool(s.ports))
        monkeypatch.undo()
        service = await node.until_ready("alpha")
    assert answer(service) == "mcp-hello v1.0.0\n"
    assert service.components[0].ports[0].port != stolen
    assert node.names("alpha") == ["alpha-web"]


async def test_a_fixed_port_that_is_taken_is_named(node: Node) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        await node.apply(web("alpha", routes=[], ports=[f"127.0.0.1:{port}:8080"]))
        condition = await node.until_reason("alpha", Reason.CONTAINER_REFUSED)
        assert str(port) in condition.message
    await node.until_ready("alpha")


async def test_a_network_that_was_lost_while_nobody_was_on_it_is_made_again(node: Node) -> None:
    spec = web("alpha")
    await node.apply(spec)
    await node.until_ready("alpha")
    await node.apply(spec.model_copy(update={"active": False}))
    await node.until_event("alpha", "stopped")
    (node.host.storage / "networks" / f"{node.network}.json").unlink()
    await node.apply(spec)
    assert answer(await node.until_ready("alpha")) == "mcp-hello v1.0.0\n"


async def test_a_volume_that_does_not_exist(node: Node) -> None:
    nowhere = node.folder / "srv" / "nowhere"
    await node.apply(web("alpha", volumes=[f"{nowhere}:/data"]))
    condition = await node.until_reason("alpha", Reason.CONTAINER_REFUSED)
    assert condition.message.startswith(f"the folder {nowhere} of a volume of alpha-web is not on the node")


async def test_a_container_that_listens_nowhere_is_never_ready(node: Node) -> None:
    await node.apply(web("alpha", cmd=["/bin/busybox", "sleep", "1000"]))
    condition = await node.until_reason("alpha", Reason.PROGRESSING)
    service = await node.until("alpha", lambda s: s.components[0].message == "does not listen yet")
    condition = await node.until_reason("alpha", Reason.PROGRESSING)
    assert condition.message == f"alpha-web runs; waits until it listens on {service.ports[0].port}"
    assert not service.components[0].ready


async def test_a_container_that_listens_only_to_itself_is_never_ready(node: Node) -> None:
    await node.apply(web("alpha", cmd=["/bin/busybox", "sh", "-c", "httpd -f -p 127.0.0.1:$PORT -h /www"]))
    await node.until("alpha", lambda s: bool(s.components) and s.components[0].message == "does not listen yet")
    assert not (await node.component("alpha")).ready
