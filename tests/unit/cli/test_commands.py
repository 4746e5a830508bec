"""The commands other than `mcp apply`, as programs in a pipe against a real socket."""

import asyncio
import json
import re
import signal
from contextlib import AsyncExitStack

from api.conditions import ConditionType, Reason, Status
from api.errors import NotFound, Refused
from api.service import FieldChange
from tests.unit.cli.plane import Mcp, served
from tests.unit.cli.test_apply import HELLO, other


async def applied(mcp: Mcp, *names: str) -> None:
    for name in names:
        await mcp("apply", "-q", "-f", "-", stdin=other(name))


async def test_status_shows_desired_beside_observed(mcp: Mcp) -> None:
    await applied(mcp, "hello", "world")
    mcp.plane.turn("world", ConditionType.READY, Status.FALSE, Reason.CONFLICT, "world.example is held by a stranger")
    ran = await mcp("status")
    assert (ran.status, ran.stderr) == (0, "")
    assert [re.split(r"  +", re.sub(r" \d+s\b", " N", line)) for line in ran.lines] == [
        ["SERVICE", "COMPONENT", "DESIRED", "OBSERVED", "VERSION", "READY", "AGE", "REASON"],
        ["hello", "web", "running", "running", "v1.0.0", "yes", "N", "-"],
        ["world", "web", "running", "running", "v1.0.0", "no", "N", "Conflict: world.example is held by a stranger"],
    ]


async def test_a_service_that_flaps_says_so_though_it_is_ready(mcp: Mcp) -> None:
    await applied(mcp, "hello")
    mcp.plane.turn("hello", ConditionType.FLAPPING, Status.TRUE, Reason.FLAPPING, "routes were mended 10 times")
    assert (await mcp("status")).lines[1].endswith("  Flapping: routes were mended 10 times")
    mcp.plane.turn("hello", ConditionType.FLAPPING, Status.FALSE, Reason.CONVERGED, "nothing had to be mended")
    assert "Flapping" not in (await mcp("status")).stdout


async def test_status_of_nothing_says_so(mcp: Mcp) -> None:
    assert (await mcp("status")).stdout == "node rift has no services\n"


async def test_status_says_what_the_agent_misses(mcp: Mcp) -> None:
    mcp.plane.engine = "no such socket"
    ran = await mcp("status")
    assert (ran.status, ran.stderr) == (0, "podman cannot be reached from node rift: no such socket\n")


async def test_status_in_json_is_the_service_itself(mcp: Mcp) -> None:
    await applied(mcp, "hello")
    report = json.loads((await mcp("status", "-o", "json")).stdout)
    assert [node["node"] for node in report["nodes"]] == ["rift"]
    assert report["services"] == [mcp.plane.registry["hello"].model_dump(mode="json")]
    one = json.loads((await mcp("status", "hello", "-o", "json")).stdout)
    assert one["service"] == report["services"][0]


async def test_status_of_one_service_is_all_about_it(mcp: Mcp) -> None:
    await applied(mcp, "hello")
    mcp.plane.note("hello", "started", "hello-web: it had exited", drift=True)
    ran = await mcp("status", "hello")
    assert (ran.status, ran.stderr) == (0, "")
    assert [re.sub(r"\b(\d+s|\d\d:\d\d:\d\d|\d{4}-\d\d-\d\d)", "N", line) for line in ran.lines] == [
        "hello on rift: ready for N",
        "generation 1 N ago; first made N ago",
        "",
        "web     running for N, ready",
        "        hello-web from localhost/mcp-hello:v1.0.0",
        "routes  hello.svc.mcp.metacircular.net:8443 -> 127.0.0.1:10000 (l7, web/default)",
        "          certificate of MCP CA until N, renewed in 59d",
        "events  N containers drift: started hello-web: it had exited",
    ]


