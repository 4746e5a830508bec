"""The command's own settings, `mcp.toml`: which nodes there are and where their agents answer."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import click
from pydantic import AfterValidator, Field

from api.complaints import Tables
from api.errors import Refused
from api.fields import Name, Text
from api.manifest import InvalidManifest, read
from api.model import Model
from cli.options import Settings, seconds

DEFAULT_NODE = "MCP_DEFAULT_NODE"
"""The variable that goes before `defaults.node`; MCP_NODE is on which node an agent, or a container of its, runs."""


def _time(value: str) -> str:
    seconds(value)
    return value


def _address(value: str) -> str:
    if not re.fullmatch(r"unix:(?://)?(/[^/\0][^\0]*)|(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):\d{1,5}", value):
        raise ValueError("is not an address such as unix:///run/mcp/agent.sock or rift.example:9444")
    if not value.startswith("unix:") and not 0 < int(value.rpartition(":")[2]) < 65536:
        raise ValueError("has a port that there is not: they go from 1 to 65535")
    return value


def _command(words: tuple[str, ...]) -> tuple[str, ...]:
    if not words:
        raise ValueError("names no program: leave it out where podman is called podman")
    return words


class Node(Model):
    """Where a node's agent answers."""

    address: Annotated[str, AfterValidator(_address)] = Field(
        description="unix:///path/to/agent.sock, or host:port for TLS."
    )
    ca_file: str | None = Field(
        default=None,
        description="The CA that signed the agent's certificate; relative to this file. Default: the system's CAs.",
    )
    token_file: str | None = Field(
        default=None, description="Where the token for this node is kept. Default: that of all nodes."
    )
    cert_file: str | None = Field(
        default=None, description="A certificate to show this node, where its agent asks for one; PEM, leaf first."
    )
    key_file: str | None = Field(default=None, description="The key of `cert_file`, PEM.")


class Defaults(Model):
    """What is meant where neither an option nor the environment says so."""

    node: Name | None = Field(
        default=None, description="The node of what names none: neither --node nor, for a service, its definition."
    )
    timeout: Annotated[str, AfterValidator(_time)] | None = Field(
        default=None, description="How long is waited until something is done: 30s, 2m, 1h."
    )
    wait: bool | None = Field(default=None, description="Whether it is waited for at all.")
    output: Literal["table", "json", "yaml"] | None = Field(
        default=None, description="What is printed: for people, or for programs."
    )


class Building(Model):
    """How `mcp build` makes images on this machine."""

    workspace: str | None = Field(
        default=None,
        description="The folder that holds the services' sources, each in the folder that its `path` says; "
        "relative to this file.",
    )
    registry: str = Field(
        default="", description="What derived images begin with, host[:port][/path]: the agents' `defaults.registry`."
    )
    podman: Annotated[tuple[Text, ...], AfterValidator(_command)] = Field(
        default=("podman",),
        description="The podman that builds and pushes, with its global options, as a list of words. "
        'Default: ["podman"].',
    )
    tls_verify: bool = Field(
        default=True, description="false: images are pushed over plain HTTP, too, and whatever the certificate."
    )
    auth_file: str | None = Field(
        default=None,
        description="Names and passwords of registries, as `podman login` writes them; relative to this file. "
        "Default: podman's own.",
    )


class Config(Model):
    """All nodes that the command knows."""

    token_file: str | None = Field(
        default=None,
        description="Where `mcp login` keeps the token; relative to this file. Default: ~/.config/mcp/token.",
    )
    services: str | None = Field(
        default=None, description="The folder of definitions; relative to this file. Default: services, beside it."
    )
    mcias_url: str | None = Field(default=None, description="The MCIAS that `mcp login` logs in to.")
    mcias_ca_file: str | None = Field(
        default=None, description="The CA that signed MCIAS' certificate. Default: the system's CAs."
    )
    defaults: Defaults = Field(default_factory=Defaults, description="What is meant where nothing else is said.")
    build: Building = Field(default_factory=Building, description="How images are made.")
    nodes: dict[Name, Node] = Field(min_length=1, description="The nodes, by name.")


_TABLES: Tables = {
    Config: ("mcp.toml", "at the top, before the first table"),
    Defaults: ("[defaults]", "in [defaults]"),
    Building: ("[build]", "in [build]"),
    Node: ("a node", "in [nodes.<name>]"),
}


class UnknownNode(Refused):
    """A definition names a node that this command cannot reach."""


