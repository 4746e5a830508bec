"""How a container differs from what is wanted, in the words of a definition."""

import json
from typing import Any

from api.service import FieldChange
from reconcilers.containers.differences import asked, differences, state
from reconcilers.containers.engine.request import ContainerRequest
from tests.unit.reconcilers.containers.test_found import IMAGE, inspected
from tests.unit.reconcilers.containers.worlds import requests, shop, task, web


def request(**fields: Any) -> ContainerRequest:
    return requests(shop(task(**fields)))["task"]


def made_of(wanted: ContainerRequest, config: dict[str, Any], host: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the engine says of a container that was made as `wanted`, except for what is given here."""
    body = json.loads(wanted.body)
    env = [f"{key}={value}" for key, value in body["env"].items()]
    made = {"Env": env, "User": body["user"], "Labels": body["labels"]}
    return inspected(made | config, host, ImageName=body["image"])


def test_only_what_was_asked_for_differently_is_compared_with_both_values_and_without_secrets() -> None:
    before = request(env=["LEVEL=debug", "TOKEN=old", "SAME=1"], memory="64M")
    after = request(env=["LEVEL=info", "TOKEN=new", "SAME=1"], memory="1G", cpus=1.5)
    env = [f"{key}={value}" for key, value in json.loads(before.body)["env"].items()]
    container = made_of(before, {"Env": env, "WorkingDir": "/elsewhere"}, {"Memory": 64 << 20})
    assert differences(after, container, IMAGE) == (
        FieldChange(path="components[task].env.LEVEL", old='"debug"', new='"info"'),
        FieldChange(path="components[task].env.TOKEN", old='"********"', new='"********"'),
        FieldChange(path="components[task].memory", old='"64M"', new='"1G"'),
        FieldChange(path="components[task].cpus", old=None, new="1.5"),
    )


def test_a_container_says_itself_which_of_its_variables_nobody_may_see() -> None:
    before = request(env=["DSN=correct horse", "A=1"], secret_env=["DSN"], secrets=["file", "pw:env:PW"])
    env = [f"{key}={value}" for key, value in json.loads(before.body)["env"].items()]
    # As podman does once the container was started.
    container = made_of(before, {"Env": [*env, "PW=battery staple"], "Secrets": [{"Name": "file"}]})
    assert differences(before, container, IMAGE) == ()
    told = {change.path: (change.old, change.new) for change in differences(request(env=["A=2"]), container, IMAGE)}
    assert told == {
        "components[task].env.DSN": ('"********"', None),
        "components[task].env.A": ('"1"', '"2"'),
        "components[task].secret_env": ('["DSN"]', "[]"),
        "components[task].secrets": ('["file", "pw:env:PW"]', "[]"),
    }
    plain = differences(request(env=["DSN=in the open", "PW=x"]), container, IMAGE)
    assert "horse" not in str(plain)
    assert "staple" not in str(plain)


def test_another_image_and_what_the_image_gives_as_well() -> None:
    before = request(env=["VERSION=v1.0.0"])
    after = request(image="shop-worker:v9", env=["VERSION=v1.0.0", "A=b"])
    assert differences(after, made_of(before, {}), IMAGE) == (
        FieldChange(path="components[task].image", old='"i:1"', new='"shop-worker:v9"'),
        FieldChange(path="components[task].env.A", old=None, new='"b"'),
    )


def test_a_container_as_it_is_wanted_differs_in_nothing() -> None:
    wanted = request()
    assert differences(wanted, made_of(wanted, {}), IMAGE) == ()


def test_everything_that_can_be_asked_for_is_said_in_the_words_of_a_definition() -> None:
    component = task(
        user="5:6",
        ports=["53:5353/udp", "127.0.0.1:81:80"],
        volumes=["/a:/b:ro,z"],
        cmd=["x"],
        entrypoint=["/e"],
        working_dir="/w",
        env=["A=b"],
        secret_env=["A"],
        secrets=["tok", "tok:env:TOK"],
        labels={"team": "x"},
        extra_hosts=["db:10.0.0.5"],
        memory="64M",
        cpus=0.5,
        pids=9,
        read_only=True,
        tmpfs=["/t:size=1M"],
        cap_drop=["ALL"],
        cap_add=["KILL"],
        privileged=True,
        host_namespaces=["pid"],
        stop_signal="INT",
        stop_timeout="25s",
    )
    said = asked(requests(shop(component))["task"])
    same = set(type(said).model_fields) - {"ports", "volumes", "env", "restart", "network", "image"}
    assert {name: getattr(said, name) for name in same} == {name: getattr(component, name) for name in same}
    assert (said.ports, said.volumes) == (("127.0.0.1:81:80", "53:5353/udp"), ("/a:/b:ro",))
    assert "A=b" in said.env


def test_a_route_shows_as_the_port_that_is_published() -> None:
    assert asked(requests(shop(web()))["web"]).ports == ("127.0.0.1:10000:10000",)


def test_a_state_is_a_difference_too() -> None:
    assert state("web", "exited") == FieldChange(path="components[web].state", old='"exited"', new='"running"')
