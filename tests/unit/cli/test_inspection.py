"""What commands show of what only the node can see."""

import asyncio
import json
import stat
from datetime import UTC, datetime, timedelta

import pytest

from api.errors import NotFound, Refused
from api.inspection import ALL_LINES, Finding, FindingState, LogLine, LogStream
from tests.unit.cli.inspection import AT, line
from tests.unit.cli.plane import Mcp

HELLO = """
name = "hello"
[[components]]
name = "web"
image = "localhost/hello:v1"
[[components]]
name = "db"
image = "localhost/db:v1"
"""


@pytest.fixture
async def hello(mcp: Mcp) -> Mcp:
    mcp.write("hello.toml", HELLO)
    assert (await mcp("apply", "-f", "hello.toml")).status == 0
    return mcp


async def test_lines_stand_behind_their_components_and_steer_no_terminal(hello: Mcp) -> None:
    raw = LogLine(component="db", container="hello-db", stream=LogStream.STDERR, at=AT, text=b"\x1b[31mred\xff\x07")
    hello.plane.seen.lines = [line("one"), raw]
    ran = await hello("logs", "hello")
    assert ran.lines == ["web | one", "db  | red��"]
    assert (await hello("logs", "-t", "hello")).lines[0] == "web | 2026-11-25T09:36:00Z one"
    (query, _) = hello.plane.seen.queries
    assert (query.lines, query.follow, query.since, query.component) == (100, False, None, "")


async def test_one_component_needs_no_label(hello: Mcp) -> None:
    hello.plane.seen.lines = [line("one")]
    assert (await hello("logs", "hello/web", "-n", "5", "--since", "10m")).lines == ["one"]
    (query,) = hello.plane.seen.queries
    assert (query.component, query.lines) == ("web", 5)
    assert query.since is not None
    assert timedelta(minutes=9) < datetime.now(UTC) - query.since < timedelta(minutes=11)
    await hello("logs", "hello", "--since", "2026-11-25T09:00+00:00")
    assert hello.plane.seen.queries[-1].since == datetime(2026, 11, 25, 9, tzinfo=UTC)


async def test_lines_for_programs_have_all_that_is_known(hello: Mcp) -> None:
    hello.plane.seen.lines = [line("one")]
    assert json.loads((await hello("logs", "hello", "-o", "json")).stdout) == {
        "component": "web",
        "container": "hello-web",
        "stream": "stdout",
        "at": "2026-11-25T09:36:00Z",
        "text": "one",
    }


async def test_to_follow_ends_with_the_service(hello: Mcp) -> None:
    hello.plane.seen.lines = [line("one")]
    process = await hello.start("logs", "-f", "hello", PYTHONUNBUFFERED="1")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"web | one\n"
    hello.plane.seen.gone.set()
    async with asyncio.timeout(10):
        _, errors = await process.communicate()
    assert (process.returncode, errors.decode()) == (0, 'mcp: service "hello" is gone\n')
    assert hello.plane.seen.queries[0].lines < ALL_LINES


async def test_what_cannot_be_shown_is_said_in_one_sentence(hello: Mcp) -> None:
    ran = await hello("logs", "nobody")
    assert (ran.status, ran.stderr) == (5, f"mcp: {NotFound.service('nobody', 'rift').message}\n")
    hello.plane.seen.refusal = NotFound('service "hello" has no component "x", only web, db')
    ran = await hello("logs", "hello/x")
    assert (ran.status, ran.stderr) == (5, 'mcp: service "hello" has no component "x", only web, db\n')
    ran = await hello("logs", "hello", "--since", "yesterday")
    assert ran.status == 2
    assert "neither a time such as 2026-11-25T09:00 nor a span such as 10m" in ran.stderr


async def test_usage_is_one_look_in_a_pipe(hello: Mcp) -> None:
    ran = await hello("top")
    assert [row.split() for row in ran.lines] == [
        ["CONTAINER", "OWNER", "CPU", "MEMORY", "LIMIT", "PIDS", "RECEIVED", "SENT"],
        ["hello-web", "mcp", "12.5%", "45M", "512M", "3", "1.5K", "12B"],
        ["a�[31m", "foreign", "1.0%", *["unknown"] * 5],
    ]
    assert len((await hello("top", "hello")).lines) == 2
    report = json.loads((await hello("top", "-o", "json")).stdout)
    assert report["nodes"][0]["usage"]["containers"][1]["cpu"] == 0.125
    assert (await hello("top", "nobody")).status == 5


