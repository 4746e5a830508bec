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
    "--timeout",
    "patience",
    type=options.Duration(),
    default="30s",
    show_default=True,
    help="How long to wait: 30s, 2m.",
)
@options.command
async def cli(settings: Settings, services: tuple[str, ...], patience: float) -> int:
    """Have services looked at now, and say what was found.

    MCP looks by itself when anything happens, and every few minutes. This is
    for whoever does not want to wait for the end of a pause after a failure. It
    returns once all have looked, not once all is as defined.
    """
    from datetime import UTC, datetime

    from api.errors import ExitCode
    from cli.connect import ask_each, failures
    from cli.output import Output
    from cli.reports.changes import LookedService, LookedServices
    from cli.views import late_line, services_table

    output = Output(settings)
    answers = await ask_each(settings, services, lambda client, name: client.reconcile(name, within=patience))
    looks = [answer.value for answer in answers if answer.value is not None]
    if looks:
        output.table(services_table((looked.service for looked in looks), datetime.now(UTC)))
    for looked in looks:
        if looked.late:
            output.error(late_line(looked.service.name, looked.late))
    unasked, status = failures(output, answers, "not looked at")
    reports = (LookedService(service=looked.service, late=looked.late) for looked in looks)
    output.document(LookedServices(services=tuple(reports), unasked=unasked))
    return status or (ExitCode.TIMED_OUT if any(looked.late for looked in looks) else ExitCode.DONE)
