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
    make stays untouched, and so does the data below /srv. Where one of the
    services does not exist, none is taken away.
    """
    from cli.removal import delete

    return await delete(settings, services, dry_run=dry_run, wait=wait, within=within)
