"""An agent made of memory, and the command that talks to it."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.unit.cli.plane import Mcp, Plane, served


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="mcp-") as path:
        yield Path(path)


@pytest.fixture
def offline(folder: Path) -> Mcp:
    """The command, with settings for an agent that is not there."""
    mcp = Mcp(folder, Plane())
    mcp.config.write_text(f'[nodes.rift]\naddress = "{mcp.address}"\n')
    return mcp


@pytest.fixture
async def mcp(offline: Mcp) -> AsyncIterator[Mcp]:
    """The command and its agent."""
    async with served(offline.plane, offline.address):
        yield offline
