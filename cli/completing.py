"""What the shell may complete: the names of services, from the agents where they answer at once."""

import asyncio
import os
from pathlib import Path

import click

from cli.options import Settings

PATIENCE = 0.4
"""Seconds that somebody waits who pressed Tab."""


def services(ctx: click.Context, incomplete: str) -> list[str]:
    """The services whose names begin so; never raises."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        return sorted(name for name in asyncio.run(_names(_settings(ctx))) if name.startswith(incomplete))
    except Exception:  # a shell has no use for what went wrong
        return []


def _settings(ctx: click.Context) -> Settings:
    given = ctx.params
    config = given.get("config")
    return Settings("table", True, given.get("node"), given.get("address"), Path(config) if config else None)


async def _names(settings: Settings) -> set[str]:
    from cli.config import Nodes
    from cli.connect import ask
    from cli.definitions import defined

    written = {name for name, _ in defined(Nodes(settings).services)}
    try:
        async with asyncio.timeout(PATIENCE):
            answers = await ask(settings, lambda client: client.services())
    except Exception:  # neither is a slow agent
        return written
    return written.union(service.name for answer in answers for service in answer.value or ())
