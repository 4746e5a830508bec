"""`mcp purge`: forgets what nobody needs any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("purge")
@options.yes
@options.dry_run
@options.wait
@options.timeout
@options.command
async def cli(settings: Settings, yes: bool, dry_run: bool, wait: bool, within: float) -> int:
    """Forget services that have neither a definition in the services folder nor a container.

    They are listed first, and nothing is done before somebody says yes. Where
    the engine cannot be seen nothing counts as gone.
    """
    from cli.syncing import purge

    return await purge(settings, yes=yes, dry_run=dry_run, wait=wait, within=within)
