"""Several nodes: asked side by side, and one that is down is a line in the answer."""

import asyncio
import json
import re
import signal
import time
import tomllib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from api.conditions import ConditionType, Reason, Status
from api.errors import ExitCode
from tests.unit.cli.plane import Mcp, Plane, served
from tests.unit.cli.test_apply import other

TOML = """\
# Mine.
[nodes.rift]  # at home
address = "unix://{folder}/rift.sock"

[nodes.orion]
address = "unix:{folder}/orion.sock"
"""


class Town(Mcp):
    """Two nodes; `plane` is rift's."""

    orion: Plane


@pytest.fixture
async def town(offline: Mcp) -> AsyncIterator[Town]:
    town = Town(offline.folder, offline.plane)
    object.__setattr__(town, "orion", Plane(node="orion"))
    town.config.write_text(TOML.format(folder=town.folder))
    (town.folder / "services").mkdir()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(served(town.plane, f"unix://{town.folder}/rift.sock"))
        await stack.enter_async_context(served(town.orion, f"unix:{town.folder}/orion.sock"))
        yield town


def define(town: Town, name: str, node: str) -> str:
    town.write(f"services/{name}.toml", f'node = "{node}"\n{other(name)}')
    return name


async def deployed(town: Town) -> None:
    for name, node in (("hello", "rift"), ("world", "orion")):
        define(town, name, node)
        ran = await town("deploy", name)
        assert ran.status == 0, ran.stderr


@pytest.fixture
def alone(town: Town) -> Town:
    """One of the two nodes is down."""
    config = town.config.read_text()
    town.config.write_text(config.replace("orion.sock", "nobody.sock"))
    return town


async def test_each_definition_goes_to_its_node_and_lists_show_all(town: Town) -> None:
    await deployed(town)
    assert (list(town.plane.registry), list(town.orion.registry)) == (["hello"], ["world"])
    assert [line.split()[:2] for line in (await town("list")).lines[1:]] == [["hello", "rift"], ["world", "orion"]]
    assert [line.split()[:2] for line in (await town("status")).lines] == [
        ["NODE", "SERVICE"],
        ["rift", "hello"],
        ["orion", "world"],
    ]
    assert {line.split()[0] for line in (await town("ps")).lines[1:]} == {"rift", "orion"}
    assert "hello.svc.mcp.metacircular.net:8443" in (await town("routes", "hello")).stdout
    assert len((await town("certs")).lines) == 3
    assert (await town("list", "--node", "orion")).lines[1].startswith("world")


@pytest.mark.parametrize("command", ["list", "status", "ps", "routes", "certs", "events", "top", "version"])
async def test_a_node_that_is_down_is_a_line_in_the_answer(alone: Town, command: str) -> None:
    alone.plane.note("hello", "created", "hello-web")
    ran = await alone(command)
    assert ran.status == ExitCode.UNREACHABLE
    assert ran.stderr.startswith("orion: the agent at ")
    assert ran.stdout
    document = json.loads((await alone(command, "-o", "json")).stdout)
    assert [one["node"] for one in document["unasked"]] == ["orion"]


async def test_each_service_that_is_named_is_seen_to_on_its_own_node(town: Town) -> None:
    await deployed(town)
    assert (await town("suspend", "hello", "world")).status == 0
    assert town.plane.registry["hello"].suspended
    assert town.orion.registry["world"].suspended
    assert (await town("reconcile", "world", "hello")).status == 0
    assert (await town("resume", "--all")).lines == ["hello is resumed", "world is resumed"]
    assert "hello would be deleted" in (await town("delete", "world", "hello", "--dry-run")).lines
    ran = await town("delete", "world", "hello", "-o", "json")
    assert [(one["node"], one["name"], one["end"]) for one in json.loads(ran.stdout)["services"]] == [
        ("orion", "world", "done"),
        ("rift", "hello", "done"),
    ]
    assert (town.plane.registry, town.orion.registry) == ({}, {})


