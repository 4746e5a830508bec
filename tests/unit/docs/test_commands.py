"""Each command that the documentation writes down exists, and has the options that it is given there."""

import re
import shlex
from pathlib import Path

import click
import pytest

from cli import agent, main

PAGES = sorted(
    page for page in [Path("README.md"), *Path("docs").rglob("*.md")] if page != Path("docs/reference/cli.md")
)
PROGRAMS = {"mcp": main.cli, "mcp-agent": agent.cli}
_SPAN = re.compile(r"`((?:mcp|mcp-agent) [^`]+)`")
_BLOCK = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def written(page: Path) -> list[str]:
    """The command lines of a page: in the text as code, and in blocks that show what is typed."""
    text = page.read_text()
    lines = [line.removeprefix("$ ") for block in _BLOCK.findall(text) for line in block.splitlines()]
    typed = [line for line in lines if line.split(" ")[0] in PROGRAMS]
    return [*typed, *_SPAN.findall(_BLOCK.sub("", text))]


def words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:  # half a quotation, in a sentence that goes on
        return line.split()


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_are_written_as_they_are_called(page: Path) -> None:
    for line in written(page):
        program, *rest = words(line)
        command: click.Command = PROGRAMS[program]
        while isinstance(command, click.Group) and rest and re.fullmatch("[a-z-]+", rest[0]):
            name = rest.pop(0)
            found = command.get_command(click.Context(command), name)
            assert found is not None, f"{line}: there is no {name}"
            command = found
        known = {"-h", "--help"} | {one for param in command.params for one in (*param.opts, *param.secondary_opts)}
        options = {word.partition("=")[0] for word in rest if re.fullmatch(r"--?[a-z][a-z-]*(=.*)?", word)}
        assert options <= known, f"{line}: there is no {options - known}"
