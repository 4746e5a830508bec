"""`mcp adopt`: takes over containers that run without a definition."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from api.control_plane import Adopted
    from cli.options import Settings
    from cli.output import Output


def _pairs(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    pairs = [value.partition("=") for value in values]
    if wrong := [name for name, _, value in pairs if not name or not value]:
        raise click.BadParameter(f'"{wrong[0]}" is not of the form {parameter.make_metavar(context)}')
    return {name: value for name, _, value in pairs}


def _new_file(_context: click.Context, _parameter: click.Parameter, file: Path | None) -> Path | None:
    # Before anything is taken over.
    if file is not None and file.exists():
        raise click.BadParameter(f"{file} is there already: name a new file, or remove that one")
    return file


@click.command("adopt")
@click.argument("service")
@click.option(
    "--container",
    "containers",
    metavar="NAME=COMPONENT",
    multiple=True,
    callback=_pairs,
    help="Take over this container that MCP did not make, as that component. Can be repeated. "
    "Default: those called SERVICE or SERVICE-COMPONENT.",
)
@click.option(
    "--route",
    "routes",
    metavar="COMPONENT/ROUTE=PORT[:MODE[:HOSTNAME]]",
    multiple=True,
    callback=_pairs,
    help="How a route is reached that mc-proxy does not know. Can be repeated.",
)
@click.option(
    "--write",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_new_file,
    help="Write it to this new file instead.",
)
@options.dry_run
@options.command
async def cli(
    settings: Settings,
    service: str,
    containers: dict[str, str],
    routes: dict[str, str],
    file: Path | None,
    dry_run: bool,
) -> int:
    """Take over containers that run without a definition, and print the one that they answer to.

    They run on as they are: those that MCP made when its registry was another
    one, and those that somebody made by hand. The next change of the definition
    replaces them as ever. What podman does not tell of them stands in comments.
    Where no definition says on which node they are, all are asked.
    """
    from cli.connect import connected
    from cli.output import Output
    from cli.reports.changes import AdoptReport
    from cli.taking_over import found

    output = Output(settings)
    settings = await found(settings, service, containers, routes)
    async with connected(settings) as client:
        adopted = await client.adopt(service, containers, routes, dry_run=dry_run)
    _hand_over(adopted, file, output)
    output.document(
        AdoptReport(dry_run=dry_run, service=adopted.service, containers=adopted.containers, notes=adopted.notes)
    )
    return 0


def _hand_over(adopted: Adopted, file: Path | None, output: Output) -> None:
    from api.errors import Refused
    from api.manifest import dump

    ran = f"what ran as {', '.join(adopted.containers)}"
    text = "".join(_comments([f"Written from {ran}.", *adopted.notes])) + "\n" + dump(adopted.service.spec)
    if file is None:
        if not output.silent:
            click.echo(text, nl=False)
        return
    try:
        with file.open("x", encoding="utf-8") as new:
            new.write(text)
    except OSError as error:
        raise Refused(
            f"{file} cannot be written: {error.strerror}; mcp export {adopted.service.name} prints the definition"
        ) from error
    output.line(f"{file} is written from {ran}")
    output.lines(f"    {note}" for note in adopted.notes)


def _comments(lines: Iterable[str]) -> Iterable[str]:
    return (f"# {line}\n" for line in lines)
