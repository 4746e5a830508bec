"""`mcp top`: what containers use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from rich.console import RenderableType

    from api.client import Client
    from api.errors import McpError
    from api.inspection import ContainerUsage, NodeUsage
    from cli.options import Settings
    from cli.output import Output, Table
    from cli.reports.parts import UsedNode

_UNKNOWN = "unknown"


@click.command("top")
@click.argument("service", default="")
@click.option(
    "--interval", type=options.Duration(), default="2s", show_default=True, help="Between two looks, at least 0.5s."
)
@options.command
async def cli(settings: Settings, service: str, interval: float) -> int:
    """Show what the running containers of all nodes use, or those of one service.

    A live screen on a terminal, the busiest first, until interrupted. In a
    pipe and with `-o json` one look, which takes a second: processor time is
    what was used between two looks, and 100% is one core. What the engine
    cannot measure is unknown, as for a rootless podman without control groups
    of its own.
    """
    from cli.connect import ask, failures, placed, services_of
    from cli.output import Output
    from cli.reports.parts import UsageReport, UsedNode

    output = Output(settings)
    if service:
        settings = await placed(settings, service)
        await ask(settings, lambda client: services_of(client, service))
    if output.terminal and not output.silent:
        return await _live(settings, output, service, interval)
    answers = await ask(settings, _look)
    used = tuple(UsedNode(node=one.node, usage=_of(one.value, service)) for one in answers if one.value is not None)
    if any(one.usage.containers for one in used):
        output.table(table(used, nodes=len(answers) > 1))
    else:
        output.line("no running containers")
    for one in used:
        if one.usage.problem:
            output.error(_problem(one, nodes=len(answers) > 1))
    unasked, status = failures(output, answers)
    output.document(UsageReport(nodes=used, unasked=unasked))
    return status


async def _look(client: Client) -> NodeUsage:
    """The second look: the first has nothing to be compared with."""
    from contextlib import aclosing

    async with aclosing(client.inspection.usage(1.0)) as usages:
        await anext(usages)
        return await anext(usages)


async def _live(settings: Settings, output: Output, service: str, interval: float) -> int:
    from rich.live import Live
    from rich.text import Text

    from cli.config import Nodes
    from cli.connect import clients, follow_each
    from cli.reports.parts import UsedNode
    from cli.wait import listen

    nodes = Nodes(settings)
    names = nodes.every()
    used: dict[str, UsedNode] = {}
    gone: dict[str, str] = {}
    console = output.console()

    def draw() -> None:
        live.update(_screen(used.values(), gone.values(), console.height, nodes=len(names) > 1), refresh=True)

    with Live(Text(""), console=console, screen=True, auto_refresh=False) as live:
        async with clients(nodes) as to:

            async def follow(name: str) -> None:
                client = to(name)

                def lost(error: McpError | None) -> None:
                    if error is None:
                        return
                    used.pop(name, None)
                    gone[name] = error.message
                    draw()

                async for usage in listen(client, lambda: client.inspection.usage(interval), lost):
                    used[name] = UsedNode(node=name, usage=_of(usage, service))
                    gone.pop(name, None)
                    draw()

            return await follow_each(output, names, follow)


def _screen(used: Collection[UsedNode], gone: Iterable[str], lines: int, *, nodes: bool) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from cli.output import printable

    problems = [_problem(one, nodes=nodes) for one in used if one.usage.problem]
    notes = [Text(printable(problem), style="yellow") for problem in problems]
    notes += [Text(printable(message), style="red") for message in gone]
    shown, rest = table(used, nodes=nodes).first(lines - len(notes))
    return Group(*notes, *([Text(rest, style="dim")] if rest else ()), shown.rich())


def _problem(one: UsedNode, *, nodes: bool) -> str:
    return f"{one.node if nodes else 'mcp'}: podman cannot say what containers use: {one.usage.problem}"


def _of(usage: NodeUsage, service: str) -> NodeUsage:
    containers = tuple(one for one in usage.containers if not service or (one.owned and one.service == service))
    return usage.model_copy(update={"containers": containers})


def table(used: Iterable[UsedNode], *, nodes: bool) -> Table:
    """One row a container, the busiest first."""
    from cli.output import Table
    from cli.views import located

    found = [(one.node, container) for one in used for container in one.usage.containers]
    found.sort(key=lambda pair: (-(pair[1].cpu or 0), -(pair[1].memory or 0), pair[1].container, pair[0]))
    headers = ("CONTAINER", "OWNER", "CPU", "MEMORY", "LIMIT", "PIDS", "RECEIVED", "SENT")
    shown = Table(headers, tuple(_row(container) for _, container in found))
    return located(shown, (node for node, _ in found)) if nodes else shown


def _row(one: ContainerUsage) -> tuple[str, ...]:
    return (
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
