"""One node for each test, on the podman that all tests share."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from stack.podman import PodmanHost
from tests.system.containers.node import Node, running_node


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of the test's own; what a container owns in it goes with it."""
    with tempfile.TemporaryDirectory(prefix="mcp-c") as path:
        folder = Path(path)
        # An account that runs rootless containers has to reach their volumes.
        folder.chmod(0o755)
        yield folder


@pytest.fixture
async def node(podman: PodmanHost, folder: Path) -> AsyncIterator[Node]:
    """A rootful node (where the tests run as root)."""
    async with running_node(podman, folder) as running:
        yield running
        await running.delete_all()
