"""What the engine is asked to create."""

import json
from typing import Any

import pytest
from hypothesis import given

from api.service import ServedPort
from api.spec import ComponentSpec
from reconcilers.containers import model
from tests.unit.api import definitions
from tests.unit.reconcilers.containers.worlds import container, requests, shop, task, web


def body(component: ComponentSpec) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(requests(shop(component))[component.name].body)
    return made


def test_a_route_is_published_on_loopback_and_told_to_the_container() -> None:
    asked = body(web())
    assert asked["portmappings"] == [
        {"host_ip": "127.0.0.1", "host_port": 10000, "container_port": 10000, "protocol": "tcp"}
    ]
    assert asked["env"]["PORT"] == "10000"


def test_several_named_routes_have_a_variable_each() -> None:
    asked = body(web(routes=[{"name": "rest-api", "port": 443}, {"name": "grpc", "port": 9443}]))
    assert {name: port for name, port in asked["env"].items() if name.startswith("PORT")} == {
        "PORT_REST_API": "10000",
        "PORT_GRPC": "10001",
    }
    assert asked["labels"][model.ROUTES] == "rest-api=10000,grpc=10001"


def test_a_given_port_wins_over_the_definitions_environment_and_the_definition_over_our_names() -> None:
    environment = body(web(env=["PORT=1", "A=b=c", "MCP_NODE=mine"]))["env"]
    assert environment == {
        "PORT": "10000",
        "A": "b=c",
        "MCP_NODE": "mine",
        "MCP_SERVICE": "shop",
        "MCP_COMPONENT": "web",
    }


def test_old_style_ports_volumes_and_command() -> None:
    asked = body(task(ports=["53:5353/udp", "[::1]:81:80"], volumes=["/a:/b:ro,z"], cmd=["x", "y"], user="5:6"))
    assert asked["portmappings"] == [
        {"host_ip": "", "host_port": 53, "container_port": 5353, "protocol": "udp"},
        {"host_ip": "::1", "host_port": 81, "container_port": 80, "protocol": "tcp"},
    ]
    assert asked["mounts"] == [{"type": "bind", "source": "/a", "destination": "/b", "options": ["rbind", "ro", "z"]}]
    assert (asked["command"], asked["user"]) == (["x", "y"], "5:6")


@pytest.mark.parametrize("network", ["host", "none"])
def test_without_a_network_of_its_own_nothing_is_joined_or_published(network: str) -> None:
    asked = body(web(network=network))
    assert asked["netns"] == {"nsmode": network}
    assert asked.keys().isdisjoint({"networks", "portmappings"})


def test_the_engine_never_restarts_anything() -> None:
    assert body(task(restart="always"))["restart_policy"] == "no"


def test_the_labels_give_back_what_must_be_known_of_a_container() -> None:
    shown = container(requests(shop(web(), generation=7))["web"])
    assert shown.owned_by("rift")
    assert (shown.service, shown.component, shown.generation) == ("shop", "web", 7)
    assert shown.routes == (ServedPort(route="default", port=10000),)


@given(definitions.services)
def test_a_request_is_the_same_each_time_and_in_each_generation(spec: Any) -> None:
    alone = {"routes": (), "health": None, "update": None, "image": "i:1"}
    parts = [part.model_copy(update=alone) for part in spec.components]
    once, again = requests(shop(*parts)), requests(shop(*parts, generation=9))
    for name, request in once.items():
        assert again[name].spec_hash == request.spec_hash
        assert request.changes_since(json.loads(again[name].body)["labels"]) == ()
