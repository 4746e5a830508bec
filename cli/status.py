"""`mcp status`: what is, beside what should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings

_EVENTS = 10


@click.command("status")
@click.argument("service", required=False)
@options.command
async def cli(settings: Settings, service: str | None) -> int:
    """Show services, or all about one.

    Without SERVICE: a row for each component, with the reason where a service
    is not ready. With SERVICE: its conditions, components, routes,
    certificates and latest events.
    """
    return await (_all(settings) if service is None else _one(settings, service))


async def _all(settings: Settings) -> int:
    import asyncio
    from datetime import UTC, datetime

    from cli import views
    from cli.connect import connected
    from cli.output import Output
    from cli.reports import StatusReport

    output = Output(settings)
    async with connected(settings) as client:
        services, node = await asyncio.gather(client.services(), client.node_status())
    if services:
        output.table(views.services_table(services, datetime.now(UTC)))
    else:
        output.line(f"node {node.node} has no services")
    output.document(StatusReport(node=node, services=services))
    for line in views.parts_lines(node):
        output.error(line)
    return 0


async def _one(settings: Settings, name: str) -> int:
    import asyncio
    from datetime import UTC, datetime

    from cli import views
    from cli.connect import connected
    from cli.output import Output
    from cli.reports import ServiceReport

    output = Output(settings)
    async with connected(settings) as client:
        service, events = await asyncio.gather(client.get(name), client.events(name, limit=_EVENTS))
    now = datetime.now(UTC)
    output.lines(views.service_lines(service, now))
    for title, table in views.service_tables(service, events, now):
        output.line("")
        output.line(title)
        output.table(table)
    output.document(ServiceReport(service=service, events=events))
    return 0
