"""`mcp undeploy`: takes a service away from its node, not from its operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("undeploy")
@click.argument("service", metavar="SERVICE")
@options.dry_run
@options.wait
@options.timeout
@options.command
async def cli(settings: Settings, service: str, dry_run: bool, wait: bool, within: float) -> int:
    """Take a service away from its node, and keep its definition.

    As `mcp delete`: routes, containers, certificates and ports go, and so does
    what the agent knew. The file in the services folder stays, with active =
    false; `mcp start` brings the service back.
    """
    from cli.wish import undeploy

    return await undeploy(settings, service, dry_run=dry_run, wait=wait, within=within)
