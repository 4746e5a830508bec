"""What `mcp stop`, `start`, `restart` and `service rollback` do, once their options are read."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import click

from api.client import Client
from api.control_plane import DRAINED, Applied
from api.errors import McpError, NotFound
from api.service import Change
from cli.config import Nodes
from cli.connect import connected, placed
from cli.definitions import definition, set_active
from cli.handover import Course
from cli.options import Settings, target
from cli.output import Output
from cli.reports.changes import ApplyReport
from cli.rollout import Order, Rollout, apply


async def order(
    settings: Settings, service: str, act: Callable[[Client], Awaitable[Applied]], *, wait: bool, within: float
) -> int:
    """Asks something of the service's agent, then waits until it is so."""
    settings = await placed(settings, service)
    node = Nodes(settings).name()
    async with connected(settings) as client:
        asked = Course[Applied](Order(service, node, client, lambda: act(client)))
        return await Rollout(Output(settings), [asked]).run(wait=wait, within=within)


async def activate(settings: Settings, wanted: str, *, active: bool, wait: bool, within: float) -> int:
    """Has SERVICE[/COMPONENT] run or be kept stopped, and writes so into its definition."""
    service, component = target(wanted)

    async def act(client: Client) -> Applied:
        return await client.set_active(service, component, active=active)

    try:
        status = await order(settings, service, act, wait=wait, within=within)
    except NotFound:
        path = definition(Nodes(settings).services, service)
        if not active or component or path is None:
            raise
        # It was undeployed: what starts it is its definition.
        note(settings, service, "", active=True)
        return await apply(settings, [str(path)], dry_run=False, wait=wait, within=within)
    _write_down(settings, service, component, active=active)
    return status


def _write_down(settings: Settings, service: str, component: str, *, active: bool) -> None:
    """Notes what the agent has taken already."""
    try:
        note(settings, service, component, active=active)
    except click.UsageError as error:
        message = f"the agent does it, but {error.message}: write it there yourself, or the next deploy undoes it"
        raise McpError(message) from error


def note(settings: Settings, service: str, component: str, *, active: bool) -> None:
    """Writes `active` into the service's definition, where there is one in the services folder."""
    path = definition(Nodes(settings).services, service)
    if path is not None and set_active(path, component, active):
        where = f"component {component}: " if component else ""
        Output(settings).line(f"{path}: {where}active = {str(active).lower()}", "dim")


async def restart(settings: Settings, wanted: str, *, wait: bool, within: float) -> int:
    """Has the containers of SERVICE[/COMPONENT] made anew."""
    service, component = target(wanted)

    async def act(client: Client) -> Applied:
        return Applied(await client.restart(service, component), Change.CONFIGURED)

    return await order(settings, service, act, wait=wait, within=within)


async def deploy(
    settings: Settings, wanted: str, *, build: bool = False, dry_run: bool, wait: bool, within: float
) -> int:
    """Applies SERVICE[/COMPONENT] from the services folder, with `build` once its images exist."""
    from cli.definitions import required

    service, component = target(wanted)
    path = required(Nodes(settings).services, service)
    if build:
        from cli.building import How, built
        from cli.sources import manifests

        (manifest,) = manifests([str(path)])
        await built(settings, Output(settings), manifest, component, How(dry_run=dry_run))
    status = await apply(settings, [str(path)], dry_run=dry_run, wait=wait, within=within, component=component)
    _tell_stopped(settings, path.read_bytes(), str(path))
    return status


def _tell_stopped(settings: Settings, content: bytes, source: str) -> None:
    from api.manifest import load

    spec = load(content, source).spec
    if not spec.active:
        Output(settings).line(
            f"{spec.name} is kept stopped: {source} says active = false; mcp start {spec.name}", "yellow"
        )


async def undeploy(settings: Settings, service: str, *, dry_run: bool, wait: bool, within: float) -> int:
    """Takes a service away from its node, and keeps its definition, for another day."""
    from cli.removal import delete

    settings = await placed(settings, service)
    status = await delete(settings, [service], dry_run=dry_run, wait=wait, within=within)
    if not dry_run:
        _write_down(settings, service, "", active=False)
    return status


async def drain(settings: Settings, node: str, *, active: bool, wait: bool, within: float) -> int:
    """Has all services of a node stopped, or those started again that a drain stopped."""
    settings = replace(settings, node=node)
    output = Output(settings)
    async with connected(settings) as client:
        # Before anything stops or starts: what somebody applies meanwhile is to go the same way.
        await client.set_drained(not active)
        known = [one for one in await client.services(brief=True) if not one.deleting]
        services = [one for one in known if (one.drained if active else one.spec.active)]
        what = (
            "not drained any more"
            if active
            else f"drained: what is applied to it is stored, and not started, until mcp node undrain {node}"
        )
        output.line(f"node {node} is {what}", "yellow" if not active else "green")
        if not services:
            output.line(f"node {node} has nothing to {'start' if active else 'stop'}")
            output.document(ApplyReport(dry_run=False, services=()))
            return 0
        orders = [Order(one.name, node, client, _activation(client, one.name, active)) for one in services]
        return await Rollout(output, list(map(Course[Applied], orders))).run(wait=wait, within=within)


def _activation(client: Client, name: str, active: bool) -> Callable[[], Awaitable[Applied]]:
    return lambda: client.set_active(name, active=active, note="" if active else DRAINED)
