"""podman hosts really run containers, rootful and rootless, and are gone without a trace."""

import json
import os
import pwd
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
import requests
from podman import PodmanClient

from stack import images, processes
from stack.layout import Layout
from stack.podman import PodmanHost, podman_host
from stack.users import rootless_layout
from stack.web import free_port
from tests.system.stack.traces import traces

pytestmark = pytest.mark.system


def serve(host: PodmanHost, name: str, image: str) -> int:
    """Creates and starts a container over the API socket; returns the loopback port that it is published on."""
    port = free_port()
    with PodmanClient(base_url=host.url) as client:
        spec = {
            "name": name,
            "image": image,
            "env": {"PORT": str(port)},
            "netns": {"nsmode": "bridge"},
            "networks": {host.make_network(): {}},
            "portmappings": [{"host_ip": "127.0.0.1", "host_port": port, "container_port": port, "protocol": "tcp"}],
        }
        client.api.post("/containers/create", data=json.dumps(spec)).raise_for_status()
        client.api.post(f"/containers/{name}/start").raise_for_status()
    return port


def get(url: str, **options: str) -> str:
    with requests.Session() as session:
        session.mount(url, requests.adapters.HTTPAdapter(max_retries=requests.adapters.Retry(5, backoff_factor=0.05)))
        return session.get(url, timeout=5, verify=options.get("verify", True)).text


@pytest.mark.parametrize("kind", ["podman", "rootless_podman"])
def test_a_container_answers_on_its_published_port(request: pytest.FixtureRequest, kind: str) -> None:
    host: PodmanHost = request.getfixturevalue(kind)
    port = serve(host, "answers", images.HELLO)
    assert get(f"http://127.0.0.1:{port}/") == "mcp-hello v1.0.0\n"
    assert f"PORT={port}" in get(f"http://127.0.0.1:{port}/cgi-bin/env")
    assert host.rootless is (kind == "rootless_podman" or os.getuid() != 0)
    host.run("rm", "--force", "--time", "0", "answers")


def test_the_tls_image_terminates_tls_itself(podman: PodmanHost) -> None:
    port = serve(podman, "tls", images.TLS)
    trusted = str(images.tls_certificate(podman))
    assert get(f"https://localhost:{port}/", verify=trusted) == "mcp-tls v1.0.0\n"
    podman.run("rm", "--force", "--time", "0", "tls")


def test_a_web_container_stops_when_it_is_told_to(podman: PodmanHost) -> None:
    serve(podman, "stops", images.HELLO_NEXT)
    podman.run("stop", "--time", "5", "stops")
    assert podman.run("inspect", "--format", "{{.State.ExitCode}}", "stops").strip() == "0"
    podman.run("rm", "stops")


def test_the_exit_image_ends_with_its_code(podman: PodmanHost) -> None:
    podman.run("run", "--name", "ends", "--env", "CODE=7", images.EXIT, check=False)
    assert podman.run("inspect", "--format", "{{.State.ExitCode}}", "ends").strip() == "7"
    podman.run("rm", "ends")


def test_containers_outlive_the_api_service(podman: PodmanHost) -> None:
    port = serve(podman, "outlives", images.HELLO)
    podman.stop()
    assert get(f"http://127.0.0.1:{port}/") == "mcp-hello v1.0.0\n"
    podman.start()
    podman.start()
    assert podman.run("inspect", "--format", "{{.State.Status}}", "outlives").strip() == "running"
    podman.run("rm", "--force", "--time", "0", "outlives")


def test_nothing_remains_of_a_rootful_host() -> None:
    with tempfile.TemporaryDirectory(prefix="mcp-t") as folder:
        layout = Layout(Path(folder))
        with podman_host(layout) as host:
            images.build(host, [images.HELLO])
            serve(host, "gone", images.HELLO)
            assert len(traces(layout)) > 5
        assert traces(layout) == []


def test_nothing_remains_of_a_host_that_was_killed() -> None:
    """The API service and each conmon are killed, podman's database is destroyed: its containers still run."""
    namespaces = set(Path("/run/netns").glob("*"))
    with tempfile.TemporaryDirectory(prefix="mcp-t") as folder:
        layout = Layout(Path(folder))
        with podman_host(layout) as host:
            images.build(host, [images.HELLO])
            port = serve(host, "orphan", images.HELLO)
            own_namespaces = set(Path("/run/netns").glob("*")) - namespaces
            pid = int(host.run("inspect", "--format", "{{.State.ConmonPid}}", "orphan"))
            conmon = processes.identify(pid)
            assert conmon is not None
            processes.end(conmon, sig=signal.SIGKILL)
            processes.stop(layout, "podman", sig=signal.SIGKILL)
            for database in host.storage.rglob("*.db"):
                database.write_bytes(b"not a database")
            assert get(f"http://127.0.0.1:{port}/") == "mcp-hello v1.0.0\n"
        assert traces(layout) == []
    assert [path for path in own_namespaces if path.exists()] == []


def test_nothing_remains_of_a_rootless_host() -> None:
    with rootless_layout() as layout:
        with podman_host(layout) as host:
            images.build(host, [images.HELLO])
            serve(host, "gone", images.HELLO)
            assert len(traces(layout)) > 3
        assert traces(layout) == []
        if layout.owner:
            assert [pid for pid in processes_of(layout.owner.uid) if processes.identify(pid)] == []
    if owner := layout.owner:
        assert not owner.home.exists()
        assert owner.uid not in {account.pw_uid for account in pwd.getpwall()}
        assert [pid for pid in processes_of(owner.uid) if processes.identify(pid)] == []


def processes_of(uid: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError):  # it may end before it is looked at
            if folder.stat().st_uid == uid:
                found.append(int(folder.name))
    return found


def test_two_hosts_side_by_side_share_nothing(podman: PodmanHost) -> None:
    with tempfile.TemporaryDirectory(prefix="mcp-t") as folder, podman_host(Layout(Path(folder))) as other:
        images.build(other, [images.HELLO_NEXT])
        ports = serve(podman, "same-name", images.HELLO), serve(other, "same-name", images.HELLO_NEXT)
        assert [get(f"http://127.0.0.1:{port}/") for port in ports] == ["mcp-hello v1.0.0\n", "mcp-hello v1.0.1\n"]
        other.remove()
        assert get(f"http://127.0.0.1:{ports[0]}/") == "mcp-hello v1.0.0\n"
    podman.run("rm", "--force", "--time", "0", "same-name")
