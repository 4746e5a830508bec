"""`mcp resume`: has services converged again that were left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("resume")
@click.argument("services", nargs=-1, metavar="[SERVICE...]")
@click.option("--all", "everything", is_flag=True, help="All services of the node that are suspended.")
@options.command
async def cli(settings: Settings, services: tuple[str, ...], everything: bool) -> int:
    """Have services converged again that were suspended, by a person or by a restore.

    `mcp status SERVICE` says beforehand what will then be done.
    """
    from cli.connect import connected
    from cli.output import Output
    from cli.reports import ResumedServices

    if everything == bool(services):
        raise click.UsageError("say which services, or --all")
    output = Output(settings)
    async with connected(settings, services[0] if services else "") as client:
        names = dict.fromkeys(services)
        if everything:
            names = dict.fromkeys(one.name for one in await client.services() if one.suspended)
        resumed = []
        for name in names:
            resumed.append(await client.resume(name))
            output.line(f"{name} is resumed")
        if not resumed:
            output.line("no service is suspended")
    output.document(ResumedServices(services=tuple(resumed)))
    return 0
