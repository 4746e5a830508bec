"""What the engine is asked to create."""

import json
from typing import Any

import pytest
from hypothesis import given

from api.resolve import resolve
from api.service import Component, PortAllocation, ServedPort, Service
from api.spec import ComponentSpec
from reconcilers.containers import model
from reconcilers.containers.engine.request import ContainerRequest, missing_ports, request_for
from tests.unit.api import definitions
from tests.unit.reconcilers.containers.worlds import DEFAULTS, NODE, container, requests, shop, task, web

ROUTES = [{"name": "rest-api", "port": 444}, {"port": 445}]
OWNED = {"UID": 0, "GID": 0, "Mode": 0o444}


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


def taking_turns(*others: ComponentSpec) -> Service:
    """A service whose component `web` has ports in two slots."""
    service = shop(web(update={"strategy": "blue-green"}), *others)
    second = PortAllocation(component="web", route="default", slot=1, port=20000)
    return service.model_copy(update={"ports": (*service.ports, second)})


def in_slot(service: Service, slot: int, component: int = 0) -> ContainerRequest:
    resolved = resolve(service.spec, DEFAULTS)
    return request_for(service, resolved, resolved.components[component], NODE, slot)


def test_a_container_in_the_other_slot_has_another_port_on_the_host_and_the_same_inside() -> None:
    request = in_slot(taking_turns(), 1)
    asked = json.loads(request.body)
    assert [(p["host_port"], p["container_port"]) for p in asked["portmappings"]] == [(20000, 10000)]
    assert asked["env"]["PORT"] == "10000"
    assert (request.slot, request.ports) == (1, (("default", 20000),))


def test_the_labels_tell_the_slot_and_both_ports() -> None:
    service = taking_turns()
    first, second = (container(in_slot(service, slot)) for slot in (0, 1))
    assert (first.slot, first.labels.get(model.SLOT), first.listens_on) == (0, None, (10000,))
    assert (second.slot, second.listens_on) == (1, (10000,))
    assert second.routes == (ServedPort(route="default", port=20000),)


def test_a_container_under_another_name_is_found_under_its_own_and_is_as_asked() -> None:
    request = in_slot(taking_turns(), 1)
    beside = request.named("shop-web.next")
    asked = json.loads(beside.body)
    assert (beside.name, asked["name"]) == ("shop-web.next", "shop-web.next")
    assert asked["networks"] == {"mcpnet": {"aliases": ["shop-web"]}}
    assert (beside.spec_hash, beside.fields) == (request.spec_hash, request.fields)


def test_more_labels_leave_the_others_and_the_hash() -> None:
    request = requests(shop(web()))["web"]
    more = request.labelled({model.DIGEST: "sha256:1"})
    assert json.loads(more.body)["labels"] == {**json.loads(request.body)["labels"], model.DIGEST: "sha256:1"}
    assert more.spec_hash == request.spec_hash


def test_ports_are_missing_by_slot_and_among_the_peers() -> None:
    service = taking_turns(task(routes=[{"name": "api", "port": 444}]))
    (one, two) = resolve(service.spec, DEFAULTS).components

    def missing(*, of: Any, slot: int = 0, without: int) -> tuple[str, ...]:
        ports = tuple(port for port in service.ports if port.port != without)
        return missing_ports(service.model_copy(update={"ports": ports}), of, slot)

    assert missing(of=one, without=20000) == ()
    assert missing(of=one, slot=1, without=20000) == ("default",)
    assert missing(of=one, slot=1, without=10000) == ("default",)
    assert missing(of=one, without=10001) == ("task/api",)
    assert missing(of=two, without=20000) == ()


def peers_of(component: int, *components: ComponentSpec, slot: int = 0) -> dict[str, str]:
    """What the component is told of its peers, `web` having its container in that slot."""
    service = taking_turns(*components)
    known = (Component(name="web", container_name="shop-web", slot=slot),)
    environment = json.loads(in_slot(service.model_copy(update={"components": known}), 0, component).body)["env"]
    return {name: value for name, value in environment.items() if name.startswith("PEER_")}


@pytest.mark.parametrize("slot", [0, 1])
def test_a_peer_is_found_by_name_and_inner_port_whichever_slot_it_is_in(slot: int) -> None:
    assert peers_of(1, task(), slot=slot) == {"PEER_WEB": "shop-web:10000"}


def test_peers_are_told_by_route_and_a_single_one_without() -> None:
    worker = ComponentSpec.model_validate({"name": "job-worker", "image": "i:1", "routes": ROUTES})
    assert peers_of(0, worker) == {
        "PEER_JOB_WORKER_REST_API": "shop-job-worker:10001",
        "PEER_JOB_WORKER": "shop-job-worker:10002",
    }
    single = worker.model_copy(update={"routes": worker.routes[:1]})
    assert peers_of(0, single) == {
        "PEER_JOB_WORKER_REST_API": "shop-job-worker:10001",
        "PEER_JOB_WORKER": "shop-job-worker:10001",
    }


