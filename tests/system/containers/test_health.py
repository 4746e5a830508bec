"""Containers are asked whether they are well, and what they answer is known at once."""

import asyncio
import time
from pathlib import Path

import pytest

from api.service import Component, Service
from api.spec import ServiceSpec
from stack import images
from stack.podman import PodmanHost
from stack.web import free_port
from tests.system.containers.node import Node, running_node, web

pytestmark = pytest.mark.system

SERVE = ["/bin/sh", "-c", "trap 'exit 0' TERM; httpd -f -p 0.0.0.0:$PORT -h /srv/alpha & wait"]
"""A web server over the service's own folder: what it answers, the test decides."""
IDLE = ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]
OFTEN = {"interval": "200ms", "timeout": "2s", "retries": 2}


def checked(check: dict[str, object], **component: object) -> ServiceSpec:
    """The service alpha with that check, made often."""
    return web("alpha", health={**OFTEN, **check}, **component)


async def told(node: Node, words: str | tuple[str, ...], component: str = "web") -> Component:
    """The component once its message begins so."""

    def holds(service: Service) -> bool:
        found = service.component(component)
        return found is not None and found.message.startswith(words)

    found = (await node.until("alpha", holds)).component(component)
    assert found is not None
    return found


def well(node: Node) -> Path:
    """What the container needs to be well."""
    return node.folder / "srv" / "alpha" / "well"


async def test_a_container_is_ready_with_its_first_good_answer_and_until_it_gives_bad_ones(node: Node) -> None:
    await node.apply(checked({"http": "/well", "liveness": False}, cmd=SERVE))
    component = await told(node, "GET /well answered 404")
    assert not component.ready
    well(node).touch()
    await node.until_ready("alpha")
    well(node).unlink()
    failing = await node.until("alpha", lambda s: not s.components[0].ready)
    assert failing.components[0].message == "GET /well answered 404"
    well(node).touch()
    again = await node.until("alpha", lambda s: s.components[0].ready)
    assert (again.components[0].container_id, again.components[0].restarts) == (component.container_id, 0)


async def test_a_container_that_goes_bad_is_unwell_in_so_many_words(node: Node) -> None:
    await node.apply(checked({"http": "/well"}, cmd=SERVE, restart="no"))
    await told(node, "GET /well answered 404")
    well(node).touch()
    await node.until_ready("alpha")
    well(node).unlink()
    await told(node, "health check failed 2 times: GET /well answered 404")


async def test_a_container_is_ready_within_milliseconds_of_being_well(node: Node) -> None:
    await node.apply(checked({"http": "/well", "interval": "20s", "retries": 9}, cmd=SERVE))
    await node.until("alpha", lambda s: bool(s.components and s.components[0].container_id))
    well(node).touch()
    began = time.monotonic()
    await node.until("alpha", lambda s: s.components[0].ready)
    assert time.monotonic() - began < 2


async def test_a_command_decides_and_says_why(node: Node) -> None:
    await node.apply(checked({"exec": ["cat", "/srv/alpha/well"], "liveness": False}, cmd=IDLE, routes=[]))
    component = await told(node, "`cat /srv/alpha/well` exited with 1: cat: can't open '/srv/alpha/well'")
    assert not component.ready
    well(node).touch()
    await node.until_ready("alpha")
    well(node).unlink()
    await told(node, "`cat /srv/alpha/well` exited with 1")


async def test_a_command_that_does_not_exist_is_told_in_the_engines_words(node: Node) -> None:
    await node.apply(checked({"exec": ["pg_isready"], "liveness": False}, cmd=IDLE, routes=[]))
    component = await told(node, "`pg_isready` exited with 127: ")
    assert "executable file not found" in component.message


async def test_a_hung_command_is_killed_and_holds_up_nobody_else(node: Node) -> None:
    hung = {"exec": ["/bin/sh", "-c", "sleep 2000; true"], **OFTEN, "timeout": "300ms", "liveness": False}
    good = web("alpha", health={"http": "/healthz", **OFTEN}).components[0]
    bad = web("alpha", cmd=IDLE, routes=[], health=hung).components[0].model_copy(update={"name": "hung"})
    await node.apply(web("alpha").model_copy(update={"components": (bad, good)}))
    began = time.monotonic()
    await node.until("alpha", lambda s: (found := s.component("web")) is not None and found.ready)
    assert time.monotonic() - began < 5
    await told(node, "no answer within 0.3 s", "hung")
    sessions = 0
    async with asyncio.timeout(20):
        while sessions < 4:
            sessions = len(node.inspect("alpha-hung", "{{.ExecIDs}}").split())
            await asyncio.sleep(0.1)
    running = [line for line in node.podman("top", "alpha-hung", "args").splitlines() if "2000" in line]
    # The shell and its child, of the one that is run just now.
    assert len(running) <= 2
    assert (await node.component("alpha", "web")).ready


async def test_over_tls_and_at_a_fixed_port(node: Node) -> None:
    await node.apply(web("alpha", images.TLS, health={"http": "/", "tls": True, **OFTEN}))
    await node.until_ready("alpha")
    ports = [f"127.0.0.1:{free_port()}:8080"]
    await node.apply(checked({"http": "/healthz", "port": 8080}, routes=[], ports=ports))
    await node.until_ready("alpha")
    await node.apply(checked({"tcp": True, "port": 8080}, routes=[], ports=ports, cmd=IDLE))
    await told(node, "health check failed 2 times: connection refused")


async def test_a_changed_check_holds_for_the_container_that_runs(node: Node) -> None:
    await node.apply(checked({"http": "/healthz"}))
    before = (await node.until_ready("alpha")).components[0]
    await node.apply(checked({"http": "/nowhere", "liveness": False}))
    component = await told(node, "GET /nowhere answered 404")
    assert component.container_id == before.container_id
    await node.apply(checked({"tcp": True}))
    ready = await node.until("alpha", lambda s: s.components[0].ready)
    assert ready.components[0].container_id == before.container_id


async def test_a_plan_for_a_definition_that_somebody_only_thinks_of_asks_nobody(node: Node) -> None:
    await node.apply(checked({"http": "/healthz", "retries": 1}))
    service = await node.until_ready("alpha")
    thought = service.model_copy(update={"spec": checked({"http": "/nowhere", "retries": 1})})
    await node.containers.plan(thought)
    with pytest.raises(TimeoutError):
        await node.until("alpha", lambda s: not s.components[0].ready, seconds=1)


async def test_a_container_stays_ready_while_the_agent_starts_again(podman: PodmanHost, folder: Path) -> None:
    async with running_node(podman, folder) as node:
        await node.apply(checked({"http": "/well", "interval": "5s"}, cmd=SERVE))
        await node.until("alpha", lambda s: bool(s.components and s.components[0].container_id))
        well(node).touch()
        await node.until_ready("alpha")
    async with running_node(podman, folder) as node:
        with pytest.raises(TimeoutError):
            await node.until("alpha", lambda s: not s.components[0].ready, seconds=1.5)
        await node.delete_all()


async def test_rootlessport_accepts_connections_and_fools_no_check(rootless_podman: PodmanHost, folder: Path) -> None:
    async with running_node(rootless_podman, folder) as rootless:
        await rootless.apply(checked({"tcp": True, "liveness": False}, cmd=IDLE))
        assert not (await told(rootless, "connection refused")).ready
        await rootless.apply(checked({"tcp": True}))
        await rootless.until_ready("alpha")
        await rootless.apply(checked({"http": "/healthz", "liveness": False}, cmd=IDLE))
        assert not (await told(rootless, ("the connection was closed", "connection reset"))).ready
        await rootless.delete_all()
