"""One component finds another by the variable that MCP gives it, also after the other was updated."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from api.service import Component, Service
from api.spec import ServiceSpec
from stack import images, web
from tests.system.agent.rig import Rig

pytestmark = pytest.mark.system


def definition(rig: Rig, image: str) -> ServiceSpec:
    """`web`, which takes turns, and `user`, which asks it."""
    peer = {
        "name": "web",
        "image": image,
        "routes": [rig.route(name="rest")],
        "update": {"strategy": "blue-green", "drain": "5s"},
    }
    user: dict[str, Any] = {"name": "user", "image": images.HELLO}
    return ServiceSpec.model_validate({"name": rig.name, "components": [peer, user]})


def of(service: Service, name: str) -> Component:
    """What is known of the component."""
    found = service.component(name)
    assert found is not None
    return found


def asked_by_user(rig: Rig) -> str:
    """What `web` answers to a request from inside `user`."""
    command = 'busybox wget -q -O - "http://$PEER_WEB_REST/" && echo "at $PEER_WEB"'
    return rig.host.podman.run("exec", f"{rig.name}-user", "sh", "-c", command, check=False)


async def until(holds: Callable[[], bool]) -> None:
    """Returns once that is the case."""
    await asyncio.to_thread(web.wait_for, holds, seconds=60, what="the update")


async def test_a_peer_is_reached_by_its_variable_before_and_after_its_blue_green_update(rig: Rig) -> None:
    await rig.apply(definition(rig, images.HELLO))
    before = await rig.until_ready()
    inside = of(before, "web").ports[0].port
    assert asked_by_user(rig) == f"mcp-hello v1.0.0\nat {rig.name}-web:{inside}\n"
    await rig.apply(definition(rig, images.HELLO_NEXT))
    after = await rig.until_ready()
    assert of(after, "web").ports[0].port != inside
    # While the old one drains, either may be asked, and each request prolongs it.
    await until(lambda: len(rig.containers()) == 2)
    # podman's name server begins anew when a container goes.
    await until(lambda: asked_by_user(rig) == f"mcp-hello v1.0.1\nat {rig.name}-web:{inside}\n")
    # Nobody was told anything new: the one who asks is the same container.
    assert of(after, "user").container_id == of(before, "user").container_id