async def test_status_shows_what_is_wanted_beside_what_was_found(mcp: Mcp) -> None:
    await applied(mcp, "hello")
    mcp.plane.drift = (FieldChange(path="components[web].state", old='"exited"', new='"running"'),)
    assert (await mcp("status", "hello")).lines[7:9] == [
        "next    containers: mend hello",
        '          state: wanted "running", found "exited"',
    ]
    ran = await mcp("diff", "-f", "-", stdin=other("hello"))
    assert (ran.status, ran.lines[2:4]) == (
        1,
        ["    containers: mend hello", '      state: wanted "running", found "exited"'],
    )
    report = json.loads((await mcp("status", "hello", "-o", "json")).stdout)
    assert report["actions"][0]["fields"] == [{"path": "components[web].state", "old": '"exited"', "new": '"running"'}]


async def test_status_says_why_it_is_not_known_what_comes_next(mcp: Mcp) -> None:
    await applied(mcp, "hello")
    mcp.plane.refusals["hello"] = Refused("the policy has changed")
    assert "next    the policy has changed" in (await mcp("status", "hello")).lines


async def test_an_unknown_service_is_refused(mcp: Mcp) -> None:
    for command in (["status"], ["export"], ["delete"], ["watch"]):
        ran = await mcp(*command, "nobody")
        assert (ran.status, ran.stdout) == (5, "")
        assert ran.stderr == f"mcp: {NotFound.service('nobody', 'rift').message}\n"


async def test_ps_tells_ours_from_foreign_ones_and_shows_no_escape_sequences(mcp: Mcp) -> None:
    ran = await mcp("ps")
    assert [re.split(r"  +", line) for line in ran.lines] == [
        ["CONTAINER", "OWNER", "SERVICE", "COMPONENT", "STATE", "IMAGE", "PORTS", "AGE"],
        [
            *("hello-web", "mcp", "hello", "web", "running"),
            *("localhost/mcp-hello:v1.0.0", "127.0.0.1:10000->10000/tcp", "3m"),
        ],
        ["postgres\N{REPLACEMENT CHARACTER}[31m", "foreign", "-", "-", "exited", "docker.io/postgres:16", "-", "-"],
    ]
    assert [one["owned"] for one in json.loads((await mcp("ps", "-o", "json")).stdout)["containers"]] == [True, False]


async def test_events_are_the_newest_and_go_on_across_a_restart(offline: Mcp) -> None:
    plane = offline.plane
    for number in range(3):
        plane.note("hello", "created", f"message {number}")
    async with AsyncExitStack() as stack, asyncio.timeout(30):
        first = await stack.enter_async_context(AsyncExitStack())
        await first.enter_async_context(served(plane, offline.address))
        assert "message 0" not in (await offline("events", "-n", "2")).stdout
        assert len(json.loads((await offline("events", "hello", "-o", "json")).stdout)["events"]) == 3
        plane.subscribed.clear()
        process = await offline.start("events", "-f", "-n", "1")
        assert process.stdout is not None
        assert (await process.stdout.readline()).endswith(b"created  message 2\n")
        await plane.subscribed.wait()
        plane.note("hello", "removed", "message 3", drift=True)
        assert (await process.stdout.readline()).endswith(b"drift: removed  message 3\n")
        await first.aclose()
        plane.note("hello", "created", "message 4")
        await stack.enter_async_context(served(plane, offline.address))
        assert (await process.stdout.readline()).endswith(b"created  message 4\n")
        process.send_signal(signal.SIGINT)
        await process.wait()
    assert process.returncode == 130


async def test_watch_tells_a_line_for_each_change(mcp: Mcp) -> None:
    await applied(mcp, "hello")
    mcp.plane.subscribed.clear()
    process = await mcp.start("watch")
    assert process.stdout is not None
    async with asyncio.timeout(20):
        lines = [await process.stdout.readline()]
        await mcp.plane.subscribed.wait()
        mcp.plane.turn("hello", ConditionType.CONTAINERS_RUNNING, Status.FALSE, Reason.BACKING_OFF, "exit code 1")
        lines.append(await process.stdout.readline())
        mcp.plane.forget("hello")
        lines.append(await process.stdout.readline())
        process.send_signal(signal.SIGINT)
        await process.wait()
    assert [line.decode().split(" ", 1)[1] for line in lines] == [
        "hello generation 1 ready True Converged: everything is as defined\n",
        "hello containers False BackingOff: exit code 1\n",
        "hello deleted\n",
    ]
    assert process.returncode == 130


