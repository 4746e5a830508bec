"""`mcp watch`: services as they change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings
    from cli.output import Output
    from cli.wait import Follower


@click.command("watch")
@click.argument("service", required=False)
@options.command
async def cli(settings: Settings, service: str | None) -> int:
    """Follow services as they change, until interrupted.

    A live table on a terminal; a line for each change in a pipe.
    """
    from cli.connect import connected
    from cli.output import Output
    from cli.wait import following

    output = Output(settings)
    async with connected(settings) as client:
        if service is not None:
            await client.get(service)
        async with following(client, [service] if service else []) as follower:
            if output.terminal and not output.silent:
                await _live(output, follower)
            else:
                await _lines(output, follower)
    return 0


async def _live(output: Output, follower: Follower) -> None:
    from datetime import UTC, datetime

    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from cli.output import printable
    from cli.views import services_table

    def picture() -> Group:
        services = sorted(follower.services.values(), key=lambda service: service.name)
        note = [Text(printable(follower.away), style="red")] if follower.away else []
        return Group(services_table(services, datetime.now(UTC)).rich(), *note)

    with Live(get_renderable=picture, console=output.console(), screen=True, refresh_per_second=4):
        async for _ in follower.changes():
            pass


async def _lines(output: Output, follower: Follower) -> None:
    from datetime import UTC, datetime

    from api.service import Service
    from cli.reports import WatchLine
    from cli.views import changes_between, moment

    known: dict[str, Service] = {}
    async for watched in follower.changes():
        output.json_line(WatchLine(service=watched.service, deleted=watched.deleted, synced=watched.synced))
        lines = []
        if watched.service is not None:
            lines = list(changes_between(known.get(watched.service.name), watched.service))
            known[watched.service.name] = watched.service
        elif watched.deleted:
            known.pop(watched.deleted, None)
            lines = [f"{watched.deleted} deleted"]
        output.lines(f"{moment(datetime.now(UTC))} {line}" for line in lines)
