"""`mcp resume`: has services converged again that were left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from api.client import Client
    from api.service import Service
    from cli.options import Settings
    from cli.reports.common import Unasked


@click.command("resume")
@click.argument("services", nargs=-1, metavar="[SERVICE...]")
@click.option("--all", "everything", is_flag=True, help="All services that are suspended, on all nodes.")
@options.command
async def cli(settings: Settings, services: tuple[str, ...], everything: bool) -> int:
    """Have services converged again that were suspended, by a person or by a restore.

    `mcp status SERVICE` says beforehand what will then be done.
    """
    from cli.connect import ask, ask_each, ask_there, failures
    from cli.output import Output
    from cli.reports.changes import ResumedServices

    if everything == bool(services):
        raise click.UsageError("say which services, or --all")
    output = Output(settings)
    unasked: tuple[Unasked, ...] = ()
    status = 0
    if everything:
        known = await ask(settings, lambda client: client.services(brief=True))
        unasked, status = failures(output, known)
        suspended = [(one.name, there.node) for there in known for one in there.value or () if one.suspended]
        answers = await ask_there(settings, suspended, _resume)
    else:
        answers = await ask_each(settings, services, _resume)
    resumed = tuple(answer.value for answer in answers if answer.value is not None)
    output.lines(f"{one.name} is resumed" for one in resumed)
    if not answers:
        output.line("no service is suspended")
    left, failed = failures(output, answers, "not resumed")
    output.document(ResumedServices(services=resumed, unasked=(*unasked, *left)))
    return max(status, failed)


async def _resume(client: Client, name: str) -> Service:
    return await client.resume(name)
