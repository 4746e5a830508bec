"""Taking over what runs: what is found, what is written, and what is left as it was where that fails."""

import copy
import json
from typing import Any

import pytest

from api.errors import NotFound, Refused
from api.manifest import dump, load
from api.resolve import Defaults, resolve
from api.service import ContainerState, PortAllocation, Service
from api.spec import RouteMode, ServiceSpec
from controller.adoption import Adopter, Wish
from controller.registry import Registry, utc_now
from reconcilers.containers import model
from reconcilers.containers.engine.request import request_for
from reconcilers.containers.model import ContainerObservation
from reconcilers.containers.takeover import Draft
from reconcilers.routes.model import ProxyRoute
from tests.unit.controller.adopting import ADMITS, Running

IMAGE: dict[str, Any] = {
    "RepoTags": ["localhost/hello:v1"],
    "RepoDigests": ["localhost/hello@sha256:abc"],
    "Config": {"Env": ["VERSION=1"], "Cmd": ["/bin/serve"]},
}
PLAIN: dict[str, Any] = {
    "Image": "sha256:1",
    "ImageName": "localhost/hello:v1",
    "Config": {"Env": ["VERSION=1"], "Cmd": ["/bin/serve"], "User": "0:0", "StopTimeout": 10},
    "HostConfig": {"NetworkMode": "bridge", "RestartPolicy": {"Name": "no"}},
    "NetworkSettings": {"Networks": {"mcpnet": {}}},
    "Mounts": [],
}


def inspected(name: str, config: dict[str, Any], host: dict[str, Any], **rest: Any) -> dict[str, Any]:
    container = copy.deepcopy(PLAIN) | {"Name": name} | rest
    container["Config"] |= config
    container["HostConfig"] |= host
    return container


def seen(container_id: str, name: str, **rest: Any) -> ContainerObservation:
    return ContainerObservation(container_id, name, "localhost/hello:v1", **{"state": ContainerState.RUNNING, **rest})


@pytest.fixture
def running() -> Running:
    return Running()


@pytest.fixture
def adopter(lite: Registry, running: Running) -> Adopter:
    return Adopter("rift", Defaults(), lite, running, running, running, ADMITS)


def wish(service: str = "shop", **rest: dict[str, str]) -> Wish:
    return Wish(service, rest.get("containers", {}), rest.get("routes", {}))


def ours(running: Running, spec: ServiceSpec, *ports: PortAllocation, slot: int = 0) -> None:
    """Has the containers run that MCP would make of a definition."""
    service = Service(
        uid="",
        name=spec.name,
        node="rift",
        generation=7,
        spec=spec,
        created_at=utc_now(),
        updated_at=utc_now(),
        ports=ports,
    )
    resolved = resolve(spec, Defaults())
    for component in resolved.components:
        request = request_for(service, resolved, component, "rift", slot)
        body = json.loads(request.body)
        bindings = {
            f"{port['container_port']}/{port['protocol']}": [{"HostIp": port["host_ip"], "HostPort": port["host_port"]}]
            for port in body.get("portmappings", ())
        }
        mounts = [
            {"Type": "bind", "Source": one["source"], "Destination": one["destination"], "Options": one["options"]}
            for one in body.get("mounts", ())
        ]
        env = [*PLAIN["Config"]["Env"], *(f"{key}={value}" for key, value in body["env"].items())]
        config = {"Env": env, "Labels": body["labels"]}
        container = inspected(request.name, config, {"PortBindings": bindings}, Mounts=mounts)
        running.put(seen(f"id-{request.name}", request.name, labels=body["labels"]), container, IMAGE)


DEFINED = ServiceSpec.model_validate(
    {
        "name": "shop",
        "components": [
            {
                "name": "web",
                "image": "localhost/hello:v1",
                "env": ["COLOUR=red"],
                "volumes": ["/srv/shop/z:/z", "/srv/shop/a:/a:ro"],
                "ports": ["9443:443", "8080:80"],
                "routes": [{"port": 443, "mode": "l7"}, {"name": "grpc", "port": 9444, "hostname": "rpc.example"}],
            },
            {"name": "db", "image": "localhost/hello:v1"},
        ],
    }
)
PORTS = (
    PortAllocation(component="web", route="default", port=10001),
    PortAllocation(component="web", route="grpc", port=10002),
)


