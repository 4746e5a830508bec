"""Real podman hosts for the system tests, each with storage, networks and sockets of its own."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack import images
from stack.layout import Layout
from stack.podman import PodmanHost, podman_host
from stack.users import rootless_layout


@pytest.fixture(scope="session")
def podman() -> Iterator[PodmanHost]:
    """A podman with our images, rootful when we are root. All tests share it: name what you make uniquely."""
    with tempfile.TemporaryDirectory(prefix="mcp-p") as folder, podman_host(Layout(Path(folder))) as host:
        images.build(host)
        yield host


@pytest.fixture(scope="session")
def rootless_podman() -> Iterator[PodmanHost]:
    """A rootless podman with our images; as root, that of an account which exists only for these tests."""
    with rootless_layout() as layout, podman_host(layout) as host:
        images.build(host)
        yield host
