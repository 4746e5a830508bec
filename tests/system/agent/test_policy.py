"""What a node's settings allow containers, as its operator meets it."""

import pytest

from api.notation import toml_document
from stack import images
from tests.system.agent.rig import Rig

pytestmark = pytest.mark.system


def definition(rig: Rig, **fields: object) -> str:
    """A service without routes, as its author writes it."""
    component = {"name": "web", "image": images.HELLO, **fields}
    return toml_document({"name": rig.name, "components": [component]}, 100)  # type: ignore[dict-item]


def test_nothing_of_the_hosts_is_had_by_writing_a_definition(rig: Rig) -> None:
    host = rig.host
    private = {
        host.podman.socket: "podman's socket is there",
        host.podman.socket.parent: "podman's socket is there",
        host.agent_socket: "the agent's socket is there",
        host.layout.root / "agent" / "ca": "what the agent keeps is there",
        host.cert_dir: "the key of a certificate is there",
        host.layout.root / "srv" / "..": "must not contain",
        "/var/lib": "policy.mounts in the agent's settings",
    }
    for path, why in private.items():
        done = host.mcp("apply", "-f", "-", text=definition(rig, volumes=[f"{path}:/x"]))
        assert done.returncode != 0
        assert why in done.stdout + done.stderr
    assert rig.containers() == []


def test_a_dry_run_says_what_is_forbidden_and_apply_fails_with_it_until_the_settings_allow_it(stopped: Rig) -> None:
    stopped.start_agent()
    asked = definition(stopped, volumes=[], host_namespaces=["uts"])
    shown = stopped.host.mcp("apply", "--dry-run", "-f", "-", text=asked)
    failed = stopped.host.mcp("apply", "-f", "-", text=asked)
    for said in (shown.stdout, failed.stdout + failed.stderr):
        assert f'host_namespaces "uts": not for service {stopped.name}, unless policy.host_namespaces' in said
    assert failed.returncode != 0
    stopped.host.stop_agent()
    stopped.start_agent(MCP_POLICY_HOST_NAMESPACES=f"other,{stopped.name}")
    done = stopped.host.mcp("apply", "-f", "-", text=asked)
    assert done.returncode == 0, done.stderr