def led(running: Running) -> None:
    name = "shop.svc.mcp.metacircular.net"
    running.routes = [
        ProxyRoute(":443", name, "127.0.0.1:10001", RouteMode.L7),
        ProxyRoute(":9444", "rpc.example", "127.0.0.1:10002", RouteMode.L4),
        ProxyRoute(":443", "other.example", "127.0.0.1:10003", RouteMode.L4),
    ]


async def adopt(adopter: Adopter, asked: Wish) -> tuple[Draft, Service]:
    drafted = await adopter.draft(asked)
    return drafted, await adopter.take(drafted, "kyle")


async def test_what_mcp_made_is_defined_as_it_was_and_needs_no_label(
    adopter: Adopter, running: Running, lite: Registry
) -> None:
    ours(running, DEFINED, *PORTS)
    led(running)
    drafted, service = await adopt(adopter, wish())
    by_name = {component.name: component for component in DEFINED.components}
    assert {component.name: component for component in drafted.spec.components} == by_name
    assert (drafted.labels, drafted.names, service.ports) == ({}, {}, PORTS)
    assert await lite.adopted_containers() == {}
    assert load(dump(drafted.spec), "shop.toml").spec == service.spec


async def test_a_container_in_the_second_slot_keeps_its_ports(adopter: Adopter, running: Running) -> None:
    component = {"name": "shop", "image": "localhost/hello:v1", "update": {"strategy": "blue-green"}}
    spec = ServiceSpec.model_validate({"name": "shop", "components": [{**component, "routes": [{"port": 443}]}]})
    first = PortAllocation(component="shop", route="default", port=10000)
    second = PortAllocation(component="shop", route="default", port=10001, slot=1)
    ours(running, spec, first, second, slot=1)
    led(running)
    drafted, service = await adopt(adopter, wish())
    assert (drafted.spec.components[0].update, drafted.labels) == (spec.components[0].update, {})
    assert set(service.ports) == {first, second}


async def test_what_the_proxy_does_not_know_is_asked_for(adopter: Adopter, running: Running) -> None:
    ours(running, DEFINED, *PORTS)
    with pytest.raises(Refused, match="say --route web/default=PORT"):
        await adopter.draft(wish())
    routes = {"web/default": "443:l7", "web/grpc": "9444:l4:rpc.example"}
    drafted = await adopter.draft(wish(routes=routes))
    assert drafted.spec.components[1].routes == DEFINED.components[0].routes
    for wrong in ("x", "443:l9", "99999", "443:l4:-"):
        with pytest.raises(Refused, match="route web/default"):
            await adopter.draft(wish(routes=routes | {"web/default": wrong}))


async def test_what_was_made_from_more_than_podman_tells_is_taken_over_all_the_same(
    adopter: Adopter, running: Running, lite: Registry
) -> None:
    ours(running, DEFINED, *PORTS)
    led(running)
    running.inspections["id-shop-db"]["Config"]["Env"].append("ADDED=by the image")
    drafted, service = await adopt(adopter, wish())
    assert "shop-db: what podman says is not all that it was made from (env)" in drafted.notes
    container = (await running.refresh()).containers["id-shop-db"]
    assert container.labels == (await lite.adopted_containers())["id-shop-db"]
    resolved = resolve(service.spec, Defaults())
    db = next(component for component in resolved.components if component.name == "db")
    assert container.labels[model.SPEC_HASH] == request_for(service, resolved, db, "rift").spec_hash


