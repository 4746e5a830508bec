"""What the commands have in common: options, parameter types, and how a command is run.

Imports nothing heavy, since `mcp --help` reads it.
"""

import os
import re
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

INTERRUPTED = 130
"""The exit status of a command that was interrupted, as shells have it: 128 + SIGINT."""

Params = ParamSpec("Params")


def duration(seconds: float) -> str:
    """A time as one would write it: `2m`, `90s`, `0.3s`."""
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PARTS = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def seconds(text: str) -> float:
    """What a time such as `30s`, `2m` or `1h30m` means. Raises ValueError."""
    parts = _PARTS.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("is not a time such as 30s, 2m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the common options say."""

    output: str
    """`table`, `json` or `yaml`."""
    quiet: bool
    node: str | None
    address: str | None
    config: Path | None


class Duration(click.ParamType[float]):
    """A time such as `30s`, `2m` or `1h30m`; its value is in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds; refuses what is not a number with a unit."""
        if isinstance(value, float):
            return value
        try:
            return seconds(str(value))
        except ValueError as error:
            self.fail(f'"{value}" {error}', param, ctx)


_LABEL = "[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_SERVICE = re.compile(f"{_LABEL}(?:/{_LABEL})?")


class ServiceName(click.ParamType[str]):
    """The name of a service, with `/COMPONENT` where a command takes one; completed from what there is."""

    name = "service"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name as it is; refuses what cannot be one, before it leads to a file or a node."""
        text = str(value)
        if not _SERVICE.fullmatch(text) and (text or (param is not None and param.required)):
            self.fail(f'"{text}" is no name of a service: lower case letters, digits and inner dashes', param, ctx)
        return text

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002  # click's signature
        incomplete: str,
    ) -> list[CompletionItem]:
        """The services that begin so: those that agents know, or, where none answers soon, those with a definition."""
        from cli.completing import services

        return [CompletionItem(name) for name in services(ctx, incomplete)]


class FilePath(click.ParamType[str]):
    """A path in a service's folder; completed from what was pushed there."""

    name = "path"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002  # click's signature
        incomplete: str,
    ) -> list[CompletionItem]:
        """The paths that begin so, as the agent of the service before has them."""
        from cli.completing import paths

        return [CompletionItem(path) for path in paths(ctx, incomplete)]


class NodeName(click.ParamType[str]):
    """The name of a node; completed from mcp.toml."""

    name = "name"

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002  # click's signature
        incomplete: str,
    ) -> list[CompletionItem]:
        """The nodes that begin so."""
        from cli.completing import nodes

        return [CompletionItem(name) for name in nodes(ctx, incomplete)]


SERVICE = ServiceName()
NODE = NodeName()
PATH = FilePath()
LOCAL = click.Path(readable=False)
"""A file on this machine: the shell completes it, the command says what is wrong with it."""

_COMMON = (
    click.option("--node", type=NODE, metavar="NAME", help="Ask this node of mcp.toml."),
    click.option("--address", metavar="ADDR", help="Ask the agent at unix:///path or host:port; mcp.toml is not read."),
    click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        help="The command's own settings. Default: $MCP_CONFIG, ~/.config/mcp/mcp.toml, "
        "/srv/mcp/mcp.toml, /etc/mcp/mcp.toml: the first that exists.",
    ),
    click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json", "yaml"]),
        default="table",
        show_default=True,
        envvar="MCP_OUTPUT",
        show_envvar=True,
        help="What is printed: for people, or for programs.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Print errors only."),
)

files = click.option(
    "-f",
    "--file",
    "files",
    metavar="FILE|DIR|-",
    multiple=True,
    required=True,
    help="A definition, a folder of *.toml, or - for standard input. Can be repeated.",
)
wait = click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    envvar="MCP_WAIT",
    show_envvar=True,
    help="Wait until it is done.",
)
timeout = click.option(
    "--timeout",
    "within",
    type=Duration(),
    default="2m",
    show_default=True,
    envvar="MCP_TIMEOUT",
    show_envvar=True,
    help="How long to wait: 30s, 2m, 1h.",
)
dry_run = click.option("--dry-run", is_flag=True, help="Change nothing; say what would be done.")


yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def confirm(question: str, *, yes: bool) -> None:
    """Has a person agree, unless `yes`. Raises click.Abort, and click.UsageError where nobody is there to answer."""
    if yes:
        return
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise click.UsageError("nobody is there to answer: with --yes it is not asked") from None
    if not agreed:
        raise click.Abort


def target(value: str) -> tuple[str, str]:
    """The service and the component of SERVICE[/COMPONENT]; an empty component for none."""
    service, _, component = value.partition("/")
    return service, component


def command(run: Callable[Concatenate[Settings, Params], Coroutine[Any, Any, int]]) -> Callable[..., int]:
    """Makes a command's coroutine callable by click: common options become Settings, its result the exit status."""

    @wraps(run)
    def call(
        node: str | None,
        address: str | None,
        config: Path | None,
        output: str,
        quiet: bool,
        *args: Params.args,
        **kwargs: Params.kwargs,
    ) -> int:
        import asyncio

        # gRPC reads it when it is imported; its own opinions have no place beside our sentences.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        settings = Settings(output, quiet, node, address, config)
        unsaid = _unsaid(settings)
        settings = replace(settings, output=unsaid.pop("output", output))
        kwargs.update(unsaid)
        try:
            return asyncio.run(run(settings, *args, **kwargs))
        except KeyboardInterrupt:
            return INTERRUPTED

    decorated: Callable[..., int] = call
    for option in reversed(_COMMON):
        decorated = option(decorated)
    return decorated


def _unsaid(settings: Settings) -> dict[str, Any]:
    """What mcp.toml says for parameters of this command that neither its caller nor the environment has set."""
    from cli.config import defaults

    context = click.get_current_context()
    return {
        name: value
        for name, value in defaults(settings).items()
        if context.get_parameter_source(name) is ParameterSource.DEFAULT
    }
