"""A fresh host that is reached over TCP, and a fresh workstation."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack import web
from stack.layout import Layout
from stack.podman import PodmanHost
from tests.system.agent.rig import Rig, rig_on
from tests.system.day.workstation import Workstation


@pytest.fixture
def rig(podman: PodmanHost) -> Iterator[Rig]:
    """A host whose agent listens for workstations."""
    with tempfile.TemporaryDirectory(prefix="mcp-d") as folder, rig_on(podman, Layout(Path(folder) / "host")) as rig:
        rig.variables = {"MCP_API_LISTEN": f"127.0.0.1:{web.free_port()}"}
        rig.start_agent()
        yield rig


@pytest.fixture
def workstation(tmp_path: Path) -> Workstation:
    """Knows nothing yet."""
    return Workstation(tmp_path)
