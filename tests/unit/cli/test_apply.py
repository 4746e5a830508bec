"""`mcp apply`, as a program in a pipe against a real socket."""

import asyncio
import json
import re
import signal
from contextlib import AsyncExitStack

import pytest

from api.conditions import ConditionType, Reason, Status
from api.errors import InvalidSpec, McpError, Refused, RegistryUnavailable
from tests.unit.cli.plane import STEPS, Mcp, served

HELLO = """\
name = "hello"
[[components]]
name = "web"
image = "localhost/mcp-hello:v1.0.0"
env = ["DB_PASSWORD=hunter2"]
[[components.routes]]
port = 8443
mode = "l7"
"""


def other(name: str) -> str:
    return HELLO.replace("hello", name, 1)


async def test_a_new_service_is_created_and_awaited_step_by_step(mcp: Mcp) -> None:
    ran = await mcp("apply", "-f", mcp.write("hello.toml", HELLO))
    assert (ran.status, ran.stderr) == (0, "")
    assert [re.sub(r"\d+\.\d\ds", "N", line) for line in ran.lines] == [
        "hello created (generation 1)",
        "hello ports ready in N",
        "hello certs ready in N",
        "hello files ready in N",
        "hello containers ready in N",
        "hello routes ready in N",
        "hello ready in N",
    ]
    assert re.fullmatch(r"hello by .+@.+", mcp.plane.applied[0])


async def test_the_same_again_is_unchanged_and_says_no_more(mcp: Mcp) -> None:
    file = mcp.write("hello.toml", HELLO)
    await mcp("apply", "-f", file)
    ran = await mcp("apply", "-f", file)
    assert (ran.status, ran.stdout, ran.stderr) == (0, "hello unchanged\n", "")


async def test_a_changed_definition_shows_its_fields_and_no_secret(mcp: Mcp) -> None:
    await mcp("apply", "-f", mcp.write("hello.toml", HELLO))
    changed = HELLO.replace("v1.0.0", "v1.0.1").replace("hunter2", "hunter3")
    ran = await mcp("apply", "-f", "-", stdin=changed)
    assert ran.lines[:3] == [
        "hello configured (generation 2)",
        '  ~ components[web].image: "localhost/mcp-hello:v1.0.0" -> "localhost/mcp-hello:v1.0.1"',
        '  ~ components[web].env.DB_PASSWORD: "********" -> "********"',
    ]
    assert ran.lines[-1].startswith("hello ready in ")
    assert "hunter" not in ran.stdout


async def test_without_waiting_it_only_hands_over(mcp: Mcp) -> None:
    mcp.plane.behaviour = "stall"
    ran = await mcp("apply", "--no-wait", "-f", mcp.write("hello.toml", HELLO))
    assert (ran.status, ran.stdout) == (0, "hello created (generation 1)\n")


async def test_json_says_all_of_it(mcp: Mcp) -> None:
    ran = await mcp("apply", "-o", "json", "-f", mcp.write("hello.toml", HELLO))
    report = json.loads(ran.stdout)
    (service,) = report["services"]
    assert (service["name"], service["node"], service["change"], service["end"]) == ("hello", "rift", "created", "done")
    assert service["seconds"] > 0
    assert service["service"]["generation"] == service["generation"] == 1
    assert service["service"]["conditions"][0]["type"] == "PortsAllocated"


async def test_quiet_says_nothing(mcp: Mcp) -> None:
    ran = await mcp("apply", "-q", "-f", mcp.write("hello.toml", HELLO))
    assert (ran.status, ran.stdout, ran.stderr) == (0, "", "")


async def test_a_failure_ends_the_wait_at_once_with_its_reason(mcp: Mcp) -> None:
    mcp.plane.behaviour = "fail"
    ran = await mcp("apply", "-f", mcp.write("hello.toml", HELLO))
    assert ran.status == 1
    assert ran.stderr == "hello failed: ContainersRunning: ImagePullFailed: no such image hello:v9\n"


async def test_applying_the_same_again_after_mending_the_world_does_not_fail_for_the_old_reason(mcp: Mcp) -> None:
    mcp.plane.behaviour = "fail"
    file = mcp.write("hello.toml", HELLO)
    await mcp("apply", "-f", file)
    mcp.plane.behaviour = "converge"
    ran = await mcp("apply", "-f", file)
    assert (ran.status, ran.stderr) == (0, "")
    assert ran.lines[0] == "hello unchanged"
    assert ran.lines[-1].startswith("hello ready in ")


async def test_a_timeout_says_what_was_awaited(mcp: Mcp) -> None:
    mcp.plane.behaviour = "stall"
    ran = await mcp("apply", "--timeout", "300ms", "-f", mcp.write("hello.toml", HELLO))
    assert ran.status == 3
    assert ran.stderr == (
        "hello timed out after 0.3s, waiting: WaitingForContainer: not answering; the rollout goes on\n"
    )


