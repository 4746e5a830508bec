"""`mcp pull`: brings a file from a service's folder here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("pull")
@click.argument("service")
@click.argument("path", type=options.PATH)
@click.argument("file", required=False, metavar="[FILE|-]", type=options.LOCAL)
@options.command
async def cli(settings: Settings, service: str, path: str, file: str | None) -> int:
    """Bring a file from the folder of a service on its node, as it lies there now.

    Without FILE it is written under its name in this folder, with - to standard
    output. A FILE that is there is replaced once all of the other is here.
    """
    from cli.pulling import pull

    return await pull(settings, service, path, file)
