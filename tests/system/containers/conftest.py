"""One node for each test, on the podman that all tests share."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from api.service import Finalizer
from stack.podman import PodmanHost
from tests.system.containers.node import Node, running_node


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of the test's own; what a container owns in it goes with it."""
    with tempfile.TemporaryDirectory(prefix="mcp-c") as path:
        yield Path(path)


@pytest.fixture
async def node(podman: PodmanHost, folder: Path) -> AsyncIterator[Node]:
    """A rootful node (where the tests run as root)."""
    async with running_node(podman, folder) as running:
        yield running
        for service in await running.registry.services():
            if Finalizer.CONTAINERS in service.finalizers:
                await running.delete(service.name)
                await running.until_containers_gone(service.name)
