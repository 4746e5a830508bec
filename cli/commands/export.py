"""`mcp export`: a service's definition, or files that run it without MCP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from api.client import Client
    from api.inspection import ExportedFile
    from cli.options import Settings
    from cli.output import Output


@click.command("export")
@click.argument("service")
@click.option(
    "--format",
    "form",
    type=click.Choice(["toml", "quadlet", "kube"]),
    default="toml",
    show_default=True,
    help="The definition; units for systemd by podman's generator; YAML for podman kube play.",
)
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write the files into this folder, readable for their owner alone, instead of printing them.",
)
@options.command
async def cli(settings: Settings, service: str, form: str, into: Path | None) -> int:
    """Print a service's definition, complete: applying it changes nothing.

    It holds what its author set, and nothing that was derived. A mask stands
    for what `secret_env` marks, and keeps it when it is applied. As `quadlet`
    or `kube` it is a way out: files that run the service without MCP, at the
    ports that it has now. Marked secrets are references to podman's. What the
    files cannot say, routes among it, is said on stderr.
    """
    from api.inspection import ExportedFile
    from api.manifest import dump
    from cli.connect import connected
    from cli.output import Output
    from cli.reports.services import ExportReport

    output = Output(settings)
    async with connected(settings, service) as client:
        if form != "toml":
            return await _way_out(client, output, service, form, into)
        spec = (await client.get(service)).spec
    _give(output, [ExportedFile(name=f"{service}.toml", content=dump(spec))], into)
    output.document(ExportReport(spec=spec))
    return 0


async def _way_out(client: Client, output: Output, service: str, form: str, into: Path | None) -> int:
    from api.inspection import ExportFormat
    from cli.reports.services import ExportedReport

    exported = await client.inspection.export(service, ExportFormat(form))
    _give(output, exported.files, into)
    for warning in exported.warnings:
        output.error(f"mcp: {warning}")
    output.document(ExportedReport(exported=exported))
    return 0


def _give(output: Output, files: Iterable[ExportedFile], into: Path | None) -> None:
    """Writes the files, or prints them; what is printed is several in one where there are several."""
    files = list(files)
    if into is not None:
        _write(files, into)
        output.lines(f"wrote {into / Path(file.name).name}" for file in files)
        return
    if output.silent:
        return
    for file in files:
        if len(files) > 1:
            click.echo(f"# ---- {file.name} ----")
        click.echo(file.content, nl=False)


def _write(files: Iterable[ExportedFile], into: Path) -> None:
    try:
        into.mkdir(parents=True, exist_ok=True)
        for file in files:
            # A name is the agent's word: it may not lead out of the folder.
            path = into / Path(file.name).name
            path.unlink(missing_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "w") as stream:
                stream.write(file.content)
    except OSError as error:
        raise click.UsageError(f"{error.filename or into} cannot be written: {error.strerror}") from error
