"""Files that run a service without us say all that they can, and say what they cannot."""

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from api.errors import Refused
from api.inspection import ExportFormat
from api.resolve import Defaults, resolve
from api.service import PortAllocation, Service
from api.spec import ComponentSpec, ServiceSpec
from controller.export import export
from tests import quadlet
from tests.unit.api.definitions import full, texts

DEFAULTS = Defaults(registry="reg:5000")


def everything() -> ServiceSpec:
    """Every field is set, but for the fixed ports, which go with no blue-green update."""
    spec = full()
    web = spec.components[0].model_copy(update={"ports": ()})
    return spec.model_copy(update={"components": (web, *spec.components[1:])})


def service(spec: ServiceSpec) -> Service:
    now = datetime.now(UTC)
    ports = tuple(
        PortAllocation(component=component.name, route=route.key, slot=slot, port=10000 + 10 * number + slot)
        for number, (component, route) in enumerate((c, r) for c in spec.components for r in c.routes)
        for slot in (0, 1)
    )
    return Service(
        uid="u", name=spec.name, node="rift", generation=1, spec=spec, created_at=now, updated_at=now, ports=ports
    )


def exported(spec: ServiceSpec, form: ExportFormat, needed: tuple[str, ...] = ()) -> dict[str, str]:
    found = export(service(spec), resolve(spec, DEFAULTS), "rift", form, needed)
    return {file.name: file.content for file in found.files}


def test_a_unit_has_only_keys_that_podman_4_4_knows() -> None:
    files = exported(everything(), ExportFormat.QUADLET, ("mcias",))
    for name, text in files.items():
        unit = quadlet.parse(text)
        kind, known = (
            ("Container", quadlet.CONTAINER_KEYS) if name.endswith(".container") else ("Network", quadlet.NETWORK_KEYS)
        )
        assert set(unit.sections) <= {"Unit", kind, "Service", "Install"}
        assert set(unit.sections[kind]) <= known
    web = quadlet.parse(files["full-web.container"])
    assert web.all("Unit", "Requires") == web.all("Unit", "After") == ["full-db.service", "mcias.service"]
    assert web.one("Service", "Restart") == "on-failure"
    # `active = false`: it is not started at boot.
    assert "Install" not in web.sections
    arguments = quadlet.podman_run(web, {})
    for word in (
        "--memory=536870912",
        "--cpus=0.5",
        "--pids-limit=100",
        "--stop-signal=SIGINT",
        "--stop-timeout=30",
        "--privileged=true",
        "--pid=host",
        "--workdir=/srv",
        "--read-only",
    ):
        assert word in arguments
    for option, value in (
        ("--publish", "127.0.0.1:10000:10000/tcp"),
        ("--secret", "key,mode=0444,target=/etc/key"),
        ("--entrypoint", '["/bin/web"]'),
        ("--tmpfs", "/tmp:size=64M"),
        ("--add-host", "db.example:10.0.0.5"),
        ("--cap-drop", "ALL"),
        ("--cap-add", "NET_BIND_SERVICE"),
    ):
        assert any(pair == (option, value) for pair in pairwise(arguments))
    assert arguments[-1] == "server"


def test_what_is_marked_as_secret_is_referred_to_and_not_given_out() -> None:
    web = ComponentSpec(
        name="web",
        image="x:1",
        env=("DSN=postgres://correct-horse", "LEVEL=info"),
        secret_env=("DSN",),
        secrets=("mail:env:MAIL_PASSWORD",),
    )
    spec = ServiceSpec(name="shop", components=(web,))
    for form in ExportFormat:
        found = export(service(spec), resolve(spec, DEFAULTS), "rift", form)
        assert "correct-horse" not in found.model_dump_json()
        assert any("the value of DSN is given out nowhere" in warning for warning in found.warnings)
    arguments = quadlet.podman_run(quadlet.parse(exported(spec, ExportFormat.QUADLET)["shop-web.container"]), {})
    for option in ("shop-web-dsn,type=env,target=DSN", "mail,type=env,target=MAIL_PASSWORD"):
        assert ("--secret", option) in pairwise(arguments)
    pod = yaml.safe_load(exported(spec, ExportFormat.KUBE)["shop.yaml"])
    reference = {"name": "DSN", "valueFrom": {"secretKeyRef": {"name": "shop-web", "key": "DSN"}}}
    assert reference in pod["spec"]["containers"][0]["env"]


@given(st.lists(texts, min_size=1, max_size=3), texts)
def test_whatever_is_in_a_word_reaches_the_container(cmd: list[str], value: str) -> None:
    spec = ServiceSpec(
        name="a",
        components=(
            ComponentSpec(name="a", image="i:1", cmd=tuple(cmd), env=(f"X={value}",), volumes=(), labels={"l": value}),
        ),
    )
    unit = quadlet.parse(exported(spec, ExportFormat.QUADLET)["a.container"])
    arguments = quadlet.podman_run(unit, {})
    assert arguments[-len(cmd) :] == cmd
    assert f"X={value}" in arguments
    assert f"l={value}" in arguments
    (pod,) = yaml.safe_load_all(exported(spec, ExportFormat.KUBE)["a.yaml"])
    (container,) = pod["spec"]["containers"]
    assert container["args"] == cmd
    assert {"name": "X", "value": value} in container["env"]


def test_a_pod_says_what_the_definition_says() -> None:
    (text,) = exported(everything(), ExportFormat.KUBE).values()
    pods: dict[str, Any] = {pod["metadata"]["name"]: pod for pod in yaml.safe_load_all(text)}
    # Those that others wait for come first.
    assert list(pods)[-1] == "full-web"
    pod = pods["full-web"]
    (container,) = pod["spec"]["containers"]
    assert pod["spec"]["restartPolicy"] == "OnFailure"
    assert pod["spec"]["hostPID"]
    assert pod["spec"]["hostAliases"] == [{"ip": "10.0.0.5", "hostnames": ["db.example"]}]
    assert container["ports"][0] == {
        "containerPort": 10000,
        "hostPort": 10000,
        "hostIP": "127.0.0.1",
        "protocol": "TCP",
    }
    assert container["resources"] == {"limits": {"memory": "536870912", "cpu": "500m"}}
    assert container["securityContext"]["runAsUser"] == 0
    assert container["securityContext"]["capabilities"] == {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]}
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/srv/full", "/tmp"}


def test_what_is_lost_and_what_is_secret_is_said() -> None:
    spec = everything()
    for form in ExportFormat:
        found = export(service(spec), resolve(spec, DEFAULTS), "rift", form)
        said = "\n".join(found.warnings)
        assert "full.example:8443 (l7) to web is not carried over" in said
        assert "health check" in said
        assert "secret key" in said
    web = spec.components[0].model_copy(update={"env": ("DB_PASSWORD=x",)})
    spec = spec.model_copy(update={"components": (web, *spec.components[1:])})
    found = export(service(spec), resolve(spec, DEFAULTS), "rift", ExportFormat.QUADLET)
    assert "DB_PASSWORD" in found.warnings[0]
    assert '# Secret:\nEnvironment="DB_PASSWORD=x"' in found.files[-1].content


def test_without_ports_there_is_nothing_to_export() -> None:
    spec = everything()
    without = service(spec).model_copy(update={"ports": ()})
    with pytest.raises(Refused, match=r"routes of .*web.* have no port yet"):
        export(without, resolve(spec, DEFAULTS), "rift", ExportFormat.KUBE)
