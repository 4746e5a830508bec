"""`mcp build`: makes the images that a definition says how to make."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("build")
@click.argument("service", metavar="SERVICE[/COMPONENT]")
@options.dry_run
@click.option("--rebuild", is_flag=True, help="Build and push what exists already, too; no registry is asked.")
@click.option("--push/--no-push", default=True, help="Push what was built, or only see that it can be built.")
@options.command
async def cli(settings: Settings, service: str, dry_run: bool, rebuild: bool, push: bool) -> int:
    """Build the images of a service and push them.

    Those of [build.images] in its definition, out of the sources below
    build.workspace of mcp.toml, with the podman of this machine. A tag that
    exists in its registry is left alone; where that cannot be found out,
    nothing is built. What podman says goes to stderr.
    """
    from cli.building import How, build

    return await build(settings, service, How(dry_run=dry_run, rebuild=rebuild, push=push))
