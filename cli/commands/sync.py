"""`mcp sync`: all definitions of the services folder, on their nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("sync")
@click.option("--build", is_flag=True, help="First build and push those of all their images that do not exist.")
@click.option(
    "--prune", is_flag=True, help="Take away services that have no definition in the folder; lists them first."
)
@options.yes
@options.dry_run
@options.wait
@options.timeout
@options.command
async def cli(settings: Settings, build: bool, prune: bool, yes: bool, dry_run: bool, wait: bool, within: float) -> int:
    """Apply all definitions of the services folder, each on its node.

    All are read and checked before the first is handed over. A node that is
    down is told and holds up no other. An empty folder prunes nothing. With
    --build nothing is applied where a build fails.
    """
    from cli.syncing import sync

    return await sync(settings, build=build, prune=prune, yes=yes, dry_run=dry_run, wait=wait, within=within)
