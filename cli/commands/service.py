"""`mcp service`: definitions, on the workstation and as the registries keep them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.group("service")
def cli() -> None:
    """Begin, edit and check definitions; look at earlier ones and go back."""


@cli.command("new")
@click.argument("name")
@click.option("--image", metavar="IMAGE", help="What it runs; default: derived from registry, name and version.")
@options.command
async def new(settings: Settings, name: str, image: str | None) -> int:
    """Begin a definition in the services folder: commented, valid, to be edited."""
    from cli.editing import new as run

    return run(settings, name, image)


@cli.command("edit")
@click.argument("service")
@click.option("--deploy", is_flag=True, help="Apply it afterwards, and wait.")
@options.timeout
@options.command
async def edit(settings: Settings, service: str, deploy: bool, within: float) -> int:
    """Edit a definition in $VISUAL or $EDITOR.

    What is wrong with it stands above it, as comments, when the editor opens
    again; an empty file, or one that is left as it was, changes nothing, and
    one that is as wrong as before is refused. A service that has no file in the
    services folder gets one of what its agent has.
    """
    from cli.editing import edit as run

    edited = await run(settings, service)
    if edited is None or not deploy:
        return 0
    from cli.wish import deploy as apply

    return await apply(settings, edited, dry_run=False, wait=True, within=within)


@cli.command("validate")
@click.argument("what", metavar="FILE|SERVICE", type=click.Path(dir_okay=True))
@options.command
async def validate(settings: Settings, what: str) -> int:
    """Check a definition, without asking an agent: a file, a folder of them, or that of a service."""
    from cli.editing import validate as run

    return run(settings, what)


@cli.command("show")
@click.argument("service")
@options.command
async def show(settings: Settings, service: str) -> int:
    """Show a definition as its agent has it, since when, and how the services folder differs."""
    from cli.editing import show as run

    return await run(settings, service)


@cli.command("export")
@click.argument("service")
@options.command
async def export(settings: Settings, service: str) -> int:
    """Print a definition as its agent has it: complete, so that applying it changes nothing."""
    from api.manifest import dump
    from cli.connect import connected
    from cli.output import Output
    from cli.reports.services import ExportReport

    output = Output(settings)
    async with connected(settings, service) as client:
        spec = (await client.get(service)).spec
    if not output.silent:
        click.echo(dump(spec), nl=False)
    output.document(ExportReport(spec=spec))
    return 0


@cli.command("history")
@click.argument("service")
@options.command
async def history(settings: Settings, service: str) -> int:
    """List the generations of a service: when, by whom, and what changed; the newest first."""
    from cli.editing import history as run

    return await run(settings, service)


@cli.command("rollback")
@click.argument("service")
@click.argument("generation", type=click.IntRange(min=1), required=False)
@options.dry_run
@options.wait
@options.timeout
@options.command
async def rollback(
    settings: Settings, service: str, generation: int | None, dry_run: bool, wait: bool, within: float
) -> int:
    """Make an earlier generation the desired state again, whole.

    Without GENERATION: the last one that was defined otherwise. It is a new
    generation. Where an image's tag stands for something else by now, the image
    that ran then is named by its digest. The services folder stays as it is.
    """
    from cli.editing import rollback as run

    return await run(settings, service, generation or 0, dry_run=dry_run, wait=wait, within=within)
