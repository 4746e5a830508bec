"""The registry on both databases."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from controller.registry import Registry, RegistryChange, Subscription


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    """A place for an SQLite database."""
    return sqlite_url(tmp_path)


def sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder}/state/registry.db"


@pytest.fixture
async def registry(url: str) -> AsyncIterator[Registry]:
    """The registry of node `rift`, closed afterwards."""
    registry = await Registry.open(url, "rift")
    yield registry
    await registry.close()


@pytest.fixture
async def changes(registry: Registry) -> AsyncIterator[Callable[[], Awaitable[list[RegistryChange]]]]:
    """What subscribers were told since the last look."""
    async with registry.subscribe() as subscription:
        yield lambda: pending(subscription)


async def pending(subscription: Subscription) -> list[RegistryChange]:
    """All that a subscription holds now, without waiting for more."""
    told = []
    while True:
        look = asyncio.ensure_future(anext(subscription))
        # What is there is returned within one turn of the loop.
        await asyncio.sleep(0)
        if not look.done():
            look.cancel()
            return told
        told.append(look.result())
