"""What the shell may complete: the names of services and the paths of files, from agents that answer at once."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import click

from cli.options import Settings

PATIENCE = 0.4
"""Seconds that somebody waits who pressed Tab, for each node at the same time."""


def services(ctx: click.Context, incomplete: str) -> list[str]:
    """The services whose names begin so; never raises."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        return sorted(name for name in asyncio.run(_names(_settings(ctx))) if name.startswith(incomplete))
    except Exception:  # a shell has no use for what went wrong
        return []


def paths(ctx: click.Context, incomplete: str) -> list[str]:
    """The paths to which something was pushed of the service that the command names; never raises."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        found = asyncio.run(_paths(_settings(ctx), ctx.params["service"]))
    except Exception:  # a shell has no use for what went wrong
        return []
    return sorted(path for path in found if path.startswith(incomplete))


def nodes(ctx: click.Context, incomplete: str) -> list[str]:
    """The nodes of mcp.toml whose names begin so; never raises."""
    from cli.config import Nodes

    try:
        settings = replace(_settings(ctx), node=None)
        return sorted(name for name in Nodes(settings).every() if name.startswith(incomplete))
    except Exception:  # a shell has no use for what went wrong
        return []


async def _paths(settings: Settings, service: str) -> set[str]:
    from cli.connect import connected

    async with asyncio.timeout(PATIENCE), connected(settings, service) as client:
        return {file.path for file in await client.files.files(service)}


def _settings(ctx: click.Context) -> Settings:
    given = ctx.params
    config = given.get("config")
    return Settings("table", True, given.get("node"), given.get("address"), Path(config) if config else None)


async def _names(settings: Settings) -> set[str]:
    from cli.config import Nodes
    from cli.connect import ask
    from cli.definitions import defined

    written = {name for name, _ in defined(Nodes(settings).services)}
    answers = await ask(settings, lambda client: client.services(brief=True), alone=False, within=PATIENCE)
    return written.union(service.name for answer in answers for service in answer.value or ())
