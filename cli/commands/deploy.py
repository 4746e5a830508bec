"""`mcp deploy`: makes a service be as its file in the services folder says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("deploy")
@click.argument("service", metavar="SERVICE[/COMPONENT]")
@click.option("--build", is_flag=True, help="First build and push those of its images that do not exist.")
@options.dry_run
@options.wait
@options.timeout
@options.command
async def cli(settings: Settings, service: str, build: bool, dry_run: bool, wait: bool, within: float) -> int:
    """Apply a service from the services folder.

    With COMPONENT: that one as the file says, the others as they are stored. A
    definition that says active = false is stored, and kept stopped.

    With --build: what `mcp build` would do comes first, and nothing is applied
    where that fails.
    """
    from cli.wish import deploy

    return await deploy(settings, service, build=build, dry_run=dry_run, wait=wait, within=within)
