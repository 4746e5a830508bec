"""podman missing, dying, hanging and lying: nothing is lost, nothing doubled, and nothing is removed on hearsay."""

import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from api.conditions import ConditionType, Reason, Status
from api.service import Change
from stack import images
from tests.system import faults
from tests.system.agent.rig import Rig, is_ready
from tests.system.faults import FaultySocket

pytestmark = pytest.mark.system

RUNNING = ConditionType.CONTAINERS_RUNNING


@pytest.fixture
def rig(stopped: Rig, engine: FaultySocket) -> Rig:
    """A running agent whose podman may have bad days."""
    stopped.start_agent()
    return stopped


def readiness(rig: Rig) -> tuple[int, str]:
    """What /readyz says."""
    try:
        with urllib.request.urlopen(f"{rig.host.metrics_url}/readyz", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def test_unchanged_changes_nothing_and_asks_the_engine_for_nothing(rig: Rig, engine: FaultySocket) -> None:
    await rig.apply(rig.spec())
    await rig.until_event("ready")
    service, events = await rig.until_ready(), await rig.events()
    asked = len(engine.requests)
    applied = await rig.apply(rig.spec())
    assert (applied.change, applied.service, applied.fields) == (Change.UNCHANGED, service, ())
    assert await rig.events() == events
    assert [line for line in engine.requests[asked:] if not line.startswith("GET")] == []
    assert await rig.get() == service


async def test_a_podman_that_comes_late_is_waited_for(stopped: Rig, engine: FaultySocket) -> None:
    rig = stopped
    engine.stop()
    rig.start_agent()
    await rig.apply(rig.spec())
    condition = await rig.until_reason(RUNNING, Reason.ENGINE_UNREACHABLE)
    assert condition.status is Status.UNKNOWN
    status, sentence = readiness(rig)
    assert (status, sentence.startswith("podman: podman cannot be asked")) == (503, True)
    engine.start()
    await rig.until_ready()
    assert rig.answers()
    assert readiness(rig) == (200, "ok\n")


async def test_a_podman_that_dies_and_comes_back_costs_nothing(rig: Rig, engine: FaultySocket) -> None:
    await rig.apply(rig.spec())
    before = await rig.until_ready()
    started = rig.inspect("{{.Id}} {{.State.StartedAt}}")
    engine.stop()
    await rig.until_reason(RUNNING, Reason.ENGINE_UNREACHABLE)
    assert rig.answers()
    assert (await rig.get()).claims == before.claims
    engine.start()
    await rig.until_ready()
    assert rig.inspect("{{.Id}} {{.State.StartedAt}}") == started


async def test_a_podman_that_hangs_is_unknown_after_its_time_and_well_when_it_answers(
    rig: Rig, engine: FaultySocket
) -> None:
    await rig.apply(rig.spec())
    await rig.until_ready()
    with engine.misbehaving(".*", faults.hangs):
        engine.cut_connections()
        condition = await rig.until_reason(RUNNING, Reason.ENGINE_UNREACHABLE)
        assert condition.status is Status.UNKNOWN
        assert readiness(rig)[0] == 503
        assert rig.answers()
        assert [event.kind for event in await rig.events()].count("withdrew") == 0
    await rig.until_ready()
    assert rig.containers() == [rig.container]


@pytest.mark.parametrize("fault", [faults.fails_after_the_work, faults.breaks_off, faults.hangs_up])
@pytest.mark.parametrize("call", ["POST .*/containers/create", "POST .*/start", "DELETE .*/containers/"])
async def test_an_answer_that_is_lost_after_the_work_was_done(
    rig: Rig, engine: FaultySocket, call: str, fault: faults.Fault
) -> None:
    with engine.misbehaving(call, fault, times=1) as hits:
        await rig.apply(rig.spec())
        await rig.until_ready()
        await rig.apply(rig.spec(image=images.HELLO_NEXT))
        await rig.until_ready()
        rig.until_it_answers("mcp-hello v1.0.1")
        assert rig.containers() == [rig.container]
        await rig.delete()
        assert hits() == 1
    assert (rig.containers(), rig.files(), rig.table.hostnames()) == ([], [], [])


@pytest.mark.parametrize("listing", [b"[]x", b'{"cause":"?"}', b'[{"Id":"1"}]', b"null", b""])
async def test_nothing_is_removed_or_made_while_the_listing_is_garbage(
    rig: Rig, engine: FaultySocket, listing: bytes
) -> None:
    await rig.apply(rig.spec())
    await rig.until_ready()
    events, asked = await rig.events(), len(engine.requests)
    with engine.misbehaving("GET .*/containers/json", faults.says(listing)):
        engine.cut_connections()
        condition = await rig.until_reason(RUNNING, Reason.ENGINE_UNREACHABLE)
        assert condition.status is Status.UNKNOWN
        assert rig.answers()
        quiet = [event for event in await rig.events() if event.kind not in ("failed", "ready")]
        assert quiet == [event for event in events if event.kind not in ("failed", "ready")]
        assert [line for line in engine.requests[asked:] if line.startswith(("POST", "DELETE"))] == []
    await rig.until_ready()


@contextmanager
def late_image(rig: Rig) -> Iterator[str]:
    """The name of an image that there may be later; whatever became of it is gone afterwards."""
    image = f"localhost/mcp-late:{rig.name}"
    try:
        yield image
    finally:
        rig.remove_containers()
        rig.podman.run("untag", image, image, check=False)


async def test_an_image_that_is_nowhere_mends_itself_when_it_appears(rig: Rig) -> None:
    with late_image(rig) as image:
        await rig.apply(rig.spec(image=image))
        condition = await rig.until_reason(RUNNING, Reason.IMAGE_PULL_FAILED)
        assert (image in condition.message, "connection refused" in condition.message) == (True, True)
        rig.podman.run("tag", images.HELLO, image)
        await rig.until_ready()
        assert rig.answers()
        rig.host.stop_agent()


async def test_an_apply_fails_for_an_image_that_is_nowhere_and_applied_again_it_looks_at_once(rig: Rig) -> None:
    with late_image(rig) as image:
        failed = rig.host.mcp("apply", "-f", "-", text=definition(rig, image))
        assert (failed.returncode, "ImagePullFailed" in failed.stdout + failed.stderr) == (1, True)
        rig.podman.run("tag", images.HELLO, image)
        done = rig.host.mcp("apply", "-f", "-", text=definition(rig, image))
        assert (done.returncode, "unchanged" in done.stdout) == (0, True), done.stdout + done.stderr
        assert rig.answers()
        rig.host.stop_agent()


async def test_a_container_that_ends_at_once_backs_off_with_its_code_and_last_words(rig: Rig) -> None:
    await rig.apply(rig.spec(image=images.EXIT, env=["CODE=7"]))
    condition = await rig.until_reason(RUNNING, Reason.BACKING_OFF)
    assert "exited with 7" in condition.message
    assert "it last said: ending with 7" in condition.message
    condition = await rig.until_reason(RUNNING, Reason.CONTAINER_FAILED)
    assert "3 times in a row" in condition.message
    done = rig.host.mcp("status", rig.name)
    assert "exited with 7" in done.stdout


async def test_a_container_that_a_removal_left_half_is_made_anew(rig: Rig) -> None:
    await rig.apply(rig.spec())
    before = await rig.until_ready()
    rig.host.stop_agent()
    rig.podman.run("stop", "--time", "1", rig.container)
    shutil.rmtree(rig.podman.storage / "storage" / "overlay-containers" / before.components[0].container_id)
    rig.start_agent()
    lost = before.components[0].container_id
    await rig.until(lambda s: is_ready(s) and s.components[0].container_id not in (lost, ""))
    assert rig.containers() == [rig.container]
    rig.until_it_answers()


async def test_a_port_stolen_between_allocation_and_start_is_given_up(rig: Rig, engine: FaultySocket) -> None:
    with engine.misbehaving("POST .*/containers/create", faults.hangs):
        await rig.apply(rig.spec())
        port = (await rig.until(lambda s: bool(s.ports))).ports[0].port
        thief = socket.create_server(("127.0.0.1", port))
    with thief:
        service = await rig.until_ready()
    assert service.ports[0].port != port
    assert rig.answers()
    assert rig.containers() == [rig.container]


def definition(rig: Rig, image: str) -> str:
    """The TOML of `rig.spec(image=image)`."""
    return f"""
name = "{rig.name}"
[[components]]
name = "web"
image = "{image}"
[[components.routes]]
port = {rig.host.ports.listener}
mode = "l7"
"""
