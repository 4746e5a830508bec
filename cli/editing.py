"""What `mcp service` does, once its options are read."""

import tempfile
from pathlib import Path

import click
from pydantic import TypeAdapter, ValidationError

from api.client import Client
from api.control_plane import Applied
from api.diff import diff
from api.errors import ExitCode
from api.fields import Name
from api.manifest import InvalidManifest, dump, load
from api.secrecy import shown
from api.service import Revision
from api.spec import ServiceSpec
from cli.config import Nodes
from cli.connect import connected, placed
from cli.definitions import definition, write
from cli.options import Settings
from cli.output import Output
from cli.reports.changes import ApplyReport
from cli.reports.services import DefinitionReport, HistoryEntry, HistoryReport, ValidateReport
from cli.rollout import Order, report, tell_plan
from cli.sources import STDIN, manifests
from cli.views import field_line, history_table, moment
from cli.wish import order

_COMPLAINT = b"#! "
"""How a line begins that says what is wrong; such lines are taken out again."""

_TEMPLATE = """\
# {name}: say here what it is for, and who asks for it.
# All fields: docs/reference/definition.md. `mcp service validate {name}` checks, `mcp deploy {name}` applies.

name = "{name}"
{node}
# Tag of every image that is derived: <registry>/{name}:<version>.
version = "v0.1.0"

[[components]]
name = "{name}"
{image}
# Environment, in addition to $PORT and $PORT_<NAME>, which MCP gives to each route.
# env = ["LOG_LEVEL=info"]

# How the agent knows that it is well, beside that it listens.
# [components.health]
# http = "/healthz"

# Updates without a lost request: the new container takes over once it is ready.
# [components.update]
# strategy = "blue-green"

# How it is reached through mc-proxy: {name}.svc.<zone> unless hostname says otherwise.
[[components.routes]]
port = 8443
mode = "l4"
"""


def new(settings: Settings, name: str, image: str | None) -> int:
    """Begins a definition. Raises click.UsageError where there is one."""
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise click.BadParameter(
            "lower case letters, digits and inner dashes, at most 63", param_hint="NAME"
        ) from error
    output = Output(settings)
    nodes = Nodes(settings)
    if found := definition(nodes.services, name):
        raise click.UsageError(f"{found} defines {name} already: mcp service edit {name} edits it")
    node = nodes.name() if settings.node else ""
    text = _TEMPLATE.format(
        name=name,
        node=f'node = "{node}"' if node else '# node = "rift"  # default: the one that is asked',
        image=f'image = "{image}"' if image else f'# image = "registry.example:5000/{name}:v0.1.0"',
    )
    path = _free(nodes.services, name)
    spec = load(text, str(path)).spec
    write(path, text)
    output.line(f"{path} made; mcp service edit {name} edits it, mcp deploy {name} applies it", "green")
    output.document(DefinitionReport(path=str(path), spec=spec))
    return ExitCode.DONE


async def edit(settings: Settings, service: str) -> str | None:
    """Has a person edit a definition until it is right; the service that it then defines, None where it is as it was.

    Raises InvalidManifest where the editor gives back the same wrong text twice.
    """
    output = Output(settings)
    folder = Nodes(settings).services
    path = definition(folder, service)
    # As bytes: how its lines end, and what begins it, is its author's affair.
    before = _content(path) if path else (await _stored(settings, service)).encode()
    path = path or _free(folder, service)
    edited = _edited(output, before, path.name)
    if edited is None or (edited == before and path.exists()):
        output.line(f"{path} left as it was")
        return None
    spec = load(edited, path.name).spec
    try:
        write(path, edited.decode())
    except click.UsageError:
        _keep(output, edited)
        raise
    output.line(f"{path} written; mcp deploy {spec.name} applies it", "green")
    output.document(DefinitionReport(path=str(path), spec=spec))
    return spec.name


def _edited(output: Output, text: bytes, name: str) -> bytes | None:
    """What a person makes of it, once that is a definition; None where nothing is to be changed."""
    complaints = wrong = b""
    while True:
        try:
            edited = click.edit(complaints + text, extension=".toml")
        except click.ClickException:
            _keep(output, wrong)
            raise
        if edited is None or not edited.strip():
            _keep(output, wrong)
            return None
        text = b"".join(line for line in edited.splitlines(keepends=True) if not line.startswith(_COMPLAINT))
        try:
            load(text, name)
        except InvalidManifest as error:
            if text == wrong:
                _keep(output, wrong)
                raise
            wrong = text
            complaints = b"".join(_COMPLAINT + line.encode() + b"\n" for line in str(error).splitlines())
        else:
            return text


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror}") from error


