"""The command line on a terminal: a real one, made of a pseudo-terminal."""

import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from api.conditions import ConditionType, Reason, Status
from tests.terminal import Terminal
from tests.terminal import terminal as of_size
from tests.unit.cli.inspection import line
from tests.unit.cli.plane import STEPS, Mcp
from tests.unit.cli.test_apply import HELLO


@asynccontextmanager
async def terminal(
    mcp: Mcp, *arguments: str, size: tuple[int, int] = (120, 40), **environment: str
) -> AsyncIterator[Terminal]:
    command = [sys.executable, "-m", "cli.main", *arguments]
    variables = mcp.environment | {"PYTHONPATH": str(Path.cwd())} | environment
    async with of_size(command, variables, mcp.folder, size) as screen:
        yield screen


async def test_apply_draws_each_condition_as_it_turns_true(mcp: Mcp) -> None:
    mcp.plane.behaviour = "stall"
    async with terminal(mcp, "apply", "-f", mcp.write("hello.toml", HELLO)) as screen:
        await screen.until("✓ ports  ✓ certs  ✓ files  ✓ containers  … routes")
        await screen.until("WaitingForContainer: not answering")
        mcp.plane.turn("hello", ConditionType.ROUTES_PROGRAMMED)
        mcp.plane.turn("hello", ConditionType.READY)
        assert await screen.end() == 0
    assert screen.text.index("hello created (generation 1)") < screen.text.index("✓ ports")
    assert re.search(r"✓ routes .*\nhello ready in [\d.]+s\n$", screen.text)
    assert "\x1b[?25h" in screen.drawn, "the cursor is shown again"


async def test_a_failed_apply_ends_with_the_reason(mcp: Mcp) -> None:
    mcp.plane.behaviour = "fail"
    async with terminal(mcp, "apply", "-f", mcp.write("hello.toml", HELLO)) as screen:
        assert await screen.end() == 1
    assert "✗ containers" in screen.text
    assert screen.text.endswith("hello failed: ContainersRunning: ImagePullFailed: no such image hello:v9\n")


async def test_ctrl_c_leaves_the_rollout_going_and_the_terminal_as_it_was(mcp: Mcp) -> None:
    mcp.plane.behaviour = "stall"
    async with terminal(mcp, "apply", "-f", mcp.write("hello.toml", HELLO)) as screen:
        await screen.until("… routes")
        screen.press(b"\x03")
        assert await screen.end() == 130
    assert screen.text.endswith("interrupted: the rollout of hello goes on; mcp status hello shows it\n")
    assert screen.drawn.rindex("\x1b[?25h") > screen.drawn.rindex("\x1b[?25l")


async def test_a_narrow_terminal_is_told_by_signs_alone(mcp: Mcp) -> None:
    mcp.plane.behaviour = "stall"
    async with terminal(mcp, "apply", "-f", mcp.write("hello.toml", HELLO), size=(40, 24)) as screen:
        await screen.until("hello  ✓✓✓✓…  0.")
        await screen.until("WaitingForC")
        mcp.plane.converge("hello")
        assert await screen.end() == 0
    assert "✓✓✓✓✓" in screen.text
    assert "\x1b[1A" not in screen.drawn, "a line that is too long would take two"


async def test_a_terminal_may_change_its_size_meanwhile(mcp: Mcp) -> None:
    mcp.plane.behaviour = "stall"
    async with terminal(mcp, "apply", "-f", mcp.write("hello.toml", HELLO), size=(40, 24)) as screen:
        await screen.until("✓✓✓✓…")
        screen.resize(140, 30)
        await screen.until("✓ containers  … routes")
        mcp.plane.converge("hello")
        assert await screen.end() == 0


async def test_more_services_than_lines_are_counted_and_those_on_their_way_are_shown(mcp: Mcp) -> None:
    mcp.plane.behaviour = "stall"
    folder = mcp.folder / "many"
    folder.mkdir()
    names = [f"s{number:02}" for number in range(30)]
    for name in names:
        (folder / f"{name}.toml").write_text(HELLO.replace('"hello"', f'"{name}"', 1))
    async with terminal(mcp, "apply", "-f", "many", size=(100, 12)) as screen:
        await screen.until("and 20 more: 20 on the way")
        for name in names[:15]:
            mcp.plane.converge(name)
        await screen.until("and 20 more: 5 on the way, 15 done")
        for name in names[15:]:
            mcp.plane.converge(name)
        assert await screen.end() == 0
    assert screen.text.count("s29 ready in ") == 1
    # Each picture is drawn over the one before, and so is not higher than the terminal.
    steps_up = [run.count("A") for run in re.findall(r"(?:\x1b\[1A(?:\x1b\[2K)?)+", screen.drawn)]
    assert 5 < max(steps_up) < 12


