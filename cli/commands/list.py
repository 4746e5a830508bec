"""`mcp list`: what the registries hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("list")
@options.command
async def cli(settings: Settings) -> int:
    """List the services that are defined, on all nodes.

    What is wanted, as the registries have it; `mcp ps` shows what runs.
    """
    from datetime import UTC, datetime

    from cli.connect import ask, failures
    from cli.output import Output
    from cli.reports.services import ServicesReport
    from cli.views import registry_table

    output = Output(settings)
    answers = await ask(settings, lambda client: client.services(brief=not output.json))
    services = tuple(service for answer in answers for service in answer.value or ())
    if services:
        output.table(registry_table(services, datetime.now(UTC)))
    else:
        output.line("no services; mcp deploy SERVICE makes one of a definition, mcp service new begins one")
    unasked, status = failures(output, answers)
    output.document(ServicesReport(services=services, unasked=unasked))
    return status
