"""`mcp events`: the timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from api.client import Client
    from cli.options import Settings
    from cli.output import Output
    from cli.reports import NodeEvent


@click.command("events")
@click.argument("service", default="")
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens, until interrupted.")
@click.option(
    "-n", "--lines", default=100, show_default=True, type=click.IntRange(1, 10_000), help="The newest so many."
)
@options.command
async def cli(settings: Settings, service: str, follow: bool, lines: int) -> int:
    """Show what happened, why, and who caused it, on all nodes, the newest last.

    `drift:` marks what was corrected because the world had moved away from
    what was wanted.
    """
    from cli.connect import ask, failures, placed
    from cli.output import Output
    from cli.reports import EventsReport, NodeEvent
    from cli.views import event_page, events_table, located

    output = Output(settings)
    if service:
        settings = await placed(settings, service)
    answers = await ask(settings, lambda client: client.events(service, limit=lines))
    found = (NodeEvent(node=one.node, **dict(event)) for one in answers for event in one.value or ())
    events = tuple(sorted(found, key=lambda event: (event.at, event.id))[-lines:])
    several = len(answers) > 1
    if follow:
        for event in events:
            _tell(output, event, several=several)
        failures(output, answers)
        await _follow_all(settings, output, service, events)
        return 0
    if output.terminal and not several:
        output.page(event_page(events, service))
    else:
        table = events_table(events)
        output.table(located(table, (event.node for event in events)) if several else table)
    unasked, status = failures(output, answers)
    output.document(EventsReport(events=events, unasked=unasked))
    return status


async def _follow_all(settings: Settings, output: Output, service: str, events: Sequence[NodeEvent]) -> None:
    import asyncio
    from contextlib import AsyncExitStack

    from cli.config import Nodes
    from cli.connect import client_for

    nodes = Nodes(settings)
    names = nodes.every()
    last = {event.node: event.id for event in events}
    async with AsyncExitStack() as stack:
        clients = {name: await stack.enter_async_context(client_for(nodes.named(name))) for name in names}
        await asyncio.gather(
            *(
                _follow(client, output, service, name, last.get(name, 0), several=len(names) > 1)
                for name, client in clients.items()
            )
        )


async def _follow(client: Client, output: Output, service: str, node: str, after_id: int, *, several: bool) -> None:
    from api.errors import RegistryUnavailable, Unreachable
    from cli.reports import NodeEvent
    from cli.wait import retrying

    while True:
        try:
            async for event in client.watch_events(service, after_id=after_id):
                after_id = event.id
                _tell(output, NodeEvent(node=node, **dict(event)), several=several)
        except (Unreachable, RegistryUnavailable) as error:
            output.error(f"mcp: {error.message}; listening again as soon as it is back")
        async for attempt in retrying():
            with attempt:
                await client.events(service, limit=1)


def _tell(output: Output, event: NodeEvent, *, several: bool) -> None:
    from cli.views import event_row

    output.line("  ".join((*((event.node,) if several else ()), *event_row(event))))
    output.json_line(event)
