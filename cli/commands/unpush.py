"""`mcp unpush`: takes a push back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("unpush")
@click.argument("service")
@click.argument("path", type=options.PATH)
@click.option("--delete", is_flag=True, help="Remove it from the disk, too, though it is not managed.")
@click.option("--forget", is_flag=True, help="Keep none of its revisions: no rollback brings it back.")
@options.dry_run
@options.wait
@options.timeout
@options.command
async def cli(
    settings: Settings, service: str, path: str, delete: bool, forget: bool, dry_run: bool, wait: bool, within: float
) -> int:
    """Take back what was pushed to PATH in the folder of a service.

    A managed file is removed from the disk, any other one stays there and is
    no longer known. What is not as it was pushed is never removed. A rollback
    to a generation that had it brings it back.
    """
    from cli.unpushing import unpush

    return await unpush(
        settings, service, path, delete=delete, forget=forget, dry_run=dry_run, within=within if wait else None
    )
