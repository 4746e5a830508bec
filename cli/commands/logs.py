"""`mcp logs`: what a service's containers write."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from cli import options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from api.client import Client
    from api.inspection import LogLine, LogQuery
    from cli.options import Settings
    from cli.output import Output

_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_cyan", "bright_yellow", "bright_green")


class Since(click.ParamType[datetime]):
    """A moment: `10m` ago, or a time such as `2026-11-25T09:00` on this machine's clock."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """The moment, in UTC; refuses what is neither a time nor a span of it."""
        if isinstance(value, datetime):
            return value
        try:
            return datetime.fromisoformat(str(value)).astimezone(UTC)
        except ValueError:
            pass
        try:
            return datetime.now(UTC) - timedelta(seconds=options.Duration().convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f'"{value}" is neither a time such as 2026-11-25T09:00 nor a span such as 10m', param, ctx)


@click.command("logs")
@click.argument("target", metavar="SERVICE[/COMPONENT]")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written, until interrupted.")
@click.option(
    "-n",
    "--lines",
    default=100,
    show_default=True,
    type=click.IntRange(0, 1_000_000),
    help="Of each container, the newest so many; 1000000: all.",
)
@click.option("--since", type=Since(), help="Only what was written since: 10m ago, or 2026-11-25T09:00.")
@click.option("-t", "--timestamps", is_flag=True, help="Begin each line with the time at which it was written.")
@options.command
async def cli(
    settings: Settings, target: str, follow: bool, lines: int, since: datetime | None, timestamps: bool
) -> int:
    """Show what a service's containers wrote, the newest last.

    Several components are shown as one, in the order of the engine's times,
    each line behind its component's name. With `--follow` it goes on over
    restarts and replacements, and ends with the service.
    """
    from api.inspection import LogQuery
    from cli.connect import connected
    from cli.output import Output

    output = Output(settings)
    service, _, component = target.partition("/")
    query = LogQuery(service=service, component=component, lines=lines, since=since, follow=follow)
    async with connected(settings, service) as client:
        spec = (await client.get(service)).spec
        names = [one.name for one in spec.components]
        page = _Page(output, names if len(names) > 1 and not component else [], timestamps)
        if follow:
            await _follow(client, page, query)
        else:
            async for batch in client.inspection.logs(query):
                page.show(batch)
    return 0


async def _follow(client: Client, page: _Page, query: LogQuery) -> None:
    from cli.connect import away
    from cli.wait import listen

    since = query

    def lines() -> AsyncIterator[tuple[LogLine, ...]]:
        return client.inspection.logs(since)

    async for batch in listen(client, lines, away(page.output)):
        page.show(batch)
        if batch[-1].at is not None:
            # Where the agent goes away, what was written meanwhile is told afterwards.
            since = query.model_copy(update={"since": batch[-1].at, "lines": 1_000_000})
    page.output.error(f'mcp: service "{query.service}" is gone')


class _Page:
    """Prints lines; `names` are the components to be told apart, none where there is one only."""

    def __init__(self, output: Output, names: Sequence[str], timestamps: bool) -> None:
        self.output = output
        self._width = max((len(name) for name in names), default=0)
        self._colours = {name: _COLOURS[index % len(_COLOURS)] for index, name in enumerate(names)}
        self._timestamps = timestamps

    def show(self, batch: Sequence[LogLine]) -> None:
        from cli.output import printable
        from cli.reports.parts import LoggedLine

        for line in batch:
            text = line.text.decode(errors="replace")
            self.output.json_line(LoggedLine(**line.model_dump(exclude={"text"}), text=text))
            if not self.output.silent:
                click.echo(f"{self._label(line)}{printable(_ESCAPES.sub('', text))}")

    def _label(self, line: LogLine) -> str:
        label = f"{line.component.ljust(self._width)} | " if self._width else ""
        if label and self.output.terminal and "NO_COLOR" not in os.environ:
            label = click.style(label, fg=self._colours.get(line.component))
        return label + (f"{line.at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} " if self._timestamps and line.at else "")