@pytest.mark.parametrize(
    ("command", "undone"),
    [
        ("suspend", "not suspended"),
        ("resume", "not resumed"),
        ("reconcile", "not looked at"),
    ],
)
async def test_those_of_a_node_that_is_down_are_told_and_the_others_are_done(
    alone: Town, command: str, undone: str
) -> None:
    define(alone, "hello", "rift")
    for name in ("world", "more"):
        define(alone, name, "orion")
    await alone("deploy", "hello")
    ran = await alone(command, "world", "hello", "more", "nobody", "-o", "json")
    down, unknown = ran.stderr.splitlines()
    assert down.startswith(f"world, more {undone} on orion: the agent at ")
    assert down.endswith("; once it answers, the same command does the rest")
    assert unknown.startswith(f'nobody {undone}: no node has a service "nobody"')
    report = json.loads(ran.stdout)
    assert [(one["service"], one["node"]) for one in report["unasked"]] == [
        ("world", "orion"),
        ("more", "orion"),
        ("nobody", ""),
    ]
    assert (ran.status, len(report["services"])) == (ExitCode.REFUSED, 1)


async def test_of_several_that_are_to_go_those_of_a_node_that_is_down_are_told(alone: Town) -> None:
    for name, node in (("hello", "rift"), ("world", "orion")):
        define(alone, name, node)
    await alone("deploy", "hello")
    ran = await alone("delete", "world", "hello", "nobody")
    assert (ran.status, list(alone.plane.registry)) == (ExitCode.REFUSED, ["hello"])
    assert ran.stderr.startswith('mcp: nothing was deleted:\nno node has a service "nobody"')
    ran = await alone("delete", "world", "hello")
    assert (ran.status, alone.plane.registry) == (ExitCode.UNREACHABLE, {})
    assert ran.stderr.startswith("world not deleted on orion: the agent at ")


async def test_a_definition_that_is_wrong_still_says_where_its_service_is(town: Town) -> None:
    await deployed(town)
    town.write("services/world.toml", 'name = "world"\nnode = "orion"\nversoin = "1"\n')
    assert "world on orion" in (await town("status", "world")).lines[0]
    town.write("services/world.toml", "name = ")
    assert "world on orion" in (await town("status", "world")).lines[0]


async def test_apply_and_diff_go_on_where_a_node_is_down(alone: Town) -> None:
    for name, node in (("hello", "rift"), ("world", "orion"), ("more", "orion")):
        define(alone, name, node)
    differing = await alone("diff", "-f", "services")
    assert (differing.status, differing.lines[0]) == (ExitCode.UNREACHABLE, "hello would be created")
    assert differing.stderr.startswith("more, world not compared on orion: the agent at ")
    ran = await alone("apply", "-f", "services", "-o", "json")
    report = json.loads(ran.stdout)
    assert [(one["name"], one["end"]) for one in report["services"]] == [("hello", "done")]
    assert [(one["node"], one["service"]) for one in report["unasked"]] == [("orion", "more"), ("orion", "world")]
    assert ran.status == ExitCode.UNREACHABLE
    assert ran.stderr.startswith("more, world not applied on orion: the agent at ")


async def test_services_of_one_name_on_two_nodes_are_told_apart(town: Town) -> None:
    define(town, "hello", "rift")
    town.write("services/hello-too.toml", f'node = "orion"\n{other("hello")}')
    ran = await town("apply", "-f", "services")
    assert ran.status == 0, ran.stderr
    assert {line.split()[0] for line in ran.lines} == {"rift/hello", "orion/hello"}
    (town.folder / "services/hello.toml").unlink()
    (town.folder / "services/hello-too.toml").unlink()
    ran = await town("status", "hello")
    assert ran.stderr == 'mcp: service "hello" is on rift and on orion: say which with --node\n'


@pytest.mark.parametrize("command", ["watch", "events -f", "watch -o json"])
async def test_who_follows_goes_on_with_the_others_and_hears_of_a_node_once_it_is_back(
    alone: Town, command: str
) -> None:
    await alone("deploy", "-q", define(alone, "hello", "rift"))
    alone.plane.subscribed.clear()
    process = await alone.start(*command.split())
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(20), AsyncExitStack() as stack:
        assert (await process.stderr.readline()).endswith(b"; listening again as soon as it is back\n")
        await alone.plane.subscribed.wait()
        alone.plane.note("hello", "said", "here I am")
        assert b"hello" in await process.stdout.readline()
        await stack.enter_async_context(served(alone.orion, f"unix:{alone.folder}/nobody.sock"))
        await alone.orion.subscribed.wait()
        alone.orion.note("world", "said", "and here am I")
        await alone.orion.apply(alone.plane.registry["hello"].spec, actor="ann")
        while b"orion" not in await process.stdout.readline():
            pass
        assert await process.stderr.readline() == b"orion: the agent answers again\n"
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130


