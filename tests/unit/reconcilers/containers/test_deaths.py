"""Real processes end, and their container is told of."""

import asyncio
import subprocess
from pathlib import Path

from reconcilers.containers.watching.deaths import Deaths, end_left_behind, end_session
from tests.unit.reconcilers.containers.conftest import Starter


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_each_death_is_told_once_and_at_once(start: Starter) -> None:
    told: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()
    deaths = Deaths(lambda *death: told.put_nowait(death))
    one, other = start(), start()
    deaths.follow({"one": one.pid, "other": other.pid})
    one.kill()
    async with asyncio.timeout(1):
        assert await told.get() == ("one", False)
    # A listing that lags behind names the dead process still.
    deaths.follow({"one": one.pid, "other": other.pid})
    other.kill()
    async with asyncio.timeout(1):
        assert await told.get() == ("other", False)
    deaths.close()
    assert told.empty()


async def test_a_process_that_ended_before_it_was_watched_is_told_too(start: Starter) -> None:
    told: list[tuple[str, bool]] = []
    process = start()
    process.kill()
    process.wait()
    Deaths(lambda *death: told.append(death)).follow({"late": process.pid})
    assert told == [("late", False)]


async def test_what_is_not_followed_any_more_is_not_told_and_holds_no_descriptor(start: Starter) -> None:
    told: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()
    deaths = Deaths(lambda *death: told.put_nowait(death))
    gone, kept = start(), start()
    before = descriptors()
    deaths.follow({"gone": gone.pid, "kept": kept.pid})
    deaths.follow({"kept": kept.pid})
    assert descriptors() == before + 1
    gone.kill()
    kept.kill()
    async with asyncio.timeout(1):
        assert await told.get() == ("kept", False)
    assert told.empty()
    assert descriptors() == before


async def test_a_process_that_is_not_certainly_the_containers_own_is_never_killed(start: Starter) -> None:
    told: list[tuple[str, bool]] = []
    deaths = Deaths(lambda *death: told.append(death))
    process = start()
    deaths.follow({"web": process.pid})
    assert not deaths.end("web")
    assert not deaths.end("nobody")
    assert end_left_behind("0" * 64) == 0
    assert process.poll() is None
    deaths.close()


async def test_a_restarted_container_is_watched_under_its_new_process(start: Starter) -> None:
    told: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()
    deaths = Deaths(lambda *death: told.put_nowait(death))
    first, second = start(), start()
    deaths.follow({"web": first.pid})
    deaths.follow({"web": second.pid})
    first.kill()
    second.kill()
    async with asyncio.timeout(1):
        assert await told.get() == ("web", False)
    assert told.empty()


def test_a_session_ends_with_all_that_it_started_and_nothing_else(start: Starter) -> None:
    bystander = start()
    group = Path(f"/proc/{bystander.pid}/cgroup").read_text().splitlines()[-1]
    command = ["sh", "-c", "sleep 600 & echo; wait"]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE) as leader:
        assert leader.stdout is not None
        leader.stdout.readline()
        assert end_session("0" * 64, leader.pid) == 0
        assert end_session(group, leader.pid) == 2
        # Its pipe is closed by the last of them.
        assert leader.stdout.read() == b""
    assert bystander.poll() is None
