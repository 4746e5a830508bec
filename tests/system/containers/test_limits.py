"""What a definition says of a container's limits, rights and surroundings, seen from inside and outside a real one."""

import asyncio
import json
import secrets
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from podman import PodmanClient

from api.service import ContainerState
from api.spec import ComponentSpec, ServiceSpec
from reconcilers.containers.policy import Policy
from stack import images
from stack.podman import PodmanHost
from stack.web import wait_for
from tests.system.containers.node import Node, running_node, web

MEGABYTE = 1 << 20
ECHO = """
socket(S, 10, 2, 17); bind(S, pack("S n N a16 N", 10, 53, 0, "\\0" x 16, 0)) or die $!;
$| = 1; print "listening\\n"; while (defined(my $from = recv(S, my $said, 9999, 0))) { send(S, $said, 0, $from) }
"""
"""A UDP server for both families in the one language that every Debian has."""
DEBIAN = ["/usr:/usr:ro", "/lib:/lib:ro", "/lib64:/lib64:ro"]


def inside(node: Node, command: str, container: str = "alpha-web") -> str:
    """What a shell in the container prints, whatever it then says."""
    return node.host.run("exec", container, "sh", "-c", f"{command}; true").strip()


def engines_view(node: Node, container: str = "alpha-web") -> dict[str, Any]:
    """All that the engine knows of a container."""
    found: dict[str, Any] = json.loads(node.podman("inspect", container))[0]
    return found


@pytest.fixture
def secret(node: Node, folder: Path) -> Iterator[str]:
    """The name of a secret of podman's."""
    name = f"{node.name}-password"
    (folder / "password").write_text("correct horse")
    node.podman("secret", "create", name, str(folder / "password"))
    yield name
    node.podman("secret", "rm", name)


async def test_limits_and_surroundings_are_the_kernels_and_not_just_said(node: Node, secret: str) -> None:
    await node.apply(
        web(
            "alpha",
            user="1000:1000",
            memory="64M",
            cpus=0.5,
            pids=20,
            read_only=True,
            tmpfs=["/tmp:size=1M,mode=1777"],
            cap_drop=["ALL"],
            cap_add=["NET_BIND_SERVICE"],
            working_dir="/www",
            labels={"team": "infra"},
            extra_hosts=["db.example:10.0.0.5", "six.example:fd00::1"],
            secrets=[secret, f"{secret}:/etc/app.key", f"{secret}:env:APP_KEY"],
        )
    )
    await node.until_ready("alpha")
    seen = engines_view(node)
    limits = {name: seen["HostConfig"][name] for name in ("Memory", "MemorySwap", "CpuQuota", "CpuPeriod", "PidsLimit")}
    assert limits == {
        "Memory": 64 * MEGABYTE,
        "MemorySwap": 64 * MEGABYTE,
        "CpuQuota": 50000,
        "CpuPeriod": 100000,
        "PidsLimit": 20,
    }
    assert seen["Config"]["Labels"]["team"] == "infra"
    assert seen["EffectiveCaps"] == ["CAP_NET_BIND_SERVICE"]
    assert inside(node, "pwd") == "/www"
    assert "Read-only file system" in inside(node, "busybox touch /x 2>&1")
    assert "No space left" in inside(node, "busybox dd if=/dev/zero of=/tmp/x bs=1M count=2 2>&1")
    hosts = inside(node, "cat /etc/hosts").split("\n")
    assert {"10.0.0.5\tdb.example", "fd00::1\tsix.example"} <= set(hosts)
    assert inside(node, f"cat /run/secrets/{secret} /etc/app.key; echo -n $APP_KEY") == "correct horse" * 3
    assert "can't fork" in inside(node, "(for i in 0 1 2 3 4 5 6 7 8 9 8 7 6 5 4 3 2 1; do sleep 2 & done) 2>&1")


async def test_a_container_ends_by_its_own_signal_and_in_its_own_time(node: Node) -> None:
    obedient = {"cmd": ["/bin/sh", "-c", "trap 'exit 7' USR1; while :; do sleep 0.1; done"], "stop_signal": "SIGUSR1"}
    stubborn = {"cmd": ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], "stop_timeout": "2s"}
    components = [
        ComponentSpec.model_validate({"name": name, "image": images.HELLO, "volumes": [], "restart": "no", **fields})
        for name, fields in (("obedient", obedient), ("stubborn", stubborn))
    ]
    spec = ServiceSpec(name="alpha", components=tuple(components))
    await node.apply(spec)
    await node.until_ready("alpha")
    began = time.monotonic()
    await node.apply(spec.model_copy(update={"active": False}))
    await node.until("alpha", lambda s: {c.state for c in s.components} == {ContainerState.EXITED})
    assert 2 <= time.monotonic() - began < 8
    assert {c.name: c.exit_code for c in (await node.service("alpha")).components} == {"obedient": 7, "stubborn": 137}


async def test_an_entry_point_is_replaced_and_gets_the_arguments(node: Node) -> None:
    await node.apply(web("alpha", routes=[], entrypoint=["/bin/sh", "-c"], cmd=["exec sleep 1000"]))
    await node.until_ready("alpha")
    assert inside(node, "cat /proc/1/cmdline").split("\0")[:2] == ["sleep", "1000"]


@pytest.fixture
async def dual(podman: PodmanHost, folder: Path) -> AsyncIterator[tuple[Node, str, str]]:
    """A node whose containers may use Debian's programs, a network with IPv6, and the host's address in there."""
    async with running_node(podman, folder, policy=Policy(mounts=("/usr",))) as node:
        name = f"{node.network}-six"
        wanted = {"name": name, "driver": "bridge", "network_interface": f"six-{secrets.token_hex(3)}"}
        with PodmanClient(base_url=podman.url) as client:
            made = client.api.post("/networks/create", data=json.dumps({**wanted, "ipv6_enabled": True}))
            made.raise_for_status()
        (gateway,) = (net["gateway"] for net in made.json()["subnets"] if ":" in net["gateway"])
        yield node, name, gateway
        await node.delete_all()
        podman.run("network", "rm", "--force", name)


async def test_datagrams_reach_a_container_at_each_address_that_its_ports_name(dual: tuple[Node, str, str]) -> None:
    node, network, six = dual
    first, second = free_udp_port(), free_udp_port()
    ports = [f"127.0.0.1:{first}:53/udp", f"127.0.0.2:{second}:53/udp", f"[{six}]:{first}:53/udp"]
    command = ["/usr/bin/perl", "-e", ECHO]
    await node.apply(web("alpha", routes=[], network=network, ports=ports, volumes=DEBIAN, cmd=command))
    await node.until_ready("alpha")
    await asyncio.to_thread(
        wait_for, lambda: "listening" in node.podman("logs", "alpha-web"), seconds=10, what="the server"
    )
    for address in (("127.0.0.1", first), ("127.0.0.2", second), (six, first)):
        assert await asyncio.to_thread(echoed, address) == b"hello"


def echoed(address: tuple[str, int]) -> bytes:
    """What comes back of a datagram."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.settimeout(5)
        client.sendto(b"hello", address)
        return client.recv(64)


def free_udp_port() -> int:
    """A port that nobody else has a socket at."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
