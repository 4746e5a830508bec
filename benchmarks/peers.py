"""What people use instead: podman-compose and `podman kube play`, with the containers that MCP would make."""

import json
import os
import subprocess
from pathlib import Path

from stack import images
from stack.host import Host
from stack.web import free_port


class Peers:
    """The same containers as a compose file and as a pod, run by the host's own podman as people run it: locally."""

    def __init__(self, host: Host, count: int) -> None:
        self._folder = host.layout.root / "peers"
        self._folder.mkdir()
        self._podman = _command_line(host, self._folder)
        self._compose = self._folder / "compose.json"
        self._pod = self._folder / "pod.json"
        self._compose.write_text(json.dumps(_compose(host.network, count)))
        self._pod.write_text(json.dumps(_pod(count)))

    def compose_up(self) -> None:
        """`podman-compose up -d`."""
        self._run("podman-compose", "--podman-path", self._podman, "-f", self._compose, "up", "-d")

    def compose_again(self) -> None:
        """The same when all of it is up: it complains of names in use, and leaves everything as it is."""
        self._run("podman-compose", "--podman-path", self._podman, "-f", self._compose, "up", "-d", complaints=True)

    def compose_down(self) -> None:
        """Removes its containers."""
        self._run("podman-compose", "--podman-path", self._podman, "-f", self._compose, "down", "-t", "0")

    def kube_play(self) -> None:
        """`podman kube play`."""
        self._run(self._podman, "kube", "play", self._pod)

    def kube_down(self) -> None:
        """Removes its pod."""
        self._run(self._podman, "pod", "rm", "--force", "--time", "0", "peers")

    def _run(self, *argv: str | Path, complaints: bool = False) -> None:
        done = subprocess.run(argv, cwd=self._folder, check=False, capture_output=True, text=True)
        # podman-compose hides what its calls of podman ended with.
        if done.returncode != 0 or ("Error:" in done.stderr and not complaints):
            raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)


def _command_line(host: Host, folder: Path) -> Path:
    """A program `podman` that works on the host's storage."""
    podman = host.podman
    run, storage = podman.layout.run, podman.storage
    script = folder / "podman"
    script.write_text(
        "#!/bin/sh\n"
        f"export CONTAINERS_CONF={storage}/containers.conf HOME={storage}/home TMPDIR={storage}/tmp\n"
        f"exec /usr/bin/podman --root {storage}/storage --runroot {run}/containers --tmpdir {run}/libpod"
        f' --network-config-dir {storage}/networks "$@"\n'
    )
    script.chmod(0o755)
    # Only the path of our own podman is searched, and podman-compose wants to find one at all.
    assert os.access("/usr/bin/podman", os.X_OK), "podman is missing: run scripts/setup bench"
    return script


def _compose(network: str, count: int) -> object:
    services = {}
    for number in range(count):
        port = free_port()
        services[f"web{number}"] = {
            "image": images.HELLO,
            "environment": {"PORT": str(port)},
            "ports": [f"127.0.0.1:{port}:{port}"],
            "networks": ["default"],
        }
    return {"version": "3", "services": services, "networks": {"default": {"external": {"name": network}}}}


def _pod(count: int) -> object:
    """One pod for all: twenty pods would need twenty containers more."""
    containers = []
    for number in range(count):
        port = free_port()
        published = {"containerPort": port, "hostPort": port, "hostIP": "127.0.0.1", "protocol": "TCP"}
        containers.append(
            {
                "name": f"web{number}",
                "image": images.HELLO,
                "imagePullPolicy": "Never",
                "env": [{"name": "PORT", "value": str(port)}],
                "ports": [published],
            }
        )
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "peers"}, "spec": {"containers": containers}}
