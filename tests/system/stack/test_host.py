"""A whole host comes up, says where it is, and goes without a trace."""

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from stack import images, processes, web
from stack.admin import Table
from stack.host import ZONE, Host
from stack.layout import Layout
from stack.podman import PodmanHost
from tests.system.stack.traces import traces

pytestmark = pytest.mark.system


def definition(host: Host, name: str = "hello", image: str = images.HELLO) -> str:
    return f"""
name = "{name}"
[[components]]
name = "{name}"
image = "{image}"
volumes = []
[[components.routes]]
port = {host.ports.listener}
mode = "l7"
"""


def apply(host: Host, text: str) -> str:
    done = host.mcp("apply", "-f", "-", text=text)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_definition_becomes_an_answered_request(host: Host) -> None:
    apply(host, definition(host))
    assert host.fetch(f"hello.svc.{ZONE}") == "mcp-hello v1.0.0\n"


def test_a_rootless_engine_serves_as_well(rootless_host: Host) -> None:
    apply(rootless_host, definition(rootless_host))
    assert rootless_host.fetch(f"hello.svc.{ZONE}") == "mcp-hello v1.0.0\n"


def test_what_was_killed_on_a_rootless_engine_is_reached_again(rootless_host: Host) -> None:
    """Started before podman has cleaned up, it would run without its published port."""
    apply(rootless_host, definition(rootless_host, "mortal"))
    hostname = f"mortal.svc.{ZONE}"
    for _ in range(2):
        mortal = processes.identify(int(rootless_host.podman.run("inspect", "-f", "{{.State.Pid}}", "mortal")))
        assert mortal is not None
        processes.end(mortal, sig=signal.SIGKILL)
        answers = partial(web.answers, rootless_host.address, hostname, rootless_host.ca_file)
        web.wait_for(answers, seconds=15, what=hostname)


def test_two_hosts_on_one_engine_leave_each_other_alone(make_host: type) -> None:
    one, other = make_host(), make_host()
    apply(one, definition(one, "first"))
    apply(other, definition(other, "second"))
    assert one.fetch(f"first.svc.{ZONE}") == other.fetch(f"second.svc.{ZONE}") == "mcp-hello v1.0.0\n"
    assert Table(one.proxy_socket).hostnames() == [f"first.svc.{ZONE}"]


def test_the_env_file_is_all_that_a_shell_needs(host: Host) -> None:
    apply(host, definition(host))
    script = f"""set -eu; . {host.env_file}
    mcp status hello -o json >/dev/null
    name=hello.svc.{ZONE} port=${{MCP_PROXY_ADDR##*:}}
    curl -sS --cacert "$MCP_CA_FILE" --resolve "$name:$port:127.0.0.1" "https://$name:$port/"
    curl -sS "$MCP_METRICS_URL" | grep -c '^mcp_' >&2
    kill -0 "$MCP_AGENT_PID"; test -S "$MCP_PODMAN_SOCKET"; test -S "$MCP_MCPROXY_SOCKET"; echo "$MCP_NODE"
    """
    environment = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["sh", "-c", script], capture_output=True, text=True, env=environment, check=False, timeout=60
    )
    assert done.stdout.splitlines() == ["mcp-hello v1.0.0", host.node], done.stderr


def test_up_twice_is_harmless(host: Host) -> None:
    agent = host.agent
    host.up()
    assert host.agent == agent


@pytest.fixture
def own_host() -> Iterator[Host]:
    """A host with a podman of its own, as `make up` has it."""
    with tempfile.TemporaryDirectory(prefix="mcp-o") as folder:
        layout = Layout(Path(folder) / "host")
        host = Host(layout, PodmanHost(layout))
        try:
            host.up()
            images.build(host.podman, [images.HELLO])
            apply(host, definition(host))
            yield host
        finally:
            host.down()


def test_down_leaves_nothing(own_host: Host) -> None:
    own_host.down()
    assert traces(own_host.layout) == []
    assert not own_host.layout.root.exists()
    own_host.down()


def test_down_leaves_nothing_of_a_host_that_is_half_dead(own_host: Host) -> None:
    own_host.stop_agent(signal.SIGKILL)
    own_host.stop_proxy(signal.SIGKILL)
    processes.stop(own_host.layout, "podman", sig=signal.SIGKILL)
    own_host.proxy_config.unlink()
    own_host.down()
    assert traces(own_host.layout) == []
    assert web.is_free(own_host.ports.listener)