async def test_watch_shows_changes_on_a_screen_of_its_own(mcp: Mcp) -> None:
    await mcp("apply", "-q", "-f", mcp.write("hello.toml", HELLO))
    async with terminal(mcp, "watch") as screen:
        await screen.until("running")
        mcp.plane.converge("hello", STEPS)
        mcp.plane.put(mcp.plane.registry["hello"].model_copy(update={"name": "second"}))
        await screen.until("second")
        screen.press(b"\x03")
        assert await screen.end() == 130
    assert screen.drawn.startswith("\x1b[?1049h")
    assert "\x1b[?1049l" in screen.drawn


async def test_watch_shows_of_many_services_those_that_are_not_ready(mcp: Mcp) -> None:
    await mcp("apply", "-q", "-f", mcp.write("hello.toml", HELLO))
    for number in range(30):
        mcp.plane.put(mcp.plane.registry["hello"].model_copy(update={"name": f"s{number:02}"}))
    mcp.plane.turn("s29", ConditionType.READY, Status.FALSE, Reason.PENDING, "waits for nobody knows what")
    async with terminal(mcp, "watch", size=(120, 12)) as screen:
        await screen.until("waits for nobody knows what")
        assert "and 21 more" in screen.text
        screen.resize(120, 50)
        await screen.until("s28")
        screen.press(b"\x03")
        assert await screen.end() == 130


async def test_colours_are_left_out_where_they_are_not_wanted(mcp: Mcp) -> None:
    async with terminal(mcp, "apply", "-f", mcp.write("hello.toml", HELLO), NO_COLOR="1") as screen:
        assert await screen.end() == 0
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", screen.drawn)


async def test_a_dumb_terminal_gets_plain_lines(mcp: Mcp) -> None:
    async with terminal(mcp, "apply", "-f", mcp.write("hello.toml", HELLO), TERM="dumb") as screen:
        assert await screen.end() == 0
    assert "\x1b" not in screen.drawn
    assert "hello routes ready in" in screen.drawn


async def test_status_of_one_service_goes_on_below_its_own_beginning_on_a_narrow_terminal(mcp: Mcp) -> None:
    await mcp("apply", "-q", "-f", "-", stdin=HELLO)
    async with terminal(mcp, "status", "hello", size=(40, 24), NO_COLOR="1") as screen:
        assert await screen.end() == 0
    lines = [line.rstrip() for line in screen.text.splitlines()]
    assert all(len(line) <= 40 for line in lines)
    start = next(index for index, line in enumerate(lines) if line.startswith("routes  hello.svc."))
    assert lines[start + 1].startswith("        ")
    assert "\x1b[3" not in screen.drawn


async def test_status_and_events_are_coloured_and_go_on_below_their_own_beginning(mcp: Mcp) -> None:
    await mcp("apply", "-q", "-f", "-", stdin=HELLO)
    mcp.plane.note("hello", "failed", "ContainerFailed: " + "it exited with 1, " * 8)
    async with terminal(mcp, "status", "hello", size=(80, 24)) as screen:
        assert await screen.end() == 0
    assert "\x1b[32mhello on rift: ready" in screen.drawn
    assert "\x1b[2mgeneration 1" in screen.drawn
    async with terminal(mcp, "events", "hello", size=(80, 24)) as screen:
        assert await screen.end() == 0
    first, second, *_ = screen.text.splitlines()
    assert re.match(r"\d\d-\d\d \d\d:\d\d:\d\d  containers failed ContainerFailed: it", first)
    assert re.match(r" {16}\S", second)


async def test_usage_is_a_live_screen_until_interrupted(mcp: Mcp) -> None:
    async with terminal(mcp, "top") as screen:
        await screen.until("12.5%")
        screen.press(b"\x03")
        assert await screen.end() == 130


async def test_each_component_has_a_colour_of_its_own_unless_nobody_wants_any(mcp: Mcp) -> None:
    mcp.write("hello.toml", HELLO + '[[components]]\nname = "db"\nimage = "localhost/db:v1"\n')
    assert (await mcp("apply", "-f", "hello.toml")).status == 0
    mcp.plane.seen.lines = [line("one"), line("two", "db")]
    async with terminal(mcp, "logs", "hello") as screen:
        assert await screen.end() == 0
        assert "\x1b[36mweb | \x1b[0mone" in screen.drawn
        assert "\x1b[33mdb  | \x1b[0mtwo" in screen.drawn
    async with terminal(mcp, "logs", "hello", NO_COLOR="1") as screen:
        await screen.end()
        assert screen.drawn.splitlines() == ["web | one", "db  | two"]
