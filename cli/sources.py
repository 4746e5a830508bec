"""Reads the definitions that a command line names: all of them, or none."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from api.manifest import MAX_BYTES, InvalidManifest, Manifest, Problem, load
from cli.definitions import files as definitions

STDIN = "-"


def manifests(files: Iterable[str]) -> list[Manifest]:
    """The definitions in `files`, each a file, a folder of *.toml, or - for standard input.

    Raises InvalidManifest with all that is wrong in any of them, and
    click.UsageError for what cannot be read.
    """
    problems: list[Problem] = []
    found: list[Manifest] = []
    for source, content in [(source, content) for file in files for source, content in _contents(file)]:
        try:
            found.append(load(content, source))
        except InvalidManifest as error:
            problems += error.problems
    problems += doubles((manifest.spec.node, manifest) for manifest in found)
    if problems:
        raise InvalidManifest(tuple(problems))
    return found


def _contents(file: str) -> Iterator[tuple[str, bytes]]:
    if file == STDIN:
        yield "<stdin>", sys.stdin.buffer.read(MAX_BYTES + 1)
        return
    path = Path(file)
    try:
        if not path.is_dir():
            yield file, _limited(path)
            return
        found = definitions(path)
        for definition in found:
            yield str(definition), _limited(definition)
    except OSError as error:
        raise click.UsageError(f"{error.filename or file} cannot be read: {error.strerror}") from error
    if not found:
        raise click.UsageError(f"{file} holds no *.toml")


def _limited(path: Path) -> bytes:
    """The file's content, but never much more than a definition may have."""
    with path.open("rb") as stream:
        return stream.read(MAX_BYTES + 1)


def doubles(found: Iterable[tuple[str | None, Manifest]]) -> Iterator[Problem]:
    """What is defined twice, each definition with its node."""
    first: dict[tuple[str | None, str], Manifest] = {}
    for node, manifest in found:
        name = manifest.spec.name
        other = first.setdefault((node, name), manifest)
        if other is not manifest:
            place = f"{other.source}:{other.locate('name')}"
            yield Problem(manifest.source, manifest.locate("name"), "name", f'"{name}" is also defined in {place}')