async def test_what_cannot_be_measured_is_unknown_and_not_nothing(hello: Mcp) -> None:
    hello.plane.seen.problem = "cgroups v1 and rootless"
    ran = await hello("top", "hello")
    assert ran.lines[1].split() == ["hello-web", "mcp", *["unknown"] * 4, "1.5K", "12B"]
    assert ran.stderr == "mcp: podman cannot say what containers use: cgroups v1 and rootless\n"


async def test_a_problem_makes_the_exit_status_1_and_a_warning_does_not(mcp: Mcp) -> None:
    ran = await mcp("doctor")
    assert ran.status == 0
    assert [row.split()[:3] for row in ran.lines] == [
        ["NODE", "CHECK", "STATE"],
        ["here", "settings", "ok"],
        ["rift", "agent", "ok"],
        ["rift", "podman", "ok"],
    ]
    mcp.plane.seen.findings = [Finding(check="disk", state=FindingState.WARNING, found="f", advice="make room")]
    ran = await mcp("doctor")
    assert (ran.status, "make room" in ran.stdout) == (0, True)
    mcp.plane.seen.findings = [Finding(check="disk", state=FindingState.PROBLEM, found="f", advice="make room")]
    assert (await mcp("doctor")).status == 1
    report = json.loads((await mcp("doctor", "-o", "json")).stdout)
    assert report["findings"][-1]["finding"]["state"] == "problem"


async def test_a_node_that_is_down_is_one_of_the_findings(mcp: Mcp) -> None:
    mcp.config.write_text(mcp.config.read_text() + '[nodes.down]\naddress = "unix:///nowhere.sock"\n')
    ran = await mcp("doctor")
    assert ran.status == 1
    assert any("rift" in row and "podman" in row for row in ran.lines)
    (row,) = (row for row in ran.lines if row.startswith("down"))
    assert "does not answer" in row
    assert "systemctl status mcp-agent" in row
    assert (await mcp("doctor", "--node", "rift")).status == 0


async def test_what_is_wrong_here_is_found_too(offline: Mcp) -> None:
    ca = offline.write("ca.pem", "no certificate")
    offline.config.write_text(f'[nodes.far]\naddress = "127.0.0.1:1"\nca_file = "{ca}"\n')
    ran = await offline("doctor")
    assert ran.status == 1
    assert any("CA file" in row and "problem" in row for row in ran.lines)
    offline.config.write_text("nodes = 1")
    ran = await offline("doctor")
    assert (ran.status, "settings" in ran.lines[1], "problem" in ran.lines[1]) == (1, True, True)


async def test_files_that_run_a_service_are_printed_or_written_for_their_owner_alone(hello: Mcp) -> None:
    ran = await hello("export", "hello", "--format", "quadlet")
    assert ran.lines == ["# ---- net.network ----", "[Network]", "# ---- ../a ----", "A=s3cret"]
    assert ran.stderr == "mcp: quadlet holds what looks secret\n"
    ran = await hello("export", "hello", "--format", "kube", "--into", "out")
    assert ran.lines == ["wrote out/net.network", "wrote out/a"]
    written = hello.folder / "out" / "a"
    assert written.read_text() == "A=s3cret\n"
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    report = json.loads((await hello("export", "hello", "--format", "kube", "-o", "json")).stdout)
    assert report["exported"]["files"][0]["name"] == "net.network"


async def test_a_service_that_cannot_be_exported_is_a_sentence(hello: Mcp) -> None:
    hello.plane.seen.refusal = Refused("routes of web have no port yet")
    ran = await hello("export", "hello", "--format", "kube")
    assert (ran.status, ran.stdout, ran.stderr) == (5, "", "mcp: routes of web have no port yet\n")


async def test_a_definition_can_be_written_as_well(hello: Mcp) -> None:
    assert (await hello("export", "hello", "--into", "out")).lines == ["wrote out/hello.toml"]
    assert (await hello("diff", "-f", "out/hello.toml")).status == 0
