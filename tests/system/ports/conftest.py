"""A whole agent that has two host ports to give, and what may be in the way of them."""

import random
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.spec import ServiceSpec
from reconcilers.ports.linux import is_bindable
from stack.layout import Layout
from stack.podman import PodmanHost
from tests.system.agent.rig import Rig, rig_on


@dataclass
class Pair:
    """An agent whose only ports for routes are `low` and the next one."""

    rig: Rig
    low: int

    def spec(self, name: str, routes: int = 1, *, active: bool = True, **component: object) -> ServiceSpec:
        """A service that needs so many ports."""
        keys = [f"r{number}" for number in range(routes)]
        wanted = [self.rig.route(name=key, hostname=f"{key}.{name}.test") for key in keys]
        spec = self.rig.spec(name, routes=wanted, **component)
        return spec.model_copy(update={"active": active})


@pytest.fixture(scope="module")
def shared(podman: PodmanHost) -> Iterator[Pair]:
    """One agent for all tests of a module; it is still to be started."""
    with tempfile.TemporaryDirectory(prefix="mcp-o") as folder, rig_on(podman, Layout(Path(folder) / "host")) as rig:
        yield Pair(rig, low=0)


@pytest.fixture
async def pair(shared: Pair) -> AsyncIterator[Pair]:
    """The agent, which has no services and two ports that nobody has."""
    if shared.low == 0 or not (is_bindable(shared.low) and is_bindable(shared.low + 1)):
        # What is left in TIME_WAIT stays so for a minute.
        shared.rig.host.stop_agent()
        shared.low = free_row(2)
        shared.rig.start_agent(MCP_PORTS_LOW=str(shared.low), MCP_PORTS_HIGH=str(shared.low + 1))
    yield shared
    async with shared.rig.client() as client:
        left = [service.name for service in await client.services()]
    for service in left:
        await shared.rig.delete(service)


@pytest.fixture
def name() -> str:
    """A service's name that no other test uses."""
    return f"p{secrets.token_hex(3)}"


def free_row(length: int) -> int:
    """The first of so many ports in a row that nobody has and the kernel does not give to connections."""
    while True:
        low = random.randrange(20000, 32000)
        if all(is_bindable(port) for port in range(low, low + length)):
            return low


@contextmanager
def listening(port: int) -> Iterator[None]:
    """Somebody listens on the port."""
    with socket.create_server(("127.0.0.1", port)):
        yield


@contextmanager
def connected_from(port: int) -> Iterator[None]:
    """Somebody's outgoing connection has the port."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.bind(("127.0.0.1", port))
        client.connect(server.getsockname())
        yield


def leave_in_time_wait(port: int) -> None:
    """Has the port in TIME_WAIT for the minute to come: the listener's side closed its connection first."""
    with socket.create_server(("127.0.0.1", port)) as server, socket.create_connection(("127.0.0.1", port)) as client:
        accepted, _ = server.accept()
        accepted.close()
        assert client.recv(1) == b""
