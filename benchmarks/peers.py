"""What people use instead: podman-compose and `podman kube play`, with the containers that MCP would make."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from stack import images
from stack.host import Host
from stack.processes import StackError
from stack.web import free_port

# Debian's own, 1.0.3, sleeps for a second after every call of podman.
_COMPOSE = Path(sys.executable).parent / "podman-compose"


class Peers:
    """The same containers as a compose file and as a pod, run by the host's own podman as people run it: locally."""

    def __init__(self, host: Host, count: int) -> None:
        self._folder = host.layout.root / "peers"
        self._folder.mkdir()
        self._podman = _command_line(host, self._folder)
        self._compose = self._folder / "compose.json"
        self._pods = {name: self._folder / f"{name}.json" for name in ("one-pod", "pods")}
        self._compose.write_text(json.dumps(_compose(host.network, count)))
        containers = [_container(f"web{number}") for number in range(count)]
        self._pods["one-pod"].write_text(json.dumps(_pod("peers", *containers)))
        pods = [json.dumps(_pod(f"peer-{container['name']}", container)) for container in containers]
        self._pods["pods"].write_text("\n---\n".join(pods))

    def compose_up(self) -> None:
        """`podman-compose up -d`."""
        self._run(_COMPOSE, "--podman-path", self._podman, "-f", self._compose, "up", "-d")

    def compose_down(self) -> None:
        """Removes its containers."""
        self._run(_COMPOSE, "--podman-path", self._podman, "-f", self._compose, "down", "-t", "0")

    def kube_play(self, which: str) -> None:
        """`podman kube play` of `one-pod`, whose containers share one network namespace, or of as many `pods`."""
        self._run(self._podman, "kube", "play", self._pods[which])

    def kube_down(self) -> None:
        """Removes all pods."""
        self._run(self._podman, "pod", "rm", "--all", "--force", "--time", "0")

    def _run(self, *argv: str | Path) -> None:
        done = subprocess.run(argv, cwd=self._folder, check=False, capture_output=True, text=True)
        # podman-compose hides what its calls of podman ended with.
        if done.returncode != 0 or "Error:" in done.stderr:
            raise StackError(f"{' '.join(map(str, argv))}: {done.stderr.strip()}")


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


def _container(name: str) -> dict[str, Any]:
    port = free_port()
    published = {"containerPort": port, "hostPort": port, "hostIP": "127.0.0.1", "protocol": "TCP"}
    return {
        "name": name,
        "image": images.HELLO,
        "imagePullPolicy": "Never",
        "env": [{"name": "PORT", "value": str(port)}],
        "ports": [published],
    }


def _pod(name: str, *containers: dict[str, Any]) -> object:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers}}
