"""`mcp stop`: keeps a service or a component stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("stop")
@click.argument("service", metavar="SERVICE[/COMPONENT]")
@options.wait
@options.timeout
@options.command
async def cli(settings: Settings, service: str, wait: bool, within: float) -> int:
    """Keep a service stopped, or one component of it.

    Its routes are withdrawn, its containers end and stay; ports, certificates
    and names are kept for it. The definition in the services folder then says
    active = false, with its comments as they are.
    """
    from cli.wish import activate

    return await activate(settings, service, active=False, wait=wait, within=within)
