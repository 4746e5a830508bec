"""`mcp watch`: services as they change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from api.client import Client
    from cli.options import Settings
    from cli.output import Output
    from cli.wait import Follower


@click.command("watch")
@click.argument("service", required=False)
@options.command
async def cli(settings: Settings, service: str | None) -> int:
    """Follow services as they change, until interrupted.

    A live table on a terminal; a line for each change in a pipe. A node that is
    down holds up no other, and is followed as soon as it answers.
    """
    from cli.config import Nodes
    from cli.connect import ask, away, clients, follow_each, placed, services_of
    from cli.output import Output
    from cli.wait import following

    output = Output(settings)
    if service is not None:
        settings = await placed(settings, service)
    nodes = Nodes(settings)
    names = nodes.every()
    wanted = [service] if service else []
    several = len(names) > 1
    if not several:
        # Whoever asks one node for what is not there need not wait for it.
        await ask(settings, lambda client: services_of(client, service))
    async with clients(nodes) as to:
        if output.terminal and not output.silent:
            return await _live(output, names, to, wanted)

        async def follow(node: str) -> None:
            async with following(to(node), wanted, away(output, node if several else "")) as follower:
                await _lines(output, follower, node, several=several)

        return await follow_each(output, names, follow)


async def _live(output: Output, names: Sequence[str], to: Callable[[str], Client], wanted: Sequence[str]) -> int:
    import asyncio
    from datetime import UTC, datetime

    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from api.errors import McpError
    from cli.connect import Answer, failures
    from cli.output import printable
    from cli.views import is_ready, services_table
    from cli.wait import following

    followers: dict[str, Follower] = {}
    refused: dict[str, McpError] = {}
    console = output.console()

    def picture() -> Group:
        found = [service for follower in list(followers.values()) for service in list(follower.services.values())]
        # Drawn by another thread than the one that fills them.
        away = [f"{node or 'mcp'}: {follower.away}" for node, follower in list(followers.items()) if follower.away]
        away += [f"{node or 'mcp'}: {error.message}" for node, error in list(refused.items())]
        notes = [Text(printable(note), style="red") for note in away]
        # Where there are more than lines, those that are not ready are what one wants to see.
        crowded = len(found) > console.height - len(notes) - 1
        found.sort(key=lambda service: (crowded and is_ready(service), service.name, service.node))
        table = services_table(found, datetime.now(UTC), nodes=len(names) > 1)
        shown, rest = table.first(console.height - len(notes))
        return Group(*notes, *([Text(rest, style="dim")] if rest else ()), shown.rich())

    async def take_in(node: str) -> None:
        try:
            async with following(to(node), wanted, lambda _: None) as followers[node]:
                async for _ in followers[node].changes():
                    pass
        except McpError as error:
            refused[node] = error

    with Live(get_renderable=picture, console=console, screen=True, refresh_per_second=4):
        await asyncio.gather(*map(take_in, names))
    _, status = failures(output, [Answer(node, error=error) for node, error in refused.items()])
    return status


async def _lines(output: Output, follower: Follower, node: str, *, several: bool) -> None:
    from datetime import UTC, datetime

    from api.service import Service
    from cli.reports.services import WatchLine
    from cli.views import changes_between, moment

    known: dict[str, Service] = {}
    where = f"{node} " if several else ""
    async for watched in follower.changes():
        line = WatchLine(node=node, service=watched.service, deleted=watched.deleted, synced=watched.synced)
        output.json_line(line)
        lines = []
        if watched.service is not None:
            lines = list(changes_between(known.get(watched.service.name), watched.service))
            known[watched.service.name] = watched.service
        elif watched.deleted:
            known.pop(watched.deleted, None)
            lines = [f"{watched.deleted} deleted"]
        output.lines(f"{moment(datetime.now(UTC))} {where}{line}" for line in lines)
