"""What differs without root: rootlessport publishes, subordinate ids own files, and the kernel tells us less."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.conditions import Reason
from api.service import ContainerState
from stack import images
from stack.podman import PodmanHost
from tests.system.containers import node as node_module
from tests.system.containers.node import Node, answer, kill, running_node, web

pytestmark = pytest.mark.system


@pytest.fixture
async def rootless(rootless_podman: PodmanHost, folder: Path) -> AsyncIterator[Node]:
    async with running_node(rootless_podman, folder) as running:
        yield running
        await running.delete_all()


async def test_a_container_answers_is_restarted_replaced_and_leaves_nothing(rootless: Node) -> None:
    await rootless.apply(web("alpha"))
    before = (await rootless.until_ready("alpha")).components[0]
    assert answer(await rootless.service("alpha")) == "mcp-hello v1.0.0\n"
    kill(rootless, "alpha-web")
    after = await rootless.until("alpha", lambda s: s.components[0].restarts == 1 and s.components[0].ready)
    assert after.components[0].container_id == before.container_id
    assert answer(after) == "mcp-hello v1.0.0\n"
    await rootless.apply(web("alpha", images.HELLO_NEXT))
    assert answer(await rootless.until_ready("alpha")) == "mcp-hello v1.0.1\n"
    await rootless.delete("alpha")
    await rootless.until_containers_gone("alpha")
    assert rootless.names("alpha") == []
    assert rootless.network not in rootless.podman("network", "ls", "--format", "{{.Name}}").split()


async def test_a_container_is_not_ready_just_because_rootlessport_accepts_connections(rootless: Node) -> None:
    await rootless.apply(web("alpha", cmd=["/bin/busybox", "sleep", "1000"]))
    service = await rootless.until("alpha", lambda s: bool(s.components) and s.components[0].message != "")
    port = service.components[0].ports[0].port
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    await rootless.until("alpha", lambda s: any(c.message.startswith("alpha-web runs; waits") for c in s.conditions))
    assert not (await rootless.component("alpha")).ready


async def test_a_stolen_port_is_recognized_in_rootlessports_words(
    rootless: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as thief:
        thief.bind(("127.0.0.1", 0))
        thief.listen()
        stolen = thief.getsockname()[1]
        monkeypatch.setattr(node_module, "free_port", lambda: stolen)
        await rootless.apply(web("alpha"))
        await rootless.until("alpha", lambda s: bool(s.ports))
        monkeypatch.undo()
        service = await rootless.until_ready("alpha")
    assert answer(service) == "mcp-hello v1.0.0\n"
    assert service.components[0].ports[0].port != stolen


async def test_a_container_that_ends_at_once_is_seen_with_its_code(rootless: Node) -> None:
    await rootless.apply(web("alpha", images.EXIT, routes=[], restart="no"))
    await rootless.until_reason("alpha", Reason.CONTAINER_FAILED)
    component = await rootless.component("alpha")
    assert (component.state, component.exit_code) == (ContainerState.EXITED, 3)
