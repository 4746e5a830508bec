"""`mcp status`: what is, beside what should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from api.client import Client
    from api.service import NodeStatus, PlannedAction, Service
    from cli.options import Settings

_EVENTS = 6


@click.command("status")
@click.argument("service", required=False)
@options.command
async def cli(settings: Settings, service: str | None) -> int:
    """Show services, or all about one.

    Without SERVICE: a row for each component, with the reason where a service
    is not ready. With SERVICE: what it is doing, why, since when, and what will
    be done next; where it drifted, what is wanted and what was found.
    """
    return await (_all(settings) if service is None else _one(settings, service))


async def _all(settings: Settings) -> int:
    import asyncio
    from datetime import UTC, datetime

    from cli import views
    from cli.connect import ask, failures
    from cli.output import Output
    from cli.reports.services import StatusReport

    async def both(client: Client) -> tuple[tuple[Service, ...], NodeStatus]:
        return await asyncio.gather(client.services(brief=not output.json), client.node_status())

    output = Output(settings)
    answers = await ask(settings, both)
    found = [answer.value for answer in answers if answer.value is not None]
    services = tuple(service for there, _ in found for service in there)
    nodes = tuple(node for _, node in found)
    if services:
        output.table(views.services_table(services, datetime.now(UTC), nodes=len(answers) > 1))
    for there, node in found:
        if not there:
            output.line(f"node {node.node} has no services")
        if node.drained is not None:
            output.note(f"node {node.node} is {views.drain_line(node, node.drained)}")
        for line in views.parts_lines(node):
            output.error(line)
    unasked, status = failures(output, answers)
    output.document(StatusReport(nodes=nodes, services=services, unasked=unasked))
    return status


async def _one(settings: Settings, name: str) -> int:
    import asyncio
    from datetime import UTC, datetime

    from cli import status_view
    from cli.connect import connected
    from cli.output import Output
    from cli.reports.services import ServiceReport

    output = Output(settings)
    async with connected(settings, name) as client:
        service, events = await asyncio.gather(client.get(name), client.events(name, limit=_EVENTS))
        actions, unplanned = await _planned(client, service)
    now = datetime.now(UTC)
    about = (
        status_view.headline(service, now),
        *status_view.suspension(service, now),
        status_view.origin(service, now),
    )
    for row in about:
        output.line(row.text, row.style)
    output.line("")
    output.page(list(status_view.rows(service, actions, unplanned, events, now)))
    output.document(ServiceReport(service=service, actions=actions, events=events))
    return 0


async def _planned(client: Client, service: Service) -> tuple[tuple[PlannedAction, ...], str]:
    """What would be done next, and why that is not known, where it is not."""
    from api.errors import McpError

    try:
        if service.deleting:
            return (await client.delete(service.name, dry_run=True)).actions, ""
        # Applied as it is: what is found to differ is what the world did.
        return (await client.apply(service.spec, dry_run=True)).actions, ""
    except McpError as error:
        return (), error.message
