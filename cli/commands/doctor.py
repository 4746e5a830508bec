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
    from cli.reports import Diagnosis

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
    from cli.reports import Diagnosis, DoctorReport

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
    from api.errors import McpError
    from cli.connect import client_for
    from cli.reports import Diagnosis

    found = [Diagnosis(node=name, finding=finding) for finding in _authority(node)]
    try:
        async with client_for(node) as client:
            status = await client.node_status()
            found.append(Diagnosis(node=name, finding=_versions(node, status.version)))
            findings = await client.inspection.diagnose()
            found += [Diagnosis(node=name, finding=finding) for finding in findings]
    except McpError as error:
        advice = f"on the node: systemctl status mcp-agent; from here: is {node.address} the right address?"
        found.append(_problem(name, "agent", error.message, advice))
    return found


def _versions(node: Node, theirs: str) -> Finding:
    from importlib.metadata import version

    from api.inspection import Finding, FindingState

    own = version("metacircular-mcp")
    if own == theirs:
        return Finding(check="agent", state=FindingState.OK, found=f"version {theirs} answers at {node.address}")
    found, advice = f"version {theirs}, and this command is {own}", "install the same version on both sides"
    return Finding(check="agent", state=FindingState.WARNING, found=found, advice=advice)


def _authority(node: Node) -> Iterator[Finding]:
    """The CA that the agent's certificate must lead to."""
    from datetime import UTC, datetime, timedelta
    from pathlib import Path

    from cryptography import x509

    from api.inspection import Finding, FindingState

    if node.ca_file is None or node.address.startswith("unix:"):
        return
    advice = "copy the node's CA anew: <state_dir>/ca/ca.pem"
    try:
        certificate = x509.load_pem_x509_certificate(Path(node.ca_file).read_bytes())
    except (OSError, ValueError) as error:
        found = f"{node.ca_file} is no certificate that can be read: {error}"
        yield Finding(check="CA file", state=FindingState.PROBLEM, found=found, advice=advice)
        return
    end = certificate.not_valid_after_utc
    left = end - datetime.now(UTC)
    state = (
        FindingState.OK
        if left > timedelta(days=30)
        else FindingState.WARNING
        if left > timedelta()
        else FindingState.PROBLEM
    )
    found = f"{node.ca_file}, until {end:%Y-%m-%d}"
    yield Finding(check="CA file", state=state, found=found, advice="" if state is FindingState.OK else advice)


def _problem(node: str, check: str, found: str, advice: str) -> Diagnosis:
    from api.inspection import Finding, FindingState
    from cli.reports import Diagnosis

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