class Nodes:
    """The nodes that a command may ask, and which one it is to ask."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._config: Config | None = None
        self._path: Path | None = None
        if settings.address is not None:
            _check_address(settings.address)
        else:
            self._path = find(settings.config)
            self._config = load(self._path)

    def choose(self, wanted: str | None = None) -> Node:
        """The agent to ask about something that wants to be on node `wanted`. Raises click.UsageError."""
        return self.named(self.name(wanted))

    def name(self, wanted: str | None = None) -> str:
        """The name of the node to ask; empty where an address was given instead.

        Raises UnknownNode where it is `wanted` that mcp.toml does not know.
        """
        name = self.meant(wanted)
        if not name and self._config is not None:
            raise click.UsageError(f"{self._path} has several nodes and no defaults.node: say which with --node")
        return name

    def meant(self, wanted: str | None = None) -> str:
        """As `name`, but empty where nothing says which of several is to be asked, too."""
        if self._config is None:
            return ""
        asked = self._settings.node
        if asked and wanted and asked != wanted:
            raise click.UsageError(f'the definition is for node "{wanted}", but --node says "{asked}"')
        name = asked or wanted or os.environ.get(DEFAULT_NODE) or self._config.defaults.node
        if name is None and len(self._config.nodes) == 1:
            name = next(iter(self._config.nodes))
        if name is not None and name not in self._config.nodes:
            message = f'{self._path} knows no node "{name}", only {", ".join(self._config.nodes)}'
            raise UnknownNode(message) if name == wanted else click.UsageError(message)
        return name or ""

    def every(self) -> tuple[str, ...]:
        """The names of the nodes to ask about all that there is: the one that the options name, or all."""
        if self._config is None or self._settings.node:
            return (self.name(),)
        return tuple(self._config.nodes)

    @property
    def services(self) -> Path:
        """The folder of definitions, which need not exist."""
        if self._config is None or self._path is None:
            return home() / "services"
        return self._path.parent / Path(self._config.services or "services").expanduser()

    @property
    def building(self) -> Building:
        """How images are made, its folder and file anchored; as without mcp.toml where an address was given instead."""
        if self._config is None or self._path is None:
            return Building()
        said = self._config.build
        anchored = {name: _beside(self._path, getattr(said, name)) for name in ("workspace", "auth_file")}
        return said.model_copy(update=anchored)

    @property
    def source(self) -> str:
        """What mcp.toml is called in a sentence."""
        return str(self._path or "mcp.toml")

    @property
    def mcias(self) -> tuple[str | None, str | None]:
        """URL and CA file of the MCIAS that is logged in to, where mcp.toml names them."""
        return (self._config.mcias_url, self._config.mcias_ca_file) if self._config else (None, None)

    def named(self, name: str) -> Node:
        """The node of that name, as `name` gave it."""
        if self._config is None:
            return Node(address=str(self._settings.address))
        return self._config.nodes[name]


def home() -> Path:
    """The folder of what is the caller's own."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "mcp"


def candidates() -> tuple[Path, ...]:
    """Where mcp.toml is looked for when nothing names it, first wins."""
    return (home() / "mcp.toml", Path("/srv/mcp/mcp.toml"), Path("/etc/mcp/mcp.toml"))


def find(flag: Path | None) -> Path:
    """The file to read. Raises click.UsageError where there is none."""
    if flag is not None:
        return flag
    if variable := os.environ.get("MCP_CONFIG"):
        return Path(variable)
    for path in candidates():
        if path.is_file():
            return path
    places = ", ".join(str(path) for path in candidates())
    raise click.UsageError(
        f"no agent to ask: there is no mcp.toml ({places}), no MCP_CONFIG, no --config and no --address"
    )


def load(path: Path) -> Config:
    """Reads mcp.toml. Raises click.UsageError with all that is wrong with it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror}") from error
    config = check(content, path)
    nodes = {name: _anchored(node, config, path) for name, node in config.nodes.items()}
    return config.model_copy(update={"nodes": nodes, "mcias_ca_file": _beside(path, config.mcias_ca_file)})


def defaults(settings: Settings) -> dict[str, Any]:
    """What mcp.toml says for options, by their parameters' names.

    Nothing where there is none, or where it is wrong: whoever needs it says so.
    """
    if settings.address is not None:
        return {}
    try:
        said = load(find(settings.config)).defaults
    except click.UsageError:
        return {}
    within = seconds(said.timeout) if said.timeout else None
    values = {"output": said.output, "wait": said.wait, "within": within}
    return {name: value for name, value in values.items() if value is not None}


def check(content: bytes | str, path: Path) -> Config:
    """What that content of mcp.toml says. Raises click.UsageError with all that is wrong with it."""
    try:
        config, lines = read(content, str(path), Config, _TABLES)
    except InvalidManifest as error:
        raise click.UsageError(str(error)) from error
    node = config.defaults.node
    if node is not None and node not in config.nodes:
        line = lines.line_of(("defaults", "node"))
        raise click.UsageError(
            f"{path}:{line}: defaults.node: there is no [nodes.{node}], only {', '.join(config.nodes)}"
        )
    return config


def _anchored(node: Node, config: Config, path: Path) -> Node:
    files = {name: getattr(node, name) for name in ("ca_file", "token_file", "cert_file", "key_file")}
    files["token_file"] = files["token_file"] or config.token_file
    return node.model_copy(update={name: _beside(path, file) for name, file in files.items()})


def _beside(path: Path, file: str | None) -> str | None:
    return None if file is None else str(path.parent / Path(file).expanduser())


def _check_address(value: str) -> None:
    try:
        _address(value)
    except ValueError as error:
        raise click.UsageError(f'--address "{value}" {error}') from error
