"""mcproxyd over a real HAProxy, with certificates of a test CA."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.system.mcproxy.authority import Authority
from tests.system.mcproxy.daemon import Daemon


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="mcx") as path:
        yield Path(path)


@pytest.fixture
def authority(folder: Path) -> Authority:
    certs = folder / "certs"
    certs.mkdir()
    return Authority(certs)


@pytest.fixture
async def daemon(folder: Path) -> AsyncIterator[Daemon]:
    """A running mcproxyd with two listeners, drained for at most a second."""
    daemon = Daemon(folder, ("", ""), head="shutdown_timeout = 1.0")
    await daemon.start()
    yield daemon
    await daemon.end()
    assert daemon.haproxy_pids() == []