async def test_what_is_adopted_is_sought_on_all_nodes(town: Town) -> None:
    town.plane.runs = town.orion.runs = frozenset({"forge"})
    ran = await town("adopt", "forge")
    assert (ran.status, ran.stderr) == (5, "mcp: containers of forge are on rift and on orion: say which with --node\n")
    assert (await town("adopt", "forge", "--node", "orion")).status == 0
    assert (list(town.plane.registry), list(town.orion.registry)) == ([], ["forge"])
    town.orion.runs = frozenset({"shop"})
    assert (await town("adopt", "shop")).status == 0
    assert "shop" in town.orion.registry
    ran = await town("adopt", "nothing")
    assert (ran.status, ran.stderr) == (5, "mcp: no container is called nothing\n")


async def test_names_are_completed_though_a_node_never_answers(town: Town) -> None:
    await deployed(town)
    for path in (town.folder / "services").iterdir():
        path.unlink()
    async with await asyncio.start_unix_server(lambda *_: None, town.folder / "mute.sock"):
        town.config.write_text(town.config.read_text().replace("orion.sock", "mute.sock"))
        before = time.monotonic()
        ran = await town(COMP_WORDS="mcp status h", COMP_CWORD="2", _MCP_COMPLETE="bash_complete")
        assert ran.stdout.split() == ["plain,hello"]
        assert time.monotonic() - before < 1.5


async def test_what_is_meant_is_said_by_the_option_then_the_environment_then_the_settings(town: Town) -> None:
    town.config.write_text(town.config.read_text() + '[defaults]\noutput = "json"\nwait = false\nnode = "orion"\n')
    town.plane.behaviour = town.orion.behaviour = "nothing"
    file = town.write("services/hello.toml", other("hello"))
    assert json.loads((await town("apply", "-f", file)).stdout)["services"][0]["node"] == "orion"
    assert (await town("apply", "-f", file, "-o", "table")).stdout == "hello unchanged\n"
    ran = await town("apply", "-f", file, MCP_OUTPUT="table", MCP_WAIT="true", MCP_TIMEOUT="50ms")
    assert (ran.status, "timed out after 0.05s" in ran.stderr) == (ExitCode.TIMED_OUT, True)
    assert [line.split()[1] for line in (await town("list", "-o", "table")).lines[1:]] == ["orion"]
    more = town.write("services/more.toml", other("more"))
    await town("apply", "-f", more, MCP_DEFAULT_NODE="rift")
    assert list(town.plane.registry) == ["more"]
    ran = await town("list", MCP_OUTPUT="xml")
    assert (ran.status, "MCP_OUTPUT" in ran.stderr) == (ExitCode.USAGE, True)
    # With an address mcp.toml is not read, and so it has no say.
    ran = await town("apply", "-f", file, "--no-wait", "--address", f"unix://{town.folder}/rift.sock")
    assert ran.stdout == "hello created (generation 1)\n"


async def test_a_command_about_a_service_finds_its_node(town: Town) -> None:
    await deployed(town)
    (town.folder / "services/world.toml").unlink()
    assert "world" in (await town("status", "world")).lines[0]
    ran = await town("stop", "nobody")
    assert (ran.status, 'no node has a service "nobody"' in ran.stderr) == (ExitCode.REFUSED, True)


async def test_events_of_all_nodes_are_one_story(town: Town) -> None:
    town.orion.note("world", "created", "first")
    town.plane.note("hello", "created", "second")
    assert [line.split()[0] for line in (await town("events")).lines[1:]] == ["orion", "rift"]


