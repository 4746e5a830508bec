"""The same over a rootless podman; as root, that of an account which exists only for these tests."""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack import images, processes
from stack.layout import Layout
from stack.podman import PodmanHost
from tests.system.agent.rig import Rig, restarted, rig_on

pytestmark = pytest.mark.system


@pytest.fixture
def rootless(rootless_podman: PodmanHost) -> Iterator[Rig]:
    """A host over a rootless podman, its agent running."""
    with tempfile.TemporaryDirectory(prefix="mcp-a") as folder:
        layout = Layout(Path(folder) / "host")
        with rig_on(rootless_podman, layout) as rig:
            rig.start_agent()
            yield rig


async def test_the_whole_story_without_root(rootless: Rig) -> None:
    rig = rootless
    await rig.apply(rig.spec(volumes=[]))
    before = await rig.until_ready()
    assert rig.answers()

    process = processes.identify(int(rig.inspect("{{.State.Pid}}")))
    assert process is not None
    processes.end(process, sig=signal.SIGKILL)
    await rig.until(restarted(before))
    rig.until_it_answers()

    before = await rig.get()
    rig.podman.run("rm", "--force", "--time", "0", rig.container)
    await rig.until(restarted(before))
    rig.until_it_answers()

    await rig.apply(rig.spec(volumes=[], image=images.HELLO_NEXT))
    await rig.until_ready()
    rig.until_it_answers("mcp-hello v1.0.1")

    await rig.delete()
    assert (rig.containers(), rig.files(), rig.table.hostnames()) == ([], [], [])
