"""`mcp version`: what runs here, and at the agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("version")
@options.command
async def cli(settings: Settings) -> int:
    """Show the versions of this command and of the agents, and what they depend on.

    Works without an agent, too, as long as none is configured.
    """
    from importlib.metadata import version

    from cli.config import Nodes
    from cli.connect import ask, failures
    from cli.output import Output
    from cli.reports.nodes import VersionReport

    output = Output(settings)
    own = version("metacircular-mcp")
    output.line(f"mcp {own}")
    try:
        Nodes(settings)
    except click.UsageError as error:
        if settings.config or settings.node or settings.address:
            raise
        output.line(f"no agent: {error.message}")
        output.document(VersionReport(version=own))
        return 0
    answers = await ask(settings, lambda client: client.node_status(), alone=False)
    nodes = tuple(answer.value for answer in answers if answer.value is not None)
    for node in nodes:
        output.line(f"mcp-agent {node.version} on {node.node}, {node.ready} of {node.services} services ready")
        for part in node.parts:
            output.line(f"  {part.name} {'reachable' if part.reachable else 'NOT REACHABLE'}: {part.detail}")
    unasked, status = failures(output, answers)
    output.document(VersionReport(version=own, nodes=nodes, unasked=unasked))
    return status
