"""`mcp apply`: hands definitions over, then says how they become true."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("apply")
@options.files
@options.dry_run
@options.wait
@options.timeout
@options.command
async def cli(settings: Settings, files: tuple[str, ...], dry_run: bool, wait: bool, within: float) -> int:
    """Make services be as their definitions say.

    All definitions are read and checked before the first is handed over: a
    mistake in one changes nothing anywhere. One line tells what became of each
    (created, configured, unchanged); then apply waits until that very
    generation runs, and says what it is waiting for. Each definition goes to
    its node; one whose node is down is told, and holds up no other.
    Interrupting it leaves the rollout going.
    """
    from cli.rollout import apply

    return await apply(settings, files, dry_run=dry_run, wait=wait, within=within)