async def test_watch_in_json_is_a_line_for_each_message(mcp: Mcp) -> None:
    await applied(mcp, "hello")
    process = await mcp.start("watch", "hello", "-o", "json")
    assert process.stdout is not None
    async with asyncio.timeout(20):
        first, second = [json.loads(await process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        await process.wait()
    assert first["service"]["name"] == "hello"
    assert second == {"node": "rift", "service": None, "deleted": "", "synced": True}


async def test_delete_waits_until_all_is_gone(mcp: Mcp) -> None:
    await applied(mcp, "hello", "world")
    ran = await mcp("delete", "hello", "world", "hello")
    assert (ran.status, ran.stderr) == (0, "")
    assert [re.sub(r"[\d.]+s$", "N", line) for line in ran.lines] == [
        "hello is being deleted",
        "world is being deleted",
        "hello deleted in N",
        "world deleted in N",
    ]
    assert mcp.plane.registry == {}


async def test_delete_of_one_that_is_unknown_deletes_nothing(mcp: Mcp) -> None:
    await applied(mcp, "hello")
    ran = await mcp("delete", "hello", "nobody")
    assert (ran.status, list(mcp.plane.registry)) == (5, ["hello"])
    assert ran.stderr == f"mcp: nothing was deleted:\n{NotFound.service('nobody', 'rift').message}\n"


async def test_a_dry_run_of_delete_deletes_nothing(mcp: Mcp) -> None:
    await applied(mcp, "hello")
    ran = await mcp("delete", "--dry-run", "hello")
    assert ran.lines == ["hello would be deleted", "    containers: remove hello"]
    assert not mcp.plane.registry["hello"].deleting


async def test_delete_that_takes_too_long_says_what_is_left(mcp: Mcp) -> None:
    await applied(mcp, "hello")
    mcp.plane.behaviour = "stall"
    mcp.plane.turn("hello", ConditionType.ROUTES_PROGRAMMED, Status.UNKNOWN, Reason.PROXY_UNREACHABLE, "no such socket")
    ran = await mcp("delete", "--timeout", "200ms", "hello", "-o", "json")
    assert ran.status == 3
    assert ran.stderr == (
        "hello timed out after 0.2s: routes, containers, files, certs, ports still to be taken away "
        "(ProxyUnreachable: no such socket); the deletion goes on\n"
    )
    assert json.loads(ran.stdout)["services"][0]["end"] == "timed-out"


async def test_version_shows_both_sides(mcp: Mcp) -> None:
    ran = await mcp("version")
    assert ran.lines[1:] == ["mcp-agent 0.1.0 on rift, 0 of 0 services ready", "  podman reachable: 4.3.1"]


async def test_version_works_without_an_agent_only_while_none_is_configured(offline: Mcp) -> None:
    assert (await offline("version")).status == 4
    ran = await offline("version", MCP_CONFIG="")
    assert (ran.status, ran.stderr) == (0, "")
    assert ran.lines[1].startswith("no agent: no agent to ask: there is no mcp.toml")


async def test_an_agent_that_does_not_answer_is_told_in_a_sentence(offline: Mcp) -> None:
    for command in (["status"], ["ps"], ["apply", "-f", "-"], ["watch"], ["delete", "x"], ["events", "-f"]):
        ran = await offline(*command, stdin=HELLO)
        assert (ran.status, ran.stdout) == (4, "")
        assert ran.stderr.startswith(
            f"mcp: the agent at {offline.address} does not answer: is mcp-agent running there?"
        )
        assert len(ran.stderr.splitlines()) == 1


async def test_a_reader_that_goes_away_ends_the_command_quietly(mcp: Mcp) -> None:
    for number in range(2000):
        mcp.plane.note("hello", "created", f"message {number} " + "x" * 100)
    process = await mcp.start("events", "-n", "2000")
    assert process.stdout is not None
    process.stdout._transport.close()  # type: ignore[attr-defined]  # what `| head -1` does
    async with asyncio.timeout(20):
        await process.wait()
        assert process.stderr is not None
        assert await process.stderr.read() == b""