def _free(folder: Path, service: str) -> Path:
    """Where the definition of a service that has none belongs. Raises click.UsageError where another one is there."""
    path = folder / f"{service}.toml"
    if path.exists():
        raise click.UsageError(f"{path} defines another service: rename that file first")
    return path


def _keep(output: Output, content: bytes) -> None:
    """Loses nothing of what somebody wrote, though it is not taken."""
    if content:
        with tempfile.NamedTemporaryFile(prefix="mcp-", suffix=".toml", delete=False) as stream:
            stream.write(content)
        output.error(f"what you wrote is in {stream.name}")


async def _stored(settings: Settings, service: str) -> str:
    async with connected(settings, service) as client:
        return dump((await client.get(service)).spec)


def validate(settings: Settings, what: str) -> int:
    """Checks definitions: a file, a folder, or that of a service. Raises InvalidManifest with all that is wrong."""
    output = Output(settings)
    named = None if what == STDIN or Path(what).exists() else definition(Nodes(settings).services, what)
    found = manifests([str(named or what)])
    for manifest in found:
        count = len(manifest.spec.components)
        output.line(f"{manifest.source}: ok, {manifest.spec.name} with {count} component{'s' * (count != 1)}")
    checked = tuple(DefinitionReport(path=manifest.source, spec=manifest.spec) for manifest in found)
    output.document(ValidateReport(definitions=checked))
    return ExitCode.DONE


async def show(settings: Settings, service: str) -> int:
    """Prints a definition with what is known of it."""
    output = Output(settings)
    async with connected(settings, service) as client:
        found = await client.get(service)
    by = f" by {found.actor}" if found.actor else ""
    output.line(f"# node {found.node}, generation {found.generation}, {moment(found.updated_at)}{by}", "dim")
    path = definition(Nodes(settings).services, service)
    if path is not None:
        local = load(path.read_bytes(), str(path)).spec
        changes = diff(found.spec, shown(local))
        same = "says the same" if shown(local) == local else "says the same, secrets aside"
        output.line(f"# {path} " + ("differs:" if changes else same), "dim")
        output.lines(f"# {field_line(change)}" for change in changes)
    if not output.silent:
        click.echo(dump(found.spec), nl=False)
    output.document(DefinitionReport(path=str(path or ""), spec=found.spec))
    return ExitCode.DONE


async def history(settings: Settings, service: str) -> int:
    """Lists what a service was to be."""
    output = Output(settings)
    async with connected(settings, service) as client:
        revisions = await client.revisions(service)
    before: list[ServiceSpec | None] = [None, *(revision.spec for revision in revisions)]
    entries = tuple(_entry(old, revision) for old, revision in zip(before, revisions, strict=False))[::-1]
    output.table(history_table(entries))
    output.document(HistoryReport(service=service, revisions=entries))
    return ExitCode.DONE


def _entry(old: ServiceSpec | None, revision: Revision) -> HistoryEntry:
    # Of the first that is kept it is not known what it changed.
    fields = diff(old, revision.spec) if old is not None else ()
    return HistoryEntry(
        generation=revision.generation, actor=revision.actor, at=revision.at, note=revision.note, fields=fields
    )


async def rollback(
    settings: Settings, service: str, generation: int, *, dry_run: bool, wait: bool, within: float
) -> int:
    """Goes back to an earlier generation."""
    output = Output(settings)
    settings = await placed(settings, service)
    if dry_run:
        async with connected(settings) as client:
            answer = await client.rollback(service, generation, dry_run=True)
            tell_plan(output, service, answer)
            output.lines(answer.notes)
            asked = Order(service, Nodes(settings).name(), client, lambda: client.rollback(service, generation))
            output.document(ApplyReport(dry_run=True, services=(report(asked, answer),)))
        return ExitCode.DONE

    async def act(client: Client) -> Applied:
        answer = await client.rollback(service, generation)
        output.lines(answer.notes)
        return answer

    status = await order(settings, service, act, wait=wait, within=within)
    if path := definition(Nodes(settings).services, service):
        output.line(f"{path} stays as it is: mcp service show {service} says how it differs", "dim")
    return status
