"""The operator's looks at a whole agent: what is written, what is used, what is wrong."""

import json

import pytest

from stack import images
from tests.system.agent.rig import Rig

pytestmark = pytest.mark.system


def findings(rig: Rig) -> dict[str, dict[str, str]]:
    report = json.loads(rig.host.mcp("doctor", "-o", "json").stdout)
    return {one["finding"]["check"]: one["finding"] for one in report["findings"]}


async def test_the_doctor_sees_a_host_that_is_well_and_what_is_wrong_with_it(rig: Rig) -> None:
    found = findings(rig)
    for check in ("settings", "agent", "podman", "runtime", "proxy", "certificate folder", "CA", "certificates"):
        assert found[check]["state"] == "ok", found[check]
    for check in ("registry", "clock", "ports", "leftovers"):
        assert found[check]["state"] == "ok", found[check]
    assert found["podman"]["found"].startswith("version ")
    assert "whole" in found["registry"]["found"]

    labels = {"managed-by": "mcp-agent", "node": rig.host.node, "service": "gone", "component": "web"}
    named = [f"--label=net.metacircular.mcp.{name}={value}" for name, value in labels.items()]
    rig.podman.run("create", "--name", f"{rig.name}-left", *named, images.HELLO)
    rig.host.stop_proxy()
    found = findings(rig)
    assert found["proxy"]["state"] == "problem"
    assert "start mc-proxy" in found["proxy"]["advice"]
    assert f"{rig.name}-left" in found["leftovers"]["found"]
    assert rig.host.mcp("doctor").returncode == 1


async def test_what_a_service_says_and_uses_and_how_it_runs_without_us(rig: Rig) -> None:
    await rig.apply(rig.spec(volumes=[], cmd=["/bin/sh", "-c", "echo hello $MCP_SERVICE; /bin/serve"]))
    await rig.until_ready()
    assert rig.host.mcp("logs", rig.name).stdout == f"hello {rig.name}\n"
    assert rig.host.mcp("logs", "nobody").returncode == 5
    (used,) = json.loads(rig.host.mcp("top", rig.name, "-o", "json").stdout)["nodes"][0]["usage"]["containers"]
    assert used["pids"] >= 1
    units = rig.host.mcp("export", rig.name, "--format", "quadlet")
    assert f"ContainerName={rig.container}" in units.stdout
    assert "mc-proxy has to be told" in units.stderr
