"""What is exported runs on podman without us, and answers."""

import asyncio
import json
import subprocess
import urllib.request
from base64 import b64encode

import pytest

from api.inspection import Exported, ExportFormat
from api.resolve import resolve
from api.service import Service
from api.spec import ServiceSpec
from controller.export import export
from reconcilers.containers.engine.podman import Engine
from reconcilers.containers.engine.transport import EngineSettings
from stack import images
from stack.web import wait_for
from tests import quadlet
from tests.system.containers.node import Node

pytestmark = pytest.mark.system

ODD = "a b\"c\\d$HOME%n'é\n2nd"


def definition() -> ServiceSpec:
    """A component that asks another one, with all that can be carried over."""
    web = {
        "name": "web",
        "image": images.HELLO,
        "volumes": [],
        "env": [f"ODD={ODD}", "API_TOKEN=s3cret", "DSN=correct horse"],
        "secret_env": ["DSN"],
        "labels": {"team": "infra x"},
        "memory": "64M",
        "cpus": 0.5,
        "read_only": True,
        "tmpfs": ["/scratch:size=1M"],
        "cap_drop": ["ALL"],
        "extra_hosts": ["db.example:10.0.0.5"],
        "depends_on": ["db"],
        "routes": [{"port": 8443, "mode": "l7"}],
    }
    db = {
        "name": "db",
        "image": images.HELLO,
        "entrypoint": ["/bin/sh", "-c"],
        "cmd": ['echo "$GREETING" > /www/greeting; /bin/serve'],
        "env": ["GREETING=hi  there"],
        "working_dir": "/www",
        "routes": [{"name": "sql", "port": 9443}],
    }
    return ServiceSpec.model_validate({"name": "alpha", "components": [web, db]})


async def make_network(node: Node, name: str) -> None:
    """As `podman network create` does, on a bridge that no other podman of this machine has."""
    engine = Engine(EngineSettings(str(node.host.socket)))
    await engine.make_network(name, f"x{node.name[2:10]}", {})
    engine.close()


async def exported(node: Node, form: ExportFormat) -> tuple[Service, Exported]:
    """The running service's export, once MCP has taken the service away."""
    await node.apply(definition())
    service = await node.until_ready("alpha")
    found = export(service, resolve(service.spec, node.defaults), node.name, form)
    await node.delete("alpha")
    await node.until_containers_gone("alpha")
    return service, found


def get(service: Service, component: str, path: str) -> str:
    port = next(one.port for one in service.ports if one.component == component)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as response:
        return str(response.read().decode())


def answers(service: Service, component: str, path: str) -> str:
    """What the component says on the port that it had under MCP, once it does."""

    def there() -> bool:
        try:
            get(service, component, "/")
        except OSError:
            return False
        return True

    wait_for(there, seconds=10, what=f"an answer of {component}")
    return get(service, component, path)


def check(node: Node, service: Service, web: str) -> None:
    """Both answer, the environment is what it was, and one finds the other by the name it is told."""
    said = answers(service, "web", "/cgi-bin/env")
    assert f"ODD={ODD}" in said
    assert "API_TOKEN=s3cret" in said
    assert "DSN=correct horse" in said
    assert answers(service, "db", "/greeting") == "hi  there\n"
    peer = next(line.partition("=")[2] for line in said.splitlines() if line.startswith("PEER_DB="))
    assert peer.startswith("alpha-db:")
    assert node.podman("exec", web, "/bin/busybox", "wget", "-qO-", f"http://{peer}/greeting") == "hi  there"
    hosts = node.podman("exec", web, "/bin/cat", "/etc/hosts")
    assert "10.0.0.5\tdb.example" in hosts or "10.0.0.5 db.example" in hosts.replace("\t", " ")
    found = json.loads(node.podman("inspect", web))[0]
    assert found["HostConfig"]["Memory"] == 64 << 20
    assert found["HostConfig"]["ReadonlyRootfs"]
    assert found["EffectiveCaps"] in ([], None)


def make_secret(node: Node, name: str, content: str) -> None:
    """As `podman secret create` does."""
    path = node.folder / name
    path.write_text(content)
    node.podman("secret", "create", name, str(path))


async def test_quadlet_units_run_the_service(node: Node) -> None:
    service, found = await exported(node, ExportFormat.QUADLET)
    units = {file.name: quadlet.parse(file.content) for file in found.files}
    network = next(name for name in units if name.endswith(".network"))
    assert list(units) == [network, "alpha-db.container", "alpha-web.container"]
    assert units["alpha-web.container"].all("Unit", "Requires") == ["alpha-db.service"]
    named = {network: f"systemd-{network.removesuffix('.network')}"}
    await make_network(node, *named.values())
    make_secret(node, "alpha-web-dsn", "correct horse")
    try:
        for name in ("alpha-db.container", "alpha-web.container"):
            before = [quadlet.words(line) for line in units[name].all("Service", "ExecStartPre")]
            for command in before:
                await asyncio.to_thread(subprocess.run, command, check=True)
            node.podman(*quadlet.podman_run(units[name], named))
        check(node, service, "alpha-web")
        assert node.inspect("alpha-web", '{{index .Config.Labels "team"}}') == "infra x"
    finally:
        node.podman("rm", "--force", "--time", "0", "--ignore", "alpha-web", "alpha-db")
        node.podman("secret", "rm", "alpha-web-dsn")
        node.podman("network", "rm", "--force", *named.values())
    assert any("API_TOKEN" in warning for warning in found.warnings)
    assert any("podman secret create alpha-web-dsn -" in warning for warning in found.warnings)
    assert any("mc-proxy has to be told" in warning for warning in found.warnings)


async def test_podman_kube_plays_the_service(node: Node) -> None:
    service, found = await exported(node, ExportFormat.KUBE)
    (file,) = found.files
    assert file.name == "alpha.yaml"
    path = node.folder / file.name
    path.write_text(file.content)
    network = service.spec.components[0].network or node.network
    await make_network(node, network)
    # podman 4.3 reads this alone, and what its own kube play of a Secret writes only since 4.4.
    make_secret(node, "alpha-web", json.dumps({"DSN": b64encode(b"correct horse").decode()}))
    try:
        node.podman("kube", "play", "--network", network, str(path))
        check(node, service, "alpha-web-web")
    finally:
        node.podman("kube", "down", str(path))
        node.podman("secret", "rm", "alpha-web")
        node.podman("network", "rm", "--force", network)
    assert any("depends_on" in warning for warning in found.warnings)
