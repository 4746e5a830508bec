"""`mcp doctor`: what is as it should be, here and on each node, and what to do about the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from api.inspection import Finding
    from cli.config import Node
    from cli.options import Settings
    from cli.output import Row, Table
    from cli.reports.nodes import Diagnosis

_STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command("doctor")
@options.command
async def cli(settings: Settings) -> int:
    """Check this command's settings and what its nodes need, and say what to do about each.

    All nodes of mcp.toml are asked side by side, or the one that `--node` or
    `--address` names. A warning works, and may not for long; a problem does
    not, and makes the exit status 1.
    """
    import asyncio

    from api.inspection import FindingState
    from cli.config import Nodes
    from cli.output import Output
    from cli.reports.nodes import Diagnosis, DoctorReport

    output = Output(settings)
    found: list[Diagnosis] = []
    try:
        known = Nodes(settings)
        nodes = {name: known.named(name) for name in known.every()}
    except click.UsageError as error:
        nodes = {}
        advice = "write ~/.config/mcp/mcp.toml, as deploy/mcp.toml shows, or say --address"
        found.append(_problem("", "settings", error.message, advice))
    else:
        found.append(Diagnosis(node="", finding=_settings(nodes)))
    for findings in await asyncio.gather(*(_there(name, node) for name, node in nodes.items())):
        found += findings
    if output.terminal:
        output.page(list(rows(found)))
    else:
        output.table(table(found))
    output.document(DoctorReport(findings=tuple(found)))
    return int(any(one.finding.state is FindingState.PROBLEM for one in found))


def _settings(nodes: dict[str, Node]) -> Finding:
    from api.inspection import Finding, FindingState

    names = ", ".join(name for name in nodes if name)
    found = f"mcp.toml knows {names}" if names else "an address was given: mcp.toml is not read"
    return Finding(check="settings", state=FindingState.OK, found=found)


async def _there(name: str, node: Node) -> list[Diagnosis]:
    """What is found of one node, however far one comes."""
    from time import monotonic

    from api.errors import Forbidden, McpError, Unauthenticated
    from cli import diagnosing
    from cli.connect import client_for
    from cli.credentials import token_path
    from cli.reports.nodes import Diagnosis

    found = list(diagnosing.authority(node))
    if not node.address.startswith("unix:"):
        found += diagnosing.kept(token_path(node))
    try:
        async with client_for(node) as client:
            if not node.address.startswith("unix:"):
                found.append(diagnosing.identity(await client.access.whoami()))
            begun = monotonic()
            status = await client.node_status()
            found.append(diagnosing.versions(node, status.version))
            found += diagnosing.clocks(status.at, monotonic() - begun)
            found += await client.inspection.diagnose()
    except (Unauthenticated, Forbidden) as error:
        found.append(diagnosing.stranger(node, error.message))
    except McpError as error:
        found.append(diagnosing.unreachable(node, error))
    return [Diagnosis(node=name, finding=finding) for finding in found]


def _problem(node: str, check: str, found: str, advice: str) -> Diagnosis:
    from api.inspection import Finding, FindingState
    from cli.reports.nodes import Diagnosis

    return Diagnosis(node=node, finding=Finding(check=check, state=FindingState.PROBLEM, found=found, advice=advice))


def table(found: Iterable[Diagnosis]) -> Table:
    """One row a finding."""
    from cli.output import Table

    rows = tuple(
        (one.node or "here", one.finding.check, one.finding.state, one.finding.found, one.finding.advice)
        for one in found
    )
    return Table(("NODE", "CHECK", "STATE", "FOUND", "WHAT TO DO"), rows)


def rows(found: Iterable[Diagnosis]) -> Iterator[Row]:
    """The same for a terminal: what to do stands below what was found."""
    from cli.output import Row

    last = None
    for one in found:
        if one.node != last:
            last = one.node
            yield Row(one.node or "here", "")
        style = _STYLES[one.finding.state]
        state = "" if one.finding.state == "ok" else f"{one.finding.state}: "
        yield Row(f"  {one.finding.check}", f"{state}{one.finding.found}", style)
        if one.finding.advice:
            yield Row("", f"  {one.finding.advice}")
