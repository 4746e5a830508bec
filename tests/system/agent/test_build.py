"""Images that are built on a workstation, pushed to a registry, and brought from there to a node."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.host import ZONE
from stack.podman import PodmanHost
from stack.registry import ImageRegistry, image_registry
from tests.system.conftest import HostMaker

pytestmark = pytest.mark.system

DOCKERFILE = """\
FROM scratch
COPY busybox /bin/busybox
ARG VERSION=dev
RUN ["/bin/busybox", "sh", "-c", "echo shop ${VERSION} > /index.html"]
CMD ["/bin/busybox", "sh", "-c", "trap 'exit 0' TERM; /bin/busybox httpd -f -p 0.0.0.0:$PORT -h / & wait"]
"""
ENDLESS = """\
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "sh", "-c", "echo under way; /bin/busybox sleep 98765"]
"""


@pytest.fixture(scope="module")
def registry() -> Iterator[ImageRegistry]:
    with image_registry() as registry:
        yield registry


class Workstation:
    """Where the sources and the definition of a service are, and a podman to build with."""

    def __init__(self, folder: Path, podman: list[str], registry: ImageRegistry, agent: Path) -> None:
        self.config = folder / "mcp.toml"
        self.config.write_text(f"""\
nodes.there.address = "unix://{agent}"
[build]
workspace = "src"
registry = "{registry.address}"
tls_verify = false
podman = {json.dumps(podman)}
""")
        self.sources = folder / "src" / "shop"
        self.sources.mkdir(parents=True)
        busybox = shutil.which("busybox", path=f"{os.defpath}:/usr/sbin:/sbin")
        assert busybox
        shutil.copy(busybox, self.sources)
        (self.sources / "Dockerfile").write_text(DOCKERFILE)
        self.definition = folder / "services" / "shop.toml"
        self.definition.parent.mkdir()

    def define(self, image: str, port: int = 8443) -> None:
        """Writes the definition, whose image is to be that one."""
        self.definition.write_text(f"""\
name = "shop"
[build.images]
{image.rpartition("/")[2].partition(":")[0]} = "Dockerfile"
[[components]]
name = "web"
image = "{image}"
volumes = []
[[components.routes]]
port = {port}
mode = "l7"
""")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts a command."""
        command = [Path(sys.executable).parent / "mcp", *arguments, "--config", self.config]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def mcp(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        """What a command prints and what it complains about, its exit status checked."""
        with self.start(*arguments) as ran:
            stdout, stderr = ran.communicate(timeout=60)
        assert ran.returncode == status, stderr
        return stdout, stderr


@pytest.fixture
def workstation(folder: Path, registry: ImageRegistry, podman: PodmanHost) -> Workstation:
    return Workstation(folder, podman.words, registry, folder / "nobody.sock")


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mcp-w") as path:
        yield Path(path)


def test_an_image_is_built_and_pushed_once(
    workstation: Workstation, registry: ImageRegistry, podman: PodmanHost
) -> None:
    name, reference = "once:v1", f"{registry.address}/once:v1"
    workstation.define(reference)
    planned, _ = workstation.mcp("build", "shop", "--dry-run")
    assert planned == f"{reference} would be built from {workstation.sources}/Dockerfile and pushed\n"
    report, steps = workstation.mcp("build", "shop", "-o", "json")
    assert "STEP 4/5: RUN" in steps
    (image,) = json.loads(report)["images"]
    assert (image["image"], image["outcome"], image["digest"]) == (reference, "pushed", registry.digest(name))
    assert workstation.mcp("build", "shop") == (f"{reference} exists already\n", "")
    (workstation.sources / "Dockerfile").write_text(DOCKERFILE + "COPY Dockerfile /new\n")
    assert workstation.mcp("build", "shop", "--rebuild", "-q") == ("", "")
    assert registry.digest(name) != image["digest"]
    # Where there is no registry, what podman holds here is what counts.
    workstation.define("localhost/once:v1")
    assert workstation.mcp("build", "shop")[0].startswith("localhost/once:v1 built in ")
    assert workstation.mcp("build", "shop") == ("localhost/once:v1 exists already\n", "")
    podman.run("rmi", "localhost/once:v1", reference)


def test_what_cannot_be_asked_is_not_built(workstation: Workstation, podman: PodmanHost) -> None:
    workstation.define("localhost:1/unasked:v1")
    for command in (["build", "shop"], ["deploy", "shop", "--build"]):
        stdout, stderr = workstation.mcp(*command, status=5)
        assert stdout == ""
        assert stderr.startswith("mcp: localhost:1/unasked:v1 is not built: whether it exists already is not known: ")
        assert stderr.endswith("connection refused\n")
    assert "unasked" not in podman.run("images")


def test_a_build_that_fails_shows_why_even_when_it_is_quiet(workstation: Workstation) -> None:
    workstation.define("localhost/failing:v1")
    (workstation.sources / "Dockerfile").write_text("FROM scratch\nCOPY nothing /\n")
    _, stderr = workstation.mcp("build", "shop", "-q", status=1)
    assert stderr.startswith("mcp: localhost/failing:v1 is not built: podman build ended with status ")
    assert "nothing" in stderr


def test_deploying_builds_what_is_missing_and_the_node_pulls_it(
    make_host: HostMaker, folder: Path, registry: ImageRegistry, rootless_podman: PodmanHost
) -> None:
    host = make_host(f'[registries."{registry.address}"]\ntls_verify = false\n')
    workstation = Workstation(folder, ["podman", "--url", rootless_podman.url], registry, host.agent_socket)
    reference = f"{registry.address}/shop:v1"
    workstation.define(reference, host.ports.listener)
    stdout, _ = workstation.mcp("deploy", "shop", "--build")
    assert stdout.startswith(f"{reference} built and pushed in ")
    assert host.fetch(f"shop.svc.{ZONE}") == "shop v1\n"
    for command in (["deploy", "shop"], ["sync"]):
        stdout, _ = workstation.mcp(*command, "--build")
        assert stdout.startswith(f"{reference} exists already\nshop unchanged\n")
    workstation.mcp("undeploy", "shop")


def test_an_interrupt_ends_the_build_with_all_that_it_runs(workstation: Workstation, registry: ImageRegistry) -> None:
    workstation.define(f"{registry.address}/endless:v1")
    (workstation.sources / "Dockerfile").write_text(ENDLESS)
    with workstation.start("build", "shop") as build:
        assert build.stderr
        assert any(line.strip() == "under way" for line in build.stderr)
        build.send_signal(signal.SIGINT)
        # Read to its end: nothing that the build ran holds it any more.
        assert build.stderr.read() == f"interrupted: {registry.address}/endless:v1 is not pushed\n"
        assert build.wait(20) == 130
