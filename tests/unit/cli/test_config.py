"""Which agent is asked, and what is said when that cannot be known."""

from pathlib import Path

import pytest
from click import UsageError

from api.manifest import read
from cli.config import Building, Config, Defaults, Node, Nodes, UnknownNode, candidates, find, load
from cli.options import Settings

TWO = """\
[nodes.rift]
address = "unix:///run/mcp/agent.sock"
[nodes.orion]
address = "orion.example:9444"
ca_file = "ca.pem"
"""


def settings(path: Path | None, *, node: str | None = None, address: str | None = None) -> Settings:
    return Settings("table", False, node, address, path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "mcp.toml"
    path.write_text(TWO)
    return path


def refusal(path: Path, text: str) -> str:
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load(path)
    return caught.value.message.replace(str(path), "f")


def test_the_commented_example_is_read_and_sets_every_field() -> None:
    content = Path("deploy/mcp.toml").read_text()
    config, _ = read(content, "deploy/mcp.toml", Config, {})
    assert config.model_fields_set == set(Config.model_fields)
    assert config.defaults.model_fields_set == set(Defaults.model_fields)
    assert config.build.model_fields_set == set(Building.model_fields)
    assert set().union(*(node.model_fields_set for node in config.nodes.values())) == set(Node.model_fields)
    for place in ("--config", "MCP_CONFIG", *(str(path) for path in candidates()[1:]), "~/.config/mcp/mcp.toml"):
        assert place in content


def test_a_node_is_chosen_by_flag_then_definition_then_default_then_being_the_only_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Nodes(settings(path, node="orion")).name() == "orion"
    assert Nodes(settings(path)).name("orion") == "orion"
    path.write_text(f'[defaults]\nnode = "rift"\n{TWO}')
    assert Nodes(settings(path)).name() == "rift"
    assert Nodes(settings(path, node="orion")).name() == "orion"
    monkeypatch.setenv("MCP_DEFAULT_NODE", "orion")
    assert (Nodes(settings(path)).name(), Nodes(settings(path)).name("rift")) == ("orion", "rift")
    monkeypatch.delenv("MCP_DEFAULT_NODE")
    path.write_text(TWO.split("[nodes.orion]", maxsplit=1)[0])
    assert Nodes(settings(path)).choose().address == "unix:///run/mcp/agent.sock"


def test_a_ca_file_is_relative_to_the_settings(path: Path) -> None:
    assert Nodes(settings(path)).choose("orion").ca_file == str(path.parent / "ca.pem")


def test_an_address_needs_no_settings() -> None:
    nodes = Nodes(settings(Path("/nonexistent"), address="unix:///x.sock"))
    assert nodes.choose("anything").address == "unix:///x.sock"
    with pytest.raises(UsageError, match="is not an address"):
        Nodes(settings(None, address="/x.sock"))


@pytest.mark.parametrize(
    ("node", "wanted", "message"),
    [
        ("rift", "orion", 'the definition is for node "orion", but --node says "rift"'),
        (None, None, "several nodes and no defaults.node"),
        ("vega", None, 'knows no node "vega", only rift, orion'),
    ],
)
def test_a_node_that_cannot_be_chosen_is_told(path: Path, node: str | None, wanted: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Nodes(settings(path, node=node)).name(wanted)


def test_a_definitions_node_that_is_not_known_is_the_definitions_mistake(path: Path) -> None:
    with pytest.raises(UnknownNode, match='knows no node "vega", only rift, orion'):
        Nodes(settings(path)).name("vega")


def test_settings_are_found_by_flag_then_variable_then_place(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MCP_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "mcp").mkdir()
    placed = tmp_path / "mcp" / "mcp.toml"
    placed.write_text(TWO)
    assert find(None) == placed
    monkeypatch.setenv("MCP_CONFIG", str(path))
    assert find(None) == path
    assert find(Path("flag")) == Path("flag")


def test_mistakes_are_told_with_their_place(path: Path) -> None:
    assert refusal(path, "") == ("f:1: nodes: is missing: mcp.toml needs it, for example [nodes.rift] with an address")
    assert refusal(path, "[nodes]") == "f:1: nodes: needs at least one [nodes.<name>] table, not a table"
    assert refusal(path, "[nodes.rift]\nadress = 1").splitlines() == [
        'f:1: nodes.rift.address: is missing: a node needs it, for example address = "unix:///run/mcp/agent.sock"',
        'f:2: nodes.rift.adress: is not a field of a node; did you mean "address"?',
    ]
    assert refusal(path, '[nodes.rift]\naddress = "/run/x"') == (
        'f:2: nodes.rift.address: "/run/x" is not an address such as unix:///run/mcp/agent.sock or rift.example:9444'
    )
    assert refusal(path, f'[defaults]\nnode = "vega"\n{TWO}') == (
        "f:2: defaults.node: there is no [nodes.vega], only rift, orion"
    )
    wrong = f'[defaults]\ntimeout = "5"\nwait = "no"\noutput = "xml"\n{TWO}'
    assert refusal(path, wrong).splitlines() == [
        'f:2: defaults.timeout: "5" is not a time such as 30s, 2m or 1h30m',
        'f:3: defaults.wait: must be true or false, not "no"',
        'f:4: defaults.output: must be "table", "json" or "yaml", not "xml"',
    ]
    assert refusal(path, "[nodes") == "f:1: this is not TOML: Expected ']' at the end of a table declaration"
    path.unlink()
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load(path)
