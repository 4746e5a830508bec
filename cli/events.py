"""`mcp events`: the timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from api.client import Client
    from api.service import Event
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
    """Show what happened, why, and who caused it, the newest last.

    `drift:` marks what was corrected because the world had moved away from
    what was wanted.
    """
    from cli.connect import connected
    from cli.output import Output
    from cli.reports import EventsReport
    from cli.views import event_page, events_table

    output = Output(settings)
    async with connected(settings) as client:
        events = await client.events(service, limit=lines)
        if not follow:
            if output.terminal:
                output.page(event_page(events, service))
            else:
                output.table(events_table(events))
            output.document(EventsReport(events=events))
            return 0
        for event in events:
            _tell(output, event)
        await _follow(client, output, service, events[-1].id if events else 0)
    return 0


async def _follow(client: Client, output: Output, service: str, after_id: int) -> None:
    from api.errors import RegistryUnavailable, Unreachable
    from cli.wait import retrying

    while True:
        try:
            async for event in client.watch_events(service, after_id=after_id):
                after_id = event.id
                _tell(output, event)
        except (Unreachable, RegistryUnavailable) as error:
            output.error(f"mcp: {error.message}; listening again as soon as it is back")
        async for attempt in retrying():
            with attempt:
                await client.events(service, limit=1)


def _tell(output: Output, event: Event) -> None:
    from cli.views import event_row

    output.line("  ".join(event_row(event)))
    output.json_line(event)
