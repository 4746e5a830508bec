"""Hosts for the tests of a whole agent."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.layout import Layout
from stack.podman import PodmanHost
from tests.system.agent.rig import Rig, rig_on
from tests.system.faults import FaultySocket


@pytest.fixture
def stopped(podman: PodmanHost) -> Iterator[Rig]:
    """A host whose agent is still to be started."""
    with tempfile.TemporaryDirectory(prefix="mcp-a") as folder, rig_on(podman, Layout(Path(folder) / "host")) as rig:
        yield rig


@pytest.fixture
def rig(stopped: Rig) -> Rig:
    """A host whose agent runs."""
    stopped.start_agent()
    return stopped


@pytest.fixture
def engine(stopped: Rig) -> Iterator[FaultySocket]:
    """What the agent of `stopped` takes for podman once it is started."""
    faulty = FaultySocket(stopped.host.layout.run / "faulty.sock", stopped.podman.socket)
    stopped.variables = {"MCP_PODMAN_SOCKET": str(faulty.path)}
    faulty.start()
    yield faulty
    stopped.host.stop_agent()
    faulty.stop()
