"""`mcp restart`: has containers made anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("restart")
@click.argument("service", metavar="SERVICE[/COMPONENT]")
@options.wait
@options.timeout
@options.command
async def cli(settings: Settings, service: str, wait: bool, within: float) -> int:
    """Have the containers of a service made anew, or those of one component.

    In the way in which an update replaces them: with update.strategy =
    "blue-green" nobody notices. The definition stays as it is.
    """
    from cli.wish import restart

    return await restart(settings, service, wait=wait, within=within)
