"""What `mcp node` does: mcp.toml is edited with its comments kept, and read again before it is written."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import click
import tomlkit
from tomlkit.exceptions import TOMLKitError

from api.errors import ExitCode
from cli.config import Nodes, check, find, home
from cli.connect import ask
from cli.definitions import write
from cli.options import Settings
from cli.output import Output
from cli.reports.nodes import ChangedNode, KnownNode, NodesReport
from cli.views import drain_line, nodes_table


async def show(settings: Settings, *, parts: bool = False) -> int:
    """Lists nodes, and with `parts` what their agents depend on."""
    output = Output(settings)
    nodes = Nodes(settings)
    # Asked as if there were several: one that is down is what somebody wants to see.
    answers = await ask(settings, lambda client: client.node_status(), alone=False)
    status = max((answer.error.exit_code for answer in answers if answer.error), default=ExitCode.DONE)
    known = tuple(
        KnownNode(
            name=answer.node,
            address=nodes.named(answer.node).address,
            status=answer.value,
            error=answer.error.message if answer.error else "",
        )
        for answer in answers
    )
    output.table(nodes_table(known, datetime.now(UTC)))
    for part in (part for node in known if parts and node.status for part in node.status.parts):
        output.line(f"{part.name} {'reachable' if part.reachable else 'NOT REACHABLE'}: {part.detail}")
    for node in (node.status for node in known if parts and node.status):
        last = f"the last one is of {node.snapshots.taken_at:%Y-%m-%d %H:%M} UTC" if node.snapshots.taken_at else "none"
        output.line(f"snapshots: {node.snapshots.problem or last}")
        if node.drained is not None:
            output.line(drain_line(node, node.drained), "yellow")
    output.document(NodesReport(nodes=known))
    return status


def add(settings: Settings, name: str, fields: Mapping[str, str | None]) -> int:
    """Adds a node to mcp.toml, which is made where there is none. Raises click.UsageError."""
    path = _path(settings)
    document = _read(path)
    nodes = document.setdefault("nodes", tomlkit.table(is_super_table=True))
    if name in nodes:
        raise click.UsageError(f"{path} has a node {name} already: mcp node remove {name} removes it")
    table = tomlkit.table()
    table.update({field: value for field, value in fields.items() if value is not None})
    nodes[name] = table
    return _write(settings, path, document, name, "added to")


def remove(settings: Settings, name: str) -> int:
    """Removes a node from mcp.toml. Raises click.UsageError."""
    path = find(settings.config)
    document = _read(path)
    nodes = document.get("nodes", {})
    if name not in nodes:
        raise click.UsageError(f"{path} knows no node {name}, only {', '.join(nodes) or 'none'}")
    if len(nodes) == 1:
        raise click.UsageError(f"{name} is the only node of {path}: remove the file, or add another node first")
    del nodes[name]
    defaults = document.get("defaults", {})
    if defaults.get("node") == name:
        del defaults["node"]
    return _write(settings, path, document, name, "removed from")


def _path(settings: Settings) -> Path:
    try:
        return find(settings.config)
    except click.UsageError:
        return home() / "mcp.toml"


def _read(path: Path) -> tomlkit.TOMLDocument:
    try:
        return tomlkit.parse(path.read_text()) if path.exists() else tomlkit.document()
    except (OSError, ValueError, TOMLKitError) as error:
        raise click.UsageError(f"{path} cannot be read: {error}") from error


def _write(settings: Settings, path: Path, document: tomlkit.TOMLDocument, name: str, verb: str) -> int:
    text = tomlkit.dumps(document)
    check(text, path)
    write(path, text)
    output = Output(settings)
    output.line(f"{name} {verb} {path}", "green")
    output.document(ChangedNode(name=name, path=str(path)))
    return ExitCode.DONE
