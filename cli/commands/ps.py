"""`mcp ps`: the containers of a node."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("ps")
@options.command
async def cli(settings: Settings) -> int:
    """List the containers of all nodes, ours or not.

    OWNER is `mcp` for those that MCP made; a `foreign` one is never touched.
    """
    from datetime import UTC, datetime

    from cli.connect import ask, failures
    from cli.output import Output
    from cli.reports.parts import ContainersReport, NodeContainer
    from cli.views import containers_table, located

    output = Output(settings)
    answers = await ask(settings, lambda client: client.containers())
    containers = tuple(
        NodeContainer(node=answer.node, **dict(container)) for answer in answers for container in answer.value or ()
    )
    if containers:
        table = containers_table(containers, datetime.now(UTC))
        output.table(located(table, (one.node for one in containers)) if len(answers) > 1 else table)
    else:
        output.line("no containers")
    unasked, status = failures(output, answers)
    output.document(ContainersReport(containers=containers, unasked=unasked))
    return status
