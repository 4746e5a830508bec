"""`mcp events`: the timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from api.service import Event
    from api.timeline import NodeEvent
    from cli.options import Settings
    from cli.output import Output


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
    from api.timeline import NodeEvent
    from cli.connect import ask, failures, placed
    from cli.output import Output
    from cli.reports.services import EventsReport
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
        last = {event.node: event.id for event in events}
        return await _follow(settings, output, service, last)
    if not events:
        output.line(f"no events of {service}" if service else "no events")
    elif output.terminal and not several:
        output.page(event_page(events, service))
    else:
        table = events_table(events)
        output.table(located(table, (event.node for event in events)) if several else table)
    unasked, status = failures(output, answers)
    output.document(EventsReport(events=events, unasked=unasked))
    return status


async def _follow(settings: Settings, output: Output, service: str, last: dict[str, int]) -> int:
    from api.timeline import NodeEvent
    from cli.config import Nodes
    from cli.connect import away, clients, follow_each
    from cli.wait import listen

    nodes = Nodes(settings)
    names = nodes.every()
    async with clients(nodes) as to:

        async def follow(name: str) -> None:
            client = to(name)

            def events() -> AsyncIterator[Event]:
                return client.watch_events(service, after_id=last.get(name, 0))

            async for event in listen(client, events, away(output, name if len(names) > 1 else "")):
                last[name] = event.id
                _tell(output, NodeEvent(node=name, **dict(event)), several=len(names) > 1)

        return await follow_each(output, names, follow)


def _tell(output: Output, event: NodeEvent, *, several: bool) -> None:
    from cli.views import event_row

    output.line("  ".join((*((event.node,) if several else ()), *event_row(event))))
    output.json_line(event)
