"""`mcp node`: the nodes of mcp.toml, and all that runs on one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.group("node")
def cli() -> None:
    """List, add, remove and drain the nodes of mcp.toml."""


@cli.command("list")
@options.command
async def listed(settings: Settings) -> int:
    """List the nodes of mcp.toml, and whether their agents answer."""
    from cli.nodes import show

    return await show(settings)


@cli.command("status")
@click.argument("name", type=options.NODE)
@options.command
async def status(settings: Settings, name: str) -> int:
    """Show a node's agent, and whether it reaches what it depends on."""
    from dataclasses import replace

    from cli.nodes import show

    return await show(replace(settings, node=name), parts=True)


@cli.command("add")
@click.argument("name")
@click.argument("where", metavar="ADDRESS")
@click.option("--ca-file", metavar="FILE", help="The CA that signed the agent's certificate.")
@click.option("--token-file", metavar="FILE", help="Where the token for this node is kept.")
@options.command
async def add(settings: Settings, name: str, where: str, ca_file: str | None, token_file: str | None) -> int:
    """Add a node to mcp.toml: unix:///path/to/agent.sock, or host:port for TLS."""
    from cli.nodes import add as run

    return run(settings, name, {"address": where, "ca_file": ca_file, "token_file": token_file})


@cli.command("remove")
@click.argument("name", type=options.NODE)
@options.command
async def remove(settings: Settings, name: str) -> int:
    """Remove a node from mcp.toml; what runs there goes on."""
    from cli.nodes import remove as run

    return run(settings, name)


@cli.command("drain")
@click.argument("name", type=options.NODE)
@options.yes
@options.wait
@options.timeout
@options.command
async def drain(settings: Settings, name: str, yes: bool, wait: bool, within: float) -> int:
    """Stop all services of a node, for its maintenance.

    Definitions stay as they are. What is applied to a drained node is stored,
    and not started: its agent remembers. `mcp node undrain` starts again what
    this stopped, and nothing that was stopped before; `mcp start` starts one.
    """
    from dataclasses import replace

    from cli.config import Nodes
    from cli.wish import drain as run

    Nodes(replace(settings, node=name)).name()
    options.confirm(f"Stop all services of node {name}?", yes=yes)
    return await run(settings, name, active=False, wait=wait, within=within)


@cli.command("undrain")
@click.argument("name", type=options.NODE)
@options.wait
@options.timeout
@options.command
async def undrain(settings: Settings, name: str, wait: bool, within: float) -> int:
    """Start again the services that `mcp node drain` stopped."""
    from cli.wish import drain as run

    return await run(settings, name, active=True, wait=wait, within=within)
