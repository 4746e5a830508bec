"""`mcp routes`: the names under which services are reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("routes")
@click.argument("service", required=False)
@options.command
async def cli(settings: Settings, service: str | None) -> int:
    """List the routes of all nodes, or of one service: which name leads where.

    BACKEND is what mc-proxy was last told; it is empty where the name is held
    and leads nowhere yet, `mcp status SERVICE` says why.
    """
    from cli.connect import ask, failures, placed, services_of
    from cli.output import Output
    from cli.reports.parts import Route, RoutesReport
    from cli.views import routes_table

    output = Output(settings)
    if service is not None:
        settings = await placed(settings, service)
    answers = await ask(settings, lambda client: services_of(client, service))
    routes = tuple(
        Route(node=one.node, service=one.name, claim=claim)
        for answer in answers
        for one in answer.value or ()
        for claim in one.claims
    )
    if routes:
        output.table(routes_table(routes))
    else:
        output.line("no routes")
    unasked, status = failures(output, answers)
    output.document(RoutesReport(routes=routes, unasked=unasked))
    return status
