"""`mcp watch`: services as they change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    import asyncio
    from contextlib import AsyncExitStack

    from cli.config import Nodes
    from cli.connect import ask, client_for, failures, placed, services_of
    from cli.output import Output
    from cli.wait import following

    output = Output(settings)
    if service is not None:
        settings = await placed(settings, service)
    answers = await ask(settings, lambda client: services_of(client, service))
    failures(output, answers)
    nodes = Nodes(settings)
    async with AsyncExitStack() as stack:
        followers = []
        for node in (answer.node for answer in answers if answer.error is None):
            client = await stack.enter_async_context(client_for(nodes.named(node)))
            followers.append(await stack.enter_async_context(following(client, [service] if service else [])))
        if output.terminal and not output.silent:
            await _live(output, followers, nodes=len(answers) > 1)
        else:
            await asyncio.gather(*(_lines(output, follower) for follower in followers))
    return 0


async def _live(output: Output, followers: Sequence[Follower], *, nodes: bool) -> None:
    import asyncio
    from datetime import UTC, datetime

    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from cli.output import printable
    from cli.views import services_table

    def picture() -> Group:
        found = [service for follower in followers for service in follower.services.values()]
        services = sorted(found, key=lambda service: (service.name, service.node))
        notes = [Text(printable(follower.away), style="red") for follower in followers if follower.away]
        return Group(services_table(services, datetime.now(UTC), nodes=nodes).rich(), *notes)

    async def take_in(follower: Follower) -> None:
        async for _ in follower.changes():
            pass

    with Live(get_renderable=picture, console=output.console(), screen=True, refresh_per_second=4):
        await asyncio.gather(*map(take_in, followers))


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
