"""`mcp export`: a service's definition, as a file that can be applied."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("export")
@click.argument("service")
@options.command
async def cli(settings: Settings, service: str) -> int:
    """Print a service's definition, complete: applying it changes nothing.

    It holds what its author set, secrets in `env` included, and nothing that
    was derived.
    """
    from api.manifest import dump
    from cli.connect import connected
    from cli.output import Output
    from cli.reports import ExportReport

    output = Output(settings)
    async with connected(settings) as client:
        spec = (await client.get(service)).spec
    if not output.silent:
        click.echo(dump(spec), nl=False)
    output.document(ExportReport(spec=spec))
    return 0