def test_on_the_hosts_network_a_peer_is_found_at_the_port_it_has_now() -> None:
    assert peers_of(1, task(network="host"), slot=0) == {"PEER_WEB": "127.0.0.1:10000"}
    assert peers_of(1, task(network="host"), slot=1) == {"PEER_WEB": "127.0.0.1:20000"}


@pytest.mark.parametrize("network", ["none", "elsewhere"])
def test_nothing_is_told_of_a_peer_that_cannot_be_reached(network: str) -> None:
    assert peers_of(1, task(network=network)) == {}


def test_a_name_that_two_routes_would_have_is_left_out() -> None:
    db = ComponentSpec.model_validate({"name": "db", "image": "i:1", "routes": [{"name": "admin", "port": 444}]})
    admin = ComponentSpec.model_validate({"name": "db-admin", "image": "i:1", "routes": [{"port": 445}]})
    assert peers_of(0, db, admin) == {"PEER_DB": "shop-db:10001"}


def test_what_is_told_of_peers_wins_over_the_definition() -> None:
    assert peers_of(1, task(env=["PEER_WEB=mine:1"])) == {"PEER_WEB": "shop-web:10000"}


@pytest.mark.parametrize(
    ("field", "value", "asked"),
    [
        ("memory", "64M", {"resource_limits": {"memory": {"limit": 64 << 20, "swap": 64 << 20}}}),
        ("cpus", 0.5, {"resource_limits": {"cpu": {"quota": 50000, "period": 100000}}}),
        ("pids", 100, {"resource_limits": {"pids": {"limit": 100}}}),
        ("read_only", True, {"read_only_filesystem": True}),
        ("cap_drop", ["ALL"], {"cap_drop": ["ALL"]}),
        ("cap_add", ["cap_net_admin"], {"cap_add": ["NET_ADMIN"]}),
        ("privileged", True, {"privileged": True}),
        ("host_namespaces", ["pid", "uts"], {"pidns": {"nsmode": "host"}, "utsns": {"nsmode": "host"}}),
        ("working_dir", "/tmp", {"work_dir": "/tmp"}),
        ("entrypoint", ["/bin/sh", "-c"], {"entrypoint": ["/bin/sh", "-c"]}),
        ("entrypoint", [], {"entrypoint": []}),
        ("extra_hosts", ["db:10.0.0.5"], {"hostadd": ["db:10.0.0.5"]}),
        ("stop_signal", "int", {"stop_signal": 2}),
        ("stop_signal", "SIGRTMIN+3", {"stop_signal": 37}),
        ("stop_signal", "SIGRTMAX-1", {"stop_signal": 63}),
        ("stop_signal", "9", {"stop_signal": 9}),
        ("stop_timeout", "1m30s", {"stop_timeout": 90}),
        ("secrets", ["key:/etc/key"], {"secrets": [{"Source": "key", "Target": "/etc/key", **OWNED}]}),
        ("secrets", ["key"], {"secrets": [{"Source": "key", "Target": "", **OWNED}]}),
        ("tmpfs", ["/t"], {"mounts": [{"type": "tmpfs", "source": "tmpfs", "destination": "/t", "options": []}]}),
    ],
)
def test_a_field_is_asked_for_in_the_engines_words_and_changes_only_that(
    field: str, value: object, asked: dict[str, Any]
) -> None:
    plain, with_it = (requests(shop(task(volumes=[], **fields)))["task"] for fields in ({}, {field: value}))
    assert json.loads(with_it.body).items() >= asked.items()
    assert with_it.changes_since(json.loads(plain.body)["labels"]) == tuple(asked)


def test_folders_in_memory_come_after_the_volumes_with_their_size_in_bytes() -> None:
    mounts = body(task(volumes=["/a:/b"], tmpfs=["/tmp:size=1.5M,mode=1777"]))["mounts"]
    assert [mount["destination"] for mount in mounts] == ["/b", "/tmp"]
    assert mounts[1]["options"] == ["size=1572864", "mode=1777"]


def test_the_definitions_labels_stand_beside_ours() -> None:
    asked = body(task(labels={"team": "infra"}))["labels"]
    assert (asked["team"], asked[model.SERVICE]) == ("infra", "shop")


def test_a_definition_without_any_of_that_asks_for_nothing_of_it() -> None:
    plain = {"env", "image", "labels", "mounts", "name", "netns", "networks", "restart_policy", "user"}
    assert body(task()).keys() == plain
