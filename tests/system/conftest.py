"""Real podman hosts for the system tests, each with storage, networks and sockets of its own."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from stack import images
from stack.host import Host, temporary_host
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


HostMaker = Callable[..., Host]


@pytest.fixture
def make_host(podman: PodmanHost) -> Iterator[HostMaker]:
    """Makes whole hosts on the shared podman: `make_host(settings="[restarts]\\nfirst_seconds = 1\\n")`."""
    with ExitStack() as hosts:

        def make(settings: str = "", engine: PodmanHost = podman) -> Host:
            folder = hosts.enter_context(tempfile.TemporaryDirectory(prefix="mcp-h"))
            return hosts.enter_context(temporary_host(Layout(Path(folder) / "host"), engine, settings))

        yield make


@pytest.fixture
def host(make_host: HostMaker) -> Host:
    """A proxy and an agent of this test's own, with a node, a network and ports that nobody else has."""
    return make_host()


@pytest.fixture
def rootless_host(make_host: HostMaker, rootless_podman: PodmanHost) -> Host:
    """The same over a rootless podman."""
    return make_host(engine=rootless_podman)
