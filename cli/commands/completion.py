"""`mcp completion`: what a shell needs to complete commands, options and services."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@options.command
async def cli(settings: Settings, shell: str) -> int:
    """Print what completes commands, options and the names of services in a shell.

    \b
    bash: echo 'eval "$(mcp completion bash)"' >>~/.bashrc
    zsh:  echo 'eval "$(mcp completion zsh)"' >>~/.zshrc
    fish: mcp completion fish >~/.config/fish/completions/mcp.fish
    """
    from click.shell_completion import get_completion_class

    from cli.main import cli as mcp
    from cli.output import Output
    from cli.reports.nodes import CompletionReport

    output = Output(settings)
    kind = get_completion_class(shell)
    script = "" if kind is None else kind(mcp, {}, "mcp", "_MCP_COMPLETE").source()
    if not output.silent:
        click.echo(script)
    output.document(CompletionReport(shell=shell, script=script))
    return 0