async def test_sync_applies_all_and_prunes_what_has_no_definition(town: Town) -> None:
    await deployed(town)
    (town.folder / "services/world.toml").unlink()
    define(town, "more", "orion")
    ran = await town("sync", "--prune", "--dry-run")
    assert "orion/world has no definition in the services folder" in ran.lines
    assert (ran.status, "more" in town.orion.registry) == (0, False)
    ran = await town("sync", "--prune", stdin="n\n")
    assert "Take 1 away?" in ran.stderr
    assert list(town.orion.registry) == ["world", "more"]
    ran = await town("sync", "--prune", stdin="")
    assert (ran.status, "with --yes it is not asked" in ran.stderr) == (ExitCode.USAGE, True)
    assert list(town.orion.registry) == ["world", "more"]
    done = await town("sync", "--prune", "--yes", "-o", "json")
    report = json.loads(done.stdout)
    assert (done.status, report["pruned"]) == (0, ["orion/world"])
    assert [(one["node"], one["name"]) for one in report["services"]] == [("rift", "hello"), ("orion", "more")]
    assert (list(town.plane.registry), list(town.orion.registry)) == (["hello"], ["more"])


async def test_an_empty_folder_prunes_nothing(town: Town) -> None:
    await deployed(town)
    for path in (town.folder / "services").iterdir():
        path.unlink()
    ran = await town("sync", "--prune", "--yes")
    assert (ran.status, "holds no *.toml" in ran.stderr) == (ExitCode.USAGE, True)
    assert list(town.plane.registry) == ["hello"]


async def test_sync_goes_on_where_a_node_is_down(alone: Town) -> None:
    define(alone, "hello", "rift")
    define(alone, "world", "orion")
    ran = await alone("sync")
    assert ran.status == ExitCode.UNREACHABLE
    assert ran.stderr.startswith("world not applied on orion: the agent at ")
    assert list(alone.plane.registry) == ["hello"]


async def test_purge_forgets_what_has_neither_definition_nor_container(town: Town) -> None:
    await deployed(town)
    for name in ("hello", "world"):
        (town.folder / f"services/{name}.toml").unlink()
    empty = await town("purge", "--yes")
    assert (empty.status, "holds no definition at all" in empty.stderr) == (ExitCode.USAGE, True)
    define(town, "other", "rift")
    # The plane's engine shows a container of hello alone.
    assert (await town("purge", "--dry-run")).lines == ["orion/world has neither a definition nor a container"]
    assert list(town.orion.registry) == ["world"]
    assert (await town("purge", "--yes")).status == 0
    assert (list(town.plane.registry), list(town.orion.registry)) == (["hello"], [])


async def test_nodes_are_added_and_removed_with_comments_kept(town: Town) -> None:
    assert (await town("node", "add", "vega", "vega.example:9444", "--ca-file", "ca.pem")).status == 0
    text = town.config.read_text()
    assert text.startswith("# Mine.\n[nodes.rift]  # at home\n")
    assert tomllib.loads(text)["nodes"]["vega"] == {"address": "vega.example:9444", "ca_file": "ca.pem"}
    assert (await town("node", "remove", "vega")).status == 0
    assert town.config.read_text().strip() == TOML.format(folder=town.folder).strip()
    town.config.write_text(f'[defaults]\nnode = "orion"\nwait = false\n{text}')
    assert (await town("node", "remove", "orion")).status == 0
    assert tomllib.loads(town.config.read_text())["defaults"] == {"wait": False}
    town.config.write_text(TOML.format(folder=town.folder))
    for arguments, words in (
        (("add", "rift", "x:1"), "has a node rift already"),
        (("add", "vega", "nowhere"), "is not an address"),
        (("add", "vega", "vega:99999"), "has a port that there is not: they go from 1 to 65535"),
        (("remove", "vega"), "knows no node vega, only rift, orion"),
    ):
        ran = await town("node", *arguments)
        assert (ran.status, words in ran.stderr) == (ExitCode.USAGE, True)


@pytest.mark.parametrize("words", ["mcp status --node ", "mcp node drain ", "mcp node status "])
async def test_nodes_are_completed(town: Town, words: str) -> None:
    count = f"{len(words.split())}"
    for begun, names in (("", {"rift", "orion"}), ("o", {"orion"})):
        ran = await town(COMP_WORDS=words + begun, COMP_CWORD=count, _MCP_COMPLETE="bash_complete")
        assert {line.partition(",")[2] for line in ran.lines if line} == names


