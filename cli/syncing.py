"""What `mcp sync` and `mcp purge` do, once their options are read."""

from collections.abc import Collection, Iterable, Sequence

import click
from pydantic import BaseModel

from api.client import Client
from api.manifest import Manifest
from api.service import Service
from cli.building import How, built
from cli.config import Nodes
from cli.connect import Answer, ask, failures
from cli.definitions import defined
from cli.options import Settings, confirm
from cli.output import Output
from cli.removal import remove
from cli.reports.changes import ApplyReport, BuiltImage, PurgeReport, SyncReport
from cli.reports.common import Unasked
from cli.rollout import apply, node_for
from cli.sources import manifests

Found = Sequence[tuple[str, str]]
"""Node and service."""


async def sync(
    settings: Settings, *, build: bool, prune: bool, yes: bool, dry_run: bool, wait: bool, within: float
) -> int:
    """Applies the services folder; see `mcp sync --help`."""
    nodes = Nodes(settings)
    if not nodes.services.is_dir():
        raise click.UsageError(f"there is no folder {nodes.services}: mcp service new begins a definition in it")
    folder = [str(nodes.services)]
    parts: list[BaseModel] = []
    output = Output(settings, parts)
    images = await _build(settings, output, manifests(folder), dry_run=dry_run) if build else ()
    status = await apply(settings, folder, dry_run=dry_run, wait=wait, within=within, output=output)
    (applied,) = (part for part in parts if isinstance(part, ApplyReport))
    report = SyncReport(**dict(applied), images=images)
    if prune:
        found = {(node_for(nodes, manifest), manifest.spec.name) for manifest in manifests(folder)}
        pruned, unasked, failed = await _prune(settings, found, yes=yes, dry_run=dry_run, wait=wait, within=within)
        report = report.model_copy(update={"pruned": pruned, "unasked": (*report.unasked, *unasked)})
        status = max(status, failed)
    Output(settings).document(report)
    return status


async def _build(
    settings: Settings, output: Output, them: Iterable[Manifest], *, dry_run: bool
) -> tuple[BuiltImage, ...]:
    images: list[BuiltImage] = []
    for manifest in them:
        images += await built(settings, output, manifest, "", How(dry_run=dry_run)) or ()
    return tuple(images)


async def _prune(
    settings: Settings, found: Collection[tuple[str, str]], *, yes: bool, dry_run: bool, wait: bool, within: float
) -> tuple[tuple[str, ...], tuple[Unasked, ...], int]:
    """What was taken away, or would be; the nodes that were not asked; and the exit status."""
    output = Output(settings)
    answers = await ask(settings, lambda client: client.services(brief=True), alone=False)
    extra = _extra(answers, found)
    _list(output, extra, "has no definition in the services folder")
    unasked, status = failures(output, answers, "not pruned")
    if extra and not dry_run:
        confirm(f"Take {len(extra)} away?", yes=yes)
        status = max(status, await _remove(settings, extra, wait=wait, within=within))
    return tuple(f"{node}/{name}" for node, name in extra), unasked, status


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
        confirm(f"Forget {len(idle)}?", yes=yes)
        status = max(status, await _remove(settings, idle, wait=wait, within=within))
    names = tuple(f"{node}/{name}" for node, name in idle)
    output.document(PurgeReport(dry_run=dry_run, services=names, unasked=unasked))
    return status


async def _idle(client: Client, written: Collection[str]) -> list[str]:
    # Raises where the engine does not answer: what cannot be seen is not gone.
    alive = {container.service for container in await client.containers() if container.owned}
    services = [service for service in await client.services(brief=True) if not service.deleting]
    return [service.name for service in services if service.name not in alive and service.name not in written]


async def _remove(settings: Settings, them: Found, *, wait: bool, within: float) -> int:
    return await remove(settings, ((name, node) for node, name in them), wait=wait, within=within, reported=False)


def _list(output: Output, them: Found, why: str) -> None:
    output.lines(f"{f'{node}/' if node else ''}{name} {why}" for node, name in them)
