"""A definition becomes a running container, follows its definition, and goes."""

import os
import signal
import urllib.request

import pytest

from api.conditions import Reason
from api.service import ContainerState, Service
from api.spec import ServiceSpec
from stack import images
from tests.system.containers.node import Node

pytestmark = pytest.mark.system


def web(name: str, image: str = images.HELLO, **component: object) -> ServiceSpec:
    parts = {"name": "web", "image": image, "routes": [{"port": 8443, "mode": "l7"}], **component}
    return ServiceSpec.model_validate({"name": name, "components": [parts]})


def answer(service: Service, path: str = "/") -> str:
    (served,) = service.components[0].ports
    with urllib.request.urlopen(f"http://127.0.0.1:{served.port}{path}", timeout=5) as response:
        return str(response.read().decode())


async def test_a_definition_becomes_an_answering_container(node: Node) -> None:
    await node.apply(web("alpha"))
    service = await node.until_ready("alpha")
    component = await node.component("alpha")
    assert component.state is ContainerState.RUNNING
    assert component.ready
    assert answer(service) == "mcp-hello v1.0.0\n"
    await node.delete("alpha")
