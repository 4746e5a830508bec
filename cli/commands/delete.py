"""`mcp delete`: takes services away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("delete")
@click.argument("services", nargs=-1, required=True, metavar="SERVICE...")
@options.dry_run
@options.wait
@options.timeout
@options.command
async def cli(settings: Settings, services: tuple[str, ...], dry_run: bool, wait: bool, within: float) -> int:
    """Take services away, with all that belongs to them.

    Routes go first, then containers, certificates and ports. What MCP did not
    make stays untouched, and so does the data below /srv. Services of several
    nodes go side by side; one that cannot be taken away is told, and the others
    go nevertheless.
    """
    from cli.removal import delete

    return await delete(settings, services, dry_run=dry_run, wait=wait, within=within)
