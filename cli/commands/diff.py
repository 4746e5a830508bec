"""`mcp diff`: what applying would change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("diff")
@options.files
@options.command
async def cli(settings: Settings, files: tuple[str, ...]) -> int:
    """Show what applying definitions would change, field by field, and what would be done.

    Exits with 0 where nothing differs and with 1 where something does. Values
    that look secret are masked.
    """
    from cli.rollout import diff

    return await diff(settings, files)
