"""`mcp watch`: services as they change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from api.errors import McpError
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
    from contextlib import AsyncExitStack

    from cli.config import Nodes
    from cli.connect import ask, away, clients, failures, follow_each, placed, services_of
    from cli.output import Output
    from cli.wait import AWAY, following

    output = Output(settings)
    if service is not None:
        settings = await placed(settings, service)
    answers = await ask(settings, lambda client: services_of(client, service))
    several = len(answers) > 1
    live = output.terminal and not output.silent
    # What is away comes back; what refuses does not.
    refusing = [answer for answer in answers if answer.error and not isinstance(answer.error, AWAY)]
    _, status = failures(output, refusing)
    followers: dict[str, Follower] = {}
    async with clients(Nodes(settings)) as to, AsyncExitStack() as stack:
        for node in (answer.node for answer in answers if answer not in refusing):
            lost = _seen if live else away(output, node if several else "")
            wanted = [service] if service else []
            followers[node] = await stack.enter_async_context(following(to(node), wanted, lost))
        if live:
            return await _live(output, followers)

        async def follow(node: str) -> None:
            await _lines(output, followers[node], node, several=several)

        return max(status, await follow_each(output, followers, follow))


def _seen(_: McpError) -> None:
    """The picture says it."""


async def _live(output: Output, followers: Mapping[str, Follower]) -> int:
    from datetime import UTC, datetime

    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from cli.connect import follow_each
    from cli.output import printable
    from cli.views import is_ready, services_table

    console = output.console()

    def picture() -> Group:
        found = [service for follower in followers.values() for service in follower.services.values()]
        notes = [Text(printable(one.away), style="red") for one in followers.values() if one.away]
        # Where there are more than lines, those that are not ready are what one wants to see.
        crowded = len(found) > console.height - len(notes) - 1
        found.sort(key=lambda service: (crowded and is_ready(service), service.name, service.node))
        table = services_table(found, datetime.now(UTC), nodes=len(followers) > 1)
        shown, rest = table.first(console.height - len(notes))
        return Group(*notes, *([Text(rest, style="dim")] if rest else ()), shown.rich())

    async def take_in(node: str) -> None:
        async for _ in followers[node].changes():
            pass

    with Live(get_renderable=picture, console=console, screen=True, refresh_per_second=4):
        return await follow_each(output, followers, take_in)


async def _lines(output: Output, follower: Follower, node: str, *, several: bool) -> None:
    from datetime import UTC, datetime

    from api.service import Service
    from cli.reports import WatchLine
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
