"""`mcp start`: has a service or a component run again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("start")
@click.argument("service", metavar="SERVICE[/COMPONENT]")
@options.wait
@options.timeout
@options.command
async def cli(settings: Settings, service: str, wait: bool, within: float) -> int:
    """Have a service run again, or one component of it.

    The definition in the services folder then says active = true, with its
    comments as they are. A service that was undeployed is applied from there.
    """
    from cli.wish import activate

    return await activate(settings, service, active=True, wait=wait, within=within)
