"""What every test of the machinery has to keep to."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.registry import Registry


@pytest.fixture(autouse=True)
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Fails a test after which tasks are left: whoever starts one sees to its end."""
    yield
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        # One that was cancelled may need a turn to end.
        _, left = await asyncio.wait(left, timeout=0.05)
    for task in left:
        task.cancel()
    assert not left, f"tasks are left: {', '.join(str(task.get_coro()) for task in left)}"


@pytest.fixture
async def lite(tmp_path: Path) -> AsyncIterator[Registry]:
    """The registry of node `rift` on SQLite, where the kind of database does not matter."""
    registry = await Registry.open(f"sqlite:///{tmp_path}/registry.db", "rift")
    yield registry
    await registry.close()
