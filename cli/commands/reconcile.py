"""`mcp reconcile`: has services looked at now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("reconcile")
@click.argument("services", nargs=-1, required=True, metavar="SERVICE...")
@click.option(
    "--timeout", "within", type=options.Duration(), default="30s", show_default=True, help="How long to wait: 30s, 2m."
)
@options.command
async def cli(settings: Settings, services: tuple[str, ...], within: float) -> int:
    """Have services looked at now, and say what was found.

    MCP looks by itself when anything happens, and every few minutes. This is
    for whoever does not want to wait for the end of a pause after a failure. It
    returns once all have looked, not once all is as defined.
    """
    import asyncio
    from datetime import UTC, datetime

    from api.errors import ExitCode
    from cli.connect import connected
    from cli.output import Output
    from cli.reports import LookedService, LookedServices
    from cli.views import late_line, services_table

    output = Output(settings)
    names = list(dict.fromkeys(services))
    async with connected(settings, services[0]) as client:
        answers = await asyncio.gather(*(client.reconcile(name, within=within) for name in names))
    output.table(services_table((looked.service for looked in answers), datetime.now(UTC)))
    output.document(
        LookedServices(services=tuple(LookedService(service=looked.service, late=looked.late) for looked in answers))
    )
    for name, looked in zip(names, answers, strict=True):
        if looked.late:
            output.error(late_line(name, looked.late))
    return ExitCode.TIMED_OUT if any(looked.late for looked in answers) else ExitCode.DONE
