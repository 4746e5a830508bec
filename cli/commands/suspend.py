"""`mcp suspend`: leaves services alone for now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("suspend")
@click.argument("services", nargs=-1, required=True, metavar="SERVICE...")
@click.option("--reason", metavar="TEXT", default="", help="Why, for whoever finds it suspended.")
@options.command
async def cli(settings: Settings, services: tuple[str, ...], reason: str) -> int:
    """Leave services alone until they are resumed.

    MCP goes on looking and says what it would do, and does nothing: what ends is
    not started again, certificates are not renewed, a new definition waits.
    What runs goes on running. It returns when nothing is done to them any more.
    """
    from api.errors import ExitCode
    from cli.connect import ask_each, failures
    from cli.output import Output
    from cli.reports.changes import LookedService, LookedServices
    from cli.views import late_line, reason_of

    output = Output(settings)
    answers = await ask_each(settings, services, lambda client, name: client.suspend(name, reason=reason))
    reports = []
    for name, looked in ((answer.service, answer.value) for answer in answers if answer.value is not None):
        output.line(f"{name} is suspended; mcp resume {name} ends that", "yellow")
        if words := reason_of(looked.service):
            output.line(f"    {words}")
        if looked.late:
            output.error(late_line(name, looked.late))
        reports.append(LookedService(service=looked.service, late=looked.late))
    unasked, status = failures(output, answers, "not suspended")
    output.document(LookedServices(services=tuple(reports), unasked=unasked))
    late = any(report.late for report in reports)
    return status or (ExitCode.TIMED_OUT if late else ExitCode.DONE)
