"""A registry that cannot be written: said clearly, nothing half-written, and all is well once it can be again."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from api.errors import RegistryUnavailable
from stack import images
from tests.system.agent.rig import Rig

pytestmark = pytest.mark.system


async def test_a_full_disk_is_one_sentence_and_costs_nothing(rig: Rig) -> None:
    await rig.apply(rig.spec())
    await rig.until_ready()
    before = await rig.get()
    with full_disk(rig):
        for name in (rig.name, f"n{rig.name}"):
            with pytest.raises(RegistryUnavailable, match=r"registry\.db"):
                await rig.apply(rig.spec(name, image=images.HELLO_NEXT, env=[f"LONG={'x' * 100_000}"]))
        done = rig.host.mcp("delete", rig.name)
        assert (done.returncode, "registry.db" in done.stderr) == (4, True)
        async with rig.client() as client:
            assert await client.services() == (before,)
        assert rig.answers()
    rig.podman.run("rm", "--force", "--time", "0", rig.container)
    await rig.apply(rig.spec(image=images.HELLO_NEXT))
    assert (await rig.until_ready()).generation == 2
    rig.until_it_answers("mcp-hello v1.0.1")


async def test_drift_on_a_full_disk_is_corrected_all_the_same(rig: Rig) -> None:
    await rig.apply(rig.spec())
    await rig.until_ready()
    with full_disk(rig):
        rig.podman.run("stop", "--time", "1", rig.container, check=False)  # it may run again before it is told
        rig.until_it_answers()
    await rig.until_ready()


@contextmanager
def full_disk(rig: Rig) -> Iterator[None]:
    """No file of the agent's can grow, as if its disk were full."""
    pid = rig.host.agent.pid
    state = rig.host.layout.root / "agent"
    sizes = [path.stat().st_size for path in (*state.glob("registry.db*"), rig.host.layout.log / "mcp-agent.log")]
    _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (max(sizes), most))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))