async def test_in_a_pipe_it_says_what_it_waits_for_when_nothing_happens(mcp: Mcp) -> None:
    mcp.plane.behaviour = "stall"
    ran = await mcp("apply", "--timeout", "3s", "-f", mcp.write("hello.toml", HELLO))
    assert ran.lines.count("hello waiting: WaitingForContainer: not answering") == 1


async def test_interrupting_leaves_the_rollout_going_and_says_so(mcp: Mcp) -> None:
    mcp.plane.behaviour = "stall"
    process = await mcp.start("apply", "-f", mcp.write("hello.toml", HELLO))
    assert process.stdout is not None
    async with asyncio.timeout(20):
        while b"containers ready" not in await process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, stderr = await process.communicate()
    assert process.returncode == 130
    assert stderr.decode() == "interrupted: the rollout of hello goes on; mcp status hello shows it\n"


async def test_a_service_that_somebody_deletes_meanwhile_is_a_failure(mcp: Mcp) -> None:
    mcp.plane.behaviour = "stall"
    process = await mcp.start("apply", "-f", mcp.write("hello.toml", HELLO))
    assert process.stdout is not None
    async with asyncio.timeout(20):
        while b"containers ready" not in await process.stdout.readline():
            pass
        mcp.plane.forget("hello")
        _, stderr = await process.communicate()
    assert (process.returncode, stderr.decode()) == (1, "hello failed: somebody deleted it meanwhile\n")


async def test_waiting_goes_on_across_a_restart_of_the_agent(offline: Mcp) -> None:
    plane = offline.plane
    plane.behaviour = "stall"
    async with AsyncExitStack() as stack, asyncio.timeout(30):
        first = await stack.enter_async_context(AsyncExitStack())
        await first.enter_async_context(served(plane, offline.address))
        process = await offline.start("apply", "-f", offline.write("hello.toml", HELLO))
        assert process.stdout is not None
        while b"containers ready" not in await process.stdout.readline():
            pass
        await first.aclose()
        plane.converge("hello", STEPS[3:])
        await stack.enter_async_context(served(plane, offline.address))
        stdout, stderr = await process.communicate()
    assert (process.returncode, stderr) == (0, b"")
    assert b"hello ready in " in stdout


async def test_a_deletion_during_a_restart_of_the_agent_is_noticed(offline: Mcp) -> None:
    plane = offline.plane
    plane.behaviour = "stall"
    async with AsyncExitStack() as stack, asyncio.timeout(30):
        first = await stack.enter_async_context(AsyncExitStack())
        await first.enter_async_context(served(plane, offline.address))
        process = await offline.start("apply", "-f", offline.write("hello.toml", HELLO))
        assert process.stdout is not None
        while b"containers ready" not in await process.stdout.readline():
            pass
        await first.aclose()
        plane.forget("hello")
        await stack.enter_async_context(served(plane, offline.address))
        _, stderr = await process.communicate()
    assert (process.returncode, stderr.decode()) == (1, "hello failed: somebody deleted it meanwhile\n")


async def test_a_folder_is_applied_in_the_order_of_its_files(mcp: Mcp) -> None:
    for name in ("b", "a", "c"):
        mcp.write(f"{name}.toml", other(name))
    mcp.write("mcp.toml.bak", "not a definition")
    mcp.config.rename(mcp.folder / "settings")
    ran = await mcp("apply", "--no-wait", "-f", ".", "--config", "settings")
    assert ran.lines == [f"{name} created (generation 1)" for name in "abc"]


async def test_a_mistake_in_one_file_changes_nothing_anywhere(mcp: Mcp) -> None:
    good, bad = mcp.write("good.toml", HELLO), mcp.write("bad.toml", other("bad").replace("port =", "prot ="))
    ran = await mcp("apply", "-f", good, "-f", bad)
    assert ran.status == 5
    assert ran.stderr.splitlines() == [
        "bad.toml:6: components[0].routes[0].port: is missing: a route needs it, for example port = 8443",
        'bad.toml:7: components[0].routes[0].prot: is not a field of a route; did you mean "port"?',
    ]
    assert mcp.plane.applied == []


async def test_what_the_agent_refuses_in_one_file_changes_nothing_anywhere(mcp: Mcp) -> None:
    mcp.plane.refusals = {
        "bad": InvalidSpec("components[0].image", "has no tag"),
        "worse": Refused("this is node rift"),
    }
    files = [mcp.write(f"{name}.toml", other(name)) for name in ("good", "bad", "worse")]
    ran = await mcp("apply", *[part for file in files for part in ("-f", file)])
    assert ran.status == 5
    assert ran.stderr.splitlines() == [
        "bad.toml:4: components[0].image: has no tag",
        "worse.toml:1: this is node rift",
    ]
    assert mcp.plane.applied == []


