"""`mcp version`: what runs here, and at the agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from api.service import NodeStatus
    from cli.options import Settings
    from cli.output import Output


@click.command("version")
@options.command
async def cli(settings: Settings) -> int:
    """Show the versions of this command and of the agent, and what the agent depends on.

    Works without an agent, too, as long as none is configured.
    """
    from importlib.metadata import version

    from cli.output import Output
    from cli.reports import VersionReport

    output = Output(settings)
    own = version("metacircular-mcp")
    output.line(f"mcp {own}")
    node = await _agent(settings, output)
    output.document(VersionReport(version=own, node=node))
    return 0


async def _agent(settings: Settings, output: Output) -> NodeStatus | None:
    from cli.config import Nodes
    from cli.connect import client_for

    try:
        node = Nodes(settings).choose()
    except click.UsageError as error:
        if settings.config or settings.node or settings.address:
            raise
        output.line(f"no agent: {error.message}")
        return None
    async with client_for(node) as client:
        status = await client.node_status()
    output.line(f"mcp-agent {status.version} on {status.node}, {status.ready} of {status.services} services ready")
    for part in status.parts:
        output.line(f"  {part.name} {'reachable' if part.reachable else 'NOT REACHABLE'}: {part.detail}")
    return status
