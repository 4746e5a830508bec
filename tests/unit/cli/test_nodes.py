"""Several nodes: asked side by side, and one that is down is a line in the answer."""

import json
import tomllib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

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


def define(town: Town, name: str, node: str) -> None:
    town.write(f"services/{name}.toml", f'node = "{node}"\n{other(name)}')


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


@pytest.mark.parametrize("command", ["list", "status", "ps", "routes", "certs", "events"])
async def test_a_node_that_is_down_is_a_line_in_the_answer(alone: Town, command: str) -> None:
    alone.plane.note("hello", "created", "hello-web")
    ran = await alone(command)
    assert ran.status == ExitCode.UNREACHABLE
    assert ran.stderr.startswith("orion: the agent at ")
    assert ran.stdout
    document = json.loads((await alone(command, "-o", "json")).stdout)
    assert [one["node"] for one in document["unasked"]] == ["orion"]


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
    assert (await town("sync", "--prune", "--yes")).status == 0
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
    for arguments, words in (
        (("add", "rift", "x:1"), "has a node rift already"),
        (("add", "vega", "nowhere"), "is not an address"),
        (("remove", "vega"), "knows no node vega, only rift, orion"),
    ):
        ran = await town("node", *arguments)
        assert (ran.status, words in ran.stderr) == (ExitCode.USAGE, True)


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
    assert "podman reachable: 4.3.1" in (await alone("node", "status", "rift")).lines


async def test_a_drained_node_starts_again_what_was_not_stopped_before(town: Town) -> None:
    for name in ("hello", "quiet"):
        define(town, name, "rift")
        await town("deploy", name)
    await town("stop", "quiet")
    ran = await town("node", "drain", "rift", stdin="y\n")
    assert ran.status == 0, ran.stderr
    assert [one.spec.active for one in town.plane.registry.values()] == [False, False]
    assert "active" not in (town.folder / "services/hello.toml").read_text()
    assert (await town("node", "undrain", "rift")).status == 0
    assert {one.name: one.spec.active for one in town.plane.registry.values()} == {"hello": True, "quiet": False}
    assert (await town("node", "undrain", "rift")).lines == ["node rift has nothing to start"]