@pytest.mark.parametrize(
    ("refusal", "status", "words", "done"),
    [
        (Refused("it is being deleted"), 5, "b not applied on rift: b.toml:1: it is being deleted\n", ["a", "c"]),
        # That is no fault of b's: what is still to be asked of that node would fail as well.
        (RegistryUnavailable("the disk is full"), 4, "b, c not applied on rift: the disk is full\n", ["a"]),
    ],
)
async def test_what_is_refused_after_the_check_is_told_and_the_others_are_done(
    mcp: Mcp, refusal: McpError, status: int, words: str, done: list[str]
) -> None:
    mcp.plane.refusals, mcp.plane.late = {"b": refusal}, True
    files = [mcp.write(f"{name}.toml", other(name)) for name in "abc"]
    ran = await mcp("apply", *[part for file in files for part in ("-f", file)])
    assert (ran.status, ran.stderr, list(mcp.plane.registry)) == (status, words, done)


async def test_a_node_that_nobody_knows_is_told_with_its_line(mcp: Mcp) -> None:
    ran = await mcp("apply", "-f", mcp.write("a.toml", f'node = "vega"\n{HELLO}'))
    assert ran.status == 5
    assert ran.stderr.startswith("a.toml:1: node: ")
    assert 'knows no node "vega"' in ran.stderr
    assert mcp.plane.applied == []


async def test_two_definitions_of_one_service_are_refused(mcp: Mcp) -> None:
    ran = await mcp("apply", "-f", mcp.write("a.toml", HELLO), "-f", mcp.write("b.toml", HELLO))
    assert (ran.status, ran.stderr) == (5, 'b.toml:1: name: "hello" is also defined in a.toml:1\n')
    # The node that one of them names is the one that is meant by the other.
    mcp.write("b.toml", f'node = "rift"\n{HELLO}')
    assert (await mcp("apply", "-f", "a.toml", "-f", "b.toml")).status == 5


async def test_a_dry_run_says_what_would_be_done_and_does_nothing(mcp: Mcp) -> None:
    ran = await mcp("apply", "--dry-run", "-f", mcp.write("hello.toml", HELLO))
    assert ran.status == 0
    assert ran.lines == [
        "hello would be created",
        "  what would be done:",
        "    containers: create it",
        "1 to create, 0 to change, 0 unchanged",
    ]
    assert mcp.plane.registry == {}


async def test_a_difference_is_told_by_the_exit_status(mcp: Mcp) -> None:
    file = mcp.write("hello.toml", HELLO)
    assert (await mcp("diff", "-f", file)).status == 1
    await mcp("apply", "-f", file)
    same = await mcp("diff", "-f", file)
    assert (same.status, same.lines) == (0, ["hello unchanged", "0 to create, 0 to change, 1 unchanged"])
    mcp.write("hello.toml", HELLO.replace("hunter2", "hunter3").replace("8443", "443"))
    ran = await mcp("diff", "-f", file)
    assert ran.status == 1
    assert ran.lines == [
        "hello would be configured",
        '  ~ components[web].env.DB_PASSWORD: "********" -> "********"',
        "  ~ components[web].routes[default].port: 8443 -> 443",
        "  what would be done:",
        "    containers: create it",
        "0 to create, 1 to change, 0 unchanged",
    ]
    report = json.loads((await mcp("diff", "-o", "json", "-f", file)).stdout)
    assert [field["path"] for field in report["services"][0]["fields"]] == [
        "components[web].env.DB_PASSWORD",
        "components[web].routes[default].port",
    ]


async def test_an_exported_definition_applies_as_unchanged(mcp: Mcp) -> None:
    await mcp("apply", "-f", mcp.write("hello.toml", HELLO))
    exported = await mcp("export", "hello")
    assert exported.status == 0
    ran = await mcp("apply", "-f", "-", stdin=exported.stdout)
    assert ran.stdout == "hello unchanged\n"


async def test_a_stopped_service_is_done_when_it_is_stopped(mcp: Mcp) -> None:
    mcp.plane.behaviour = "nothing"
    process = await mcp.start("apply", "-f", "-")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"active = false\n{HELLO}".encode())
    process.stdin.write_eof()
    async with asyncio.timeout(20):
        await process.stdout.readline()
        mcp.plane.turn("hello", ConditionType.READY, Status.FALSE, Reason.STOPPED, "stopped, as defined")
        stdout, _ = await process.communicate()
    assert process.returncode == 0
    assert re.fullmatch(r"hello stopped in [\d.]+s\n", stdout.decode())


@pytest.mark.parametrize("text", ["", "5", "5 m", "m", "-5s", "1h2"])
async def test_a_timeout_without_a_unit_is_wrong_usage(offline: Mcp, text: str) -> None:
    ran = await offline("apply", "-f", "-", f"--timeout={text}")
    assert ran.status == 2
    assert "is not a time such as 30s" in ran.stderr
