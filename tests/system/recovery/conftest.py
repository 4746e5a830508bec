"""Whole hosts whose agent keeps its registry in either database."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.layout import Layout
from stack.podman import PodmanHost
from tests.system.agent.rig import Rig, rig_on


@pytest.fixture
def rig(podman: PodmanHost) -> Iterator[Rig]:
    """A host whose agent runs."""
    with tempfile.TemporaryDirectory(prefix="mcp-r") as folder, rig_on(podman, Layout(Path(folder) / "host")) as rig:
        rig.start_agent()
        yield rig


@pytest.fixture(params=["sqlite", "postgresql"])
def any_rig(podman: PodmanHost, request: pytest.FixtureRequest) -> Iterator[Rig]:
    """The same on either database."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    with tempfile.TemporaryDirectory(prefix="mcp-r") as folder, rig_on(podman, Layout(Path(folder) / "host")) as rig:
        rig.variables = {"MCP_REGISTRY_URL": url} if url else {}
        rig.start_agent()
        yield rig


@pytest.fixture
def disk() -> Iterator[Path]:
    """Another disk, which outlives the host's."""
    with tempfile.TemporaryDirectory(prefix="mcp-k") as folder:
        yield Path(folder) / "snapshots"
