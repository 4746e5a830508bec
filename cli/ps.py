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
    """List the containers of a node, ours or not.

    OWNER is `mcp` for those that MCP made; a `foreign` one is never touched.
    """
    from datetime import UTC, datetime

    from cli.connect import connected
    from cli.output import Output
    from cli.reports import ContainersReport
    from cli.views import containers_table

    output = Output(settings)
    async with connected(settings) as client:
        containers = await client.containers()
    if containers:
        output.table(containers_table(containers, datetime.now(UTC)))
    else:
        output.line("no containers")
    output.document(ContainersReport(containers=containers))
    return 0
