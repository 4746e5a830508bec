"""`mcp top`: what containers use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType

    from api.client import Client
    from api.inspection import ContainerUsage, NodeUsage
    from cli.options import Settings
    from cli.output import Output, Table

_UNKNOWN = "unknown"


@click.command("top")
@click.argument("service", default="")
@click.option(
    "--interval", type=options.Duration(), default="2s", show_default=True, help="Between two looks, at least 0.5s."
)
@options.command
async def cli(settings: Settings, service: str, interval: float) -> int:
    """Show what the running containers of a node use, or those of one service.

    A live screen on a terminal, the busiest first, until interrupted. In a
    pipe and with `-o json` one look, which takes a second: processor time is
    what was used between two looks, and 100% is one core. What the engine
    cannot measure is unknown, as for a rootless podman without control groups
    of its own.
    """
    from cli.connect import connected
    from cli.output import Output
    from cli.reports import UsageReport

    output = Output(settings)
    async with connected(settings) as client:
        if service:
            await client.get(service)
        if output.terminal and not output.silent:
            await _live(client, output, service, interval)
            return 0
        seen = await _look(client)
    usage = seen.model_copy(update={"containers": _of(seen, service)})
    if usage.containers:
        output.table(table(usage))
    else:
        output.line("no running containers")
    if usage.problem:
        output.error(f"mcp: podman cannot say what containers use: {usage.problem}")
    output.document(UsageReport(usage=usage))
    return 0


async def _look(client: Client) -> NodeUsage:
    """The second look: the first has nothing to be compared with."""
    from contextlib import aclosing

    async with aclosing(client.inspection.usage(1.0)) as usages:
        await anext(usages)
        return await anext(usages)


async def _live(client: Client, output: Output, service: str, interval: float) -> None:
    from rich.live import Live
    from rich.text import Text

    from api.errors import Unreachable
    from cli.output import printable
    from cli.wait import retrying

    with Live(Text(""), console=output.console(), screen=True, auto_refresh=False) as live:
        while True:
            try:
                async for usage in client.inspection.usage(interval):
                    shown = usage.model_copy(update={"containers": _of(usage, service)})
                    live.update(_screen(shown), refresh=True)
            except Unreachable as error:
                live.update(Text(printable(error.message), style="red"), refresh=True)
            async for attempt in retrying():
                with attempt:
                    await client.events(limit=1)


def _screen(usage: NodeUsage) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from cli.output import printable

    note = [Text(printable(usage.problem), style="yellow")] if usage.problem else []
    return Group(table(usage).rich(), *note)


def _of(usage: NodeUsage, service: str) -> tuple[ContainerUsage, ...]:
    return tuple(one for one in usage.containers if not service or (one.owned and one.service == service))


def table(usage: NodeUsage) -> Table:
    """One row a container, the busiest first."""
    from cli.output import Table

    headers = ("CONTAINER", "OWNER", "CPU", "MEMORY", "LIMIT", "PIDS", "RECEIVED", "SENT")
    return Table(headers, tuple(_rows(usage.containers)))


def _rows(containers: Iterable[ContainerUsage]) -> Iterable[tuple[str, ...]]:
    for one in sorted(containers, key=lambda one: (-(one.cpu or 0), -(one.memory or 0), one.container)):
        yield (
            one.container,
            "mcp" if one.owned else "foreign",
            _UNKNOWN if one.cpu is None else f"{one.cpu * 100:.1f}%",
            *(_UNKNOWN if amount is None else amount_of(amount) for amount in (one.memory, one.memory_limit)),
            _UNKNOWN if one.pids is None else str(one.pids),
            *(_UNKNOWN if amount is None else amount_of(amount) for amount in (one.received, one.sent)),
        )


def amount_of(count: int) -> str:
    """Bytes in the largest unit that fits, in powers of 1024: `512M`, `1.5G`."""
    amount = float(count)
    for unit in ("B", "K", "M", "G"):
        if amount < 1024:
            return f"{amount:.1f}".rstrip("0").rstrip(".") + unit if amount < 10 else f"{amount:.0f}{unit}"
        amount /= 1024
    return f"{amount:.1f}T"