def stranger(running: Running, name: str, container_id: str = "", **host: Any) -> None:
    config = {"Env": ["A=1", "VERSION=1"], "Labels": {"team": "x", "com.docker.compose.project": "p"}}
    asked = {"RestartPolicy": {"Name": "always"}, "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}}
    container = inspected(name, config, asked | host, NetworkSettings={"Networks": {"podman": {}}})
    running.put(seen(container_id or f"id-{name}", name), container, IMAGE)


async def test_a_strangers_container_is_ours_from_then_on(adopter: Adopter, running: Running, lite: Registry) -> None:
    stranger(running, "shop")
    stranger(running, "shop-db")
    stranger(running, "shopping")
    drafted, service = await adopt(adopter, wish())
    assert drafted.spec == ServiceSpec.model_validate(
        {
            "name": "shop",
            "components": [
                {
                    "name": name,
                    "image": "localhost/hello:v1",
                    "network": "podman",
                    "restart": "always",
                    "ports": ["8080:80"],
                    "volumes": [],
                    "env": ["A=1"],
                    "labels": {"team": "x"},
                }
                for name in ("shop", "db")
            ],
        }
    )
    assert (drafted.containers, len(drafted.notes), service.actor) == (("shop", "shop-db"), 2, "kyle")
    assert "goes on restarting it by itself (restart policy always)" in drafted.notes[0]
    owned = (await running.refresh()).owned("rift", "shop")
    assert [(one.name, one.component) for one in owned] == [("shop", "shop"), ("shop-db", "db")]
    assert set(await lite.adopted_containers()) == {"id-shop", "id-shop-db"}


async def test_a_named_container_is_renamed_and_no_other_is_taken(adopter: Adopter, running: Running) -> None:
    stranger(running, "p_web_1")
    stranger(running, "shop-db")
    drafted, _ = await adopt(adopter, wish(containers={"p_web_1": "web"}))
    assert drafted.notes[-1] == "p_web_1 is called shop-web from now on"
    assert [one.name for one in (await running.refresh()).owned("rift", "shop")] == ["shop-web"]


async def test_nothing_has_changed_where_a_part_fails(adopter: Adopter, running: Running, lite: Registry) -> None:
    stranger(running, "p_web_1")
    stranger(running, "p_db_1")
    before = dict(running.seen)
    running.stuck = "id-p_db_1"
    with pytest.raises(Refused, match="nothing was taken over: it is stuck"):
        await adopt(adopter, wish(containers={"p_web_1": "web", "p_db_1": "db"}))
    assert (running.seen, list((await running.refresh()).owned("rift", "shop"))) == (before, [])
    assert await lite.service("shop") is None


async def test_what_the_nodes_policy_forbids_is_told(adopter: Adopter, running: Running) -> None:
    container = inspected("shop", {}, {"Privileged": True})
    running.put(seen("1", "shop"), container, IMAGE)
    (note,) = (await adopter.draft(wish())).notes
    assert "privileged" in note
    assert note.endswith("it runs on, and the next change waits for that")


@pytest.mark.parametrize(
    ("config", "image", "pinned"),
    [
        ({"ImageName": "localhost/hello:latest"}, {}, "localhost/hello:v1"),
        ({"ImageName": "localhost/hello:v0"}, {"RepoTags": []}, "localhost/hello@sha256:abc"),
        ({"ImageName": "localhost/hello@sha256:abc"}, {"RepoTags": []}, "localhost/hello@sha256:abc"),
    ],
)
async def test_an_image_is_pinned_to_what_runs(
    adopter: Adopter, running: Running, config: dict[str, Any], image: dict[str, Any], pinned: str
) -> None:
    container = inspected("shop", {}, {}, **config)
    running.put(seen("1", "shop"), container, IMAGE | image)
    assert (await adopter.draft(wish())).spec.components[0].image == pinned


async def test_whoever_cannot_be_taken_over_is_told_why(adopter: Adopter, running: Running, lite: Registry) -> None:
    with pytest.raises(NotFound, match="--container NAME=COMPONENT"):
        await adopter.draft(wish())
    with pytest.raises(NotFound, match="there is no container x"):
        await adopter.draft(wish(containers={"x": "web"}))
    stranger(running, "shop", NetworkMode="container:abc")
    with pytest.raises(Refused, match="shares the network"):
        await adopter.draft(wish())
    stranger(running, "shop_1")
    with pytest.raises(Refused, match="cannot be defined"):
        await adopter.draft(wish(containers={"shop_1": "_x"}))
    with pytest.raises(Refused, match="another container is called shop"):
        await adopter.draft(wish(containers={"shop_1": "shop"}))
    ours(running, DEFINED.model_copy(update={"name": "other", "components": DEFINED.components[1:]}))
    with pytest.raises(Refused, match="mcp adopt other takes it over"):
        await adopter.draft(wish(containers={"other-db": "db"}))
    await lite.apply(DEFINED.model_copy(update={"name": "shop"}), actor="kyle")
    stranger(running, "shop-web")
    with pytest.raises(NotFound):
        await adopter.draft(wish("shop-web"))
