"""`mcp files`: what was pushed to a service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("files")
@click.argument("service")
@click.argument("path", required=False, type=options.PATH)
@click.option("--history", is_flag=True, help="The earlier revisions that are kept, too.")
@options.command
async def cli(settings: Settings, service: str, path: str | None, history: bool) -> int:
    """List the files that were pushed to a service, or the one at PATH: whether they lie there, since when, by whom.

    With --history all that a rollback may bring back, oldest first: GEN is the
    generation that the service had when it was pushed.
    """
    import asyncio

    from api.errors import ExitCode, NotFound
    from cli.connect import connected
    from cli.file_views import files_table
    from cli.output import Output
    from cli.reports.files import FilesReport

    output = Output(settings)
    async with connected(settings, service) as client:
        known, files = await asyncio.gather(client.get(service), client.files.files(service, history=history))
    if path is not None:
        files = tuple(file for file in files if file.path == path)
        if not files:
            raise NotFound(f"nothing of {service} is kept at {path}: mcp files {service} lists what is")
    if files:
        output.table(files_table(known, files))
    else:
        output.line(f"nothing was pushed to {service}" if history else f"{service} has no files")
    output.document(FilesReport(service=service, files=files))
    return ExitCode.DONE