async def test_the_first_node_makes_the_settings(offline: Mcp) -> None:
    offline.config.unlink()
    ran = await offline("node", "add", "rift", "unix:/run/mcp/agent.sock", MCP_CONFIG="")
    assert ran.status == 0, ran.stderr
    made = offline.folder / ".config/mcp/mcp.toml"
    assert tomllib.loads(made.read_text()) == {"nodes": {"rift": {"address": "unix:/run/mcp/agent.sock"}}}


async def test_the_list_of_nodes_says_who_answers(alone: Town) -> None:
    ran = await alone("node", "list")
    assert [line.split()[0] for line in ran.lines] == ["NODE", "rift", "orion"]
    assert "does not answer" in ran.lines[2]
    assert ran.status == ExitCode.UNREACHABLE
    shown = (await alone("node", "status", "rift")).lines
    assert "podman reachable: 4.3.1" in shown
    assert shown[-1] == "snapshots: none"


async def test_a_drained_node_starts_again_what_was_not_stopped_before(town: Town) -> None:
    for name in ("hello", "quiet"):
        define(town, name, "rift")
        await town("deploy", name)
    await town("stop", "quiet")
    ran = await town("node", "drain", "rift", stdin="y\n")
    assert ran.status == 0, ran.stderr
    assert ran.lines[0] == (
        "node rift is drained: what is applied to it is stored, and not started, until mcp node undrain rift"
    )
    assert [one.spec.active for one in town.plane.registry.values()] == [False, False]
    assert "active" not in (town.folder / "services/hello.toml").read_text()
    define(town, "new", "rift")
    town.write("services/hello.toml", f'node = "rift"\n{other("hello").replace("v1.0.0", "v1.0.1")}')
    ran = await town("sync")
    assert "hello is kept stopped: node rift is drained; mcp node undrain rift" in ran.lines
    assert "new is kept stopped: node rift is drained; mcp node undrain rift" in ran.lines
    assert not any(one.spec.active for one in town.plane.registry.values() if one.name != "quiet")
    assert (await town("diff", "-f", "services/hello.toml")).status == 0
    (town.folder / "services/new.toml").unlink()
    await town("delete", "new")
    assert (await town("node", "undrain", "rift")).status == 0
    assert town.plane.registry["hello"].spec.components[0].image == "localhost/mcp-hello:v1.0.1"
    assert {one.name: one.spec.active for one in town.plane.registry.values()} == {"hello": True, "quiet": False}
    assert (await town("node", "undrain", "rift")).lines == [
        "node rift is not drained any more",
        "node rift has nothing to start",
    ]


async def test_who_looks_at_a_drained_node_sees_that_it_is(town: Town) -> None:
    ran = await town("node", "drain", "rift", "--yes", "-o", "json")
    assert json.loads(ran.stdout) == {"dry_run": False, "services": [], "unasked": []}
    define(town, "hello", "rift")
    await town("deploy", "hello")
    town.plane.turn("hello", ConditionType.READY, Status.FALSE, Reason.STOPPED, "stopped, as defined")
    ends = "node rift is drained; mcp node undrain rift"
    assert " drained " in (await town("list", "--node", "rift")).lines[1]
    ran = await town("status", "--node", "rift")
    assert re.search(rf" drained .* Stopped: {ends}$", ran.lines[1])
    assert re.fullmatch(r"node rift is drained by \S+ at \S+; mcp node undrain rift", ran.stderr.strip())
    assert re.fullmatch(rf"hello on rift: stopped for \ds: {ends}", (await town("status", "hello")).lines[0])
    for command in (("list",), ("status", "rift")):
        assert re.search(r"drained by \S+ at \S+; mcp node undrain rift", (await town("node", *command)).stdout)
    ran = await town("status", "--node", "rift", "-o", "json")
    found = json.loads(ran.stdout)
    assert (found["services"][0]["drained"], bool(found["nodes"][0]["drained"]["actor"])) == (True, True)
