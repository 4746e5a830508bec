"""What `mcp sync` and `mcp purge` do, once their options are read."""

from collections.abc import Collection, Sequence

import click

from api.client import Client
from api.service import Service
from cli.config import Nodes
from cli.connect import Answer, ask, failures
from cli.definitions import defined
from cli.options import Settings
from cli.output import Output
from cli.removal import remove
from cli.reports import PurgeReport, SyncReport
from cli.rollout import apply, node_for
from cli.sources import manifests

Found = Sequence[tuple[str, str]]
"""Node and service."""


async def sync(settings: Settings, *, prune: bool, yes: bool, dry_run: bool, wait: bool, within: float) -> int:
    """Applies the services folder; see `mcp sync --help`."""
    nodes = Nodes(settings)
    if not nodes.services.is_dir():
        raise click.UsageError(f"there is no folder {nodes.services}: mcp service new begins a definition in it")
    folder = str(nodes.services)
    status = await apply(settings, [folder], dry_run=dry_run, wait=wait, within=within)
    if not prune:
        return status
    output = Output(settings)
    found = {(node_for(nodes, manifest), manifest.spec.name) for manifest in manifests([folder])}
    answers = await ask(settings, lambda client: client.services(), alone=False)
    extra = _extra(answers, found)
    _list(output, extra, "has no definition in the services folder")
    unasked, unpruned = failures(output, answers, "not pruned")
    status = max(status, unpruned)
    if extra and not dry_run:
        _confirm(f"Take {len(extra)} away?", yes=yes)
        status = max(status, await _remove(settings, extra, wait=wait, within=within))
    output.document(SyncReport(pruned=tuple(f"{node}/{name}" for node, name in extra), unasked=unasked))
    return status


def _extra(answers: Sequence[Answer[tuple[Service, ...]]], defined_there: Collection[tuple[str, str]]) -> Found:
    return [
        (answer.node, service.name)
        for answer in answers
        for service in answer.value or ()
        if not service.deleting and (answer.node, service.name) not in defined_there
    ]


async def purge(settings: Settings, *, yes: bool, dry_run: bool, wait: bool, within: float) -> int:
    """Forgets services without definition and container; see `mcp purge --help`."""
    output = Output(settings)
    folder = Nodes(settings).services
    written = {name for name, _ in defined(folder)}
    if not written:
        raise click.UsageError(f"{folder} holds no definition at all: that says of none that it may be forgotten")
    answers = await ask(settings, lambda client: _idle(client, written))
    unasked, status = failures(output, answers)
    idle = [(answer.node, name) for answer in answers for name in answer.value or ()]
    _list(output, idle, "has neither a definition nor a container")
    if not idle:
        output.line("nothing to forget")
    elif not dry_run:
        _confirm(f"Forget {len(idle)}?", yes=yes)
        status = max(status, await _remove(settings, idle, wait=wait, within=within))
    names = tuple(f"{node}/{name}" for node, name in idle)
    output.document(PurgeReport(dry_run=dry_run, services=names, unasked=unasked))
    return status


async def _idle(client: Client, written: Collection[str]) -> list[str]:
    # Raises where the engine does not answer: what cannot be seen is not gone.
    alive = {container.service for container in await client.containers() if container.owned}
    services = [service for service in await client.services() if not service.deleting]
    return [service.name for service in services if service.name not in alive and service.name not in written]


async def _remove(settings: Settings, them: Found, *, wait: bool, within: float) -> int:
    return await remove(settings, ((name, node) for node, name in them), wait=wait, within=within, reported=False)


def _list(output: Output, them: Found, why: str) -> None:
    output.lines(f"{f'{node}/' if node else ''}{name} {why}" for node, name in them)


def _confirm(question: str, *, yes: bool) -> None:
    if not yes:
        click.confirm(question, abort=True, err=True)
