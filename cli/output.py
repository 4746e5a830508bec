"""Prints: rich on a terminal, plain stable lines in a pipe, JSON where it is asked for."""

import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
from pydantic import BaseModel

from cli.options import Settings

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_STYLES = {
    "running": "green",
    "yes": "green",
    "True": "green",
    "ready": "green",
    "no": "red",
    "False": "red",
    "exited": "red",
    "missing": "red",
    "unknown": "yellow",
    "Unknown": "yellow",
    "foreign": "dim",
    "stopped": "dim",
    "drained": "yellow",
}


def printable(text: str) -> str:
    """The text without what would steer a terminal: container names and errors come from outside."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under headers."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def first(self, lines: int) -> tuple["Table", str]:
        """As much as so many lines have room for, beside the headers, and what is said of the rest, if any."""
        room = max(1, lines - 1)
        if len(self.rows) <= room:
            return self, ""
        shown = room - 1
        return Table(self.headers, self.rows[:shown]), f"and {len(self.rows) - shown} more"

    def plain(self) -> str:
        """Columns padded with spaces; an empty cell is `-`, so that columns can be counted."""
        rows = [self.headers, *[tuple(_line(cell) or "-" for cell in row) for row in self.rows]]
        widths = _widths(rows)
        return "\n".join(_padded(row, widths) for row in rows)

    def styled(self, columns: int, *, colours: bool) -> str | None:
        """The same in colours, for a terminal of so many columns; None where that takes more than a line a row.

        It looks as rich's does, which takes half a second for a thousand rows.
        """
        cells = [tuple(map(_line, row)) for row in self.rows]
        widths = _widths([self.headers, *cells])
        text = all(cell.isascii() for row in cells for cell in row)  # else a letter may be two columns wide
        if not text or sum(widths) + 2 * len(widths) > columns:
            return None
        if not colours:
            return "\n".join(_padded(row, widths) for row in [self.headers, *cells])
        lines = [click.style(_padded(self.headers, widths), bold=True)]
        for row in cells:
            padded = (_coloured(cell, width) for cell, width in zip(row, widths, strict=True))
            lines.append("  ".join(padded).rstrip())
        return "\n".join(lines)

    def rich(self) -> "RenderableType":
        """The same for a terminal."""
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for header in self.headers:
            table.add_column(header, overflow="fold", no_wrap=header in ("SERVICE", "AGE", "READY"))
        for row in self.rows:
            table.add_row(*(Text(printable(cell), style=_STYLES.get(cell, "")) for cell in row))
        return table


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a page of text: what it is about, which the lines below may leave out, and what is said."""

    label: str
    text: str
    style: str = ""
    """A colour, `dim`, or nothing."""


def _page(rows: Sequence[Row]) -> "RenderableType":
    from rich.padding import Padding
    from rich.table import Table as RichTable
    from rich.text import Text

    table = RichTable.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        text = row.text.lstrip(" ")
        line = Padding(Text(printable(text), style=row.style), (0, 0, 0, len(row.text) - len(text)))
        table.add_row(Text(printable(row.label), style="bold"), line)
    return table


def _line(cell: str) -> str:
    return printable(" ".join(cell.split()))


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _coloured(cell: str, width: int) -> str:
    colour = _STYLES.get(cell)
    if colour is None:
        return cell.ljust(width)
    style = click.style(cell, dim=True) if colour == "dim" else click.style(cell, fg=colour)
    return style + " " * (width - len(cell))


def _padded(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _yaml(report: BaseModel) -> str:
    import yaml

    return yaml.safe_dump(report.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


class Output:
    """Where a command's results go, as its options ask for."""

    def __init__(self, settings: Settings, parts: list[BaseModel] | None = None) -> None:
        """`parts` takes up whole results instead of their being printed, where a command is a part of another."""
        self._parts = parts
        self.yaml = settings.output == "yaml"
        self.json = settings.output in ("json", "yaml")
        """Whether a program reads it."""
        self.quiet = settings.quiet
        self.terminal = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        """Whether a person is looking on."""

    @property
    def silent(self) -> bool:
        """Whether lines for people are not wanted."""
        return self.json or self.quiet

    def console(self) -> "Console":
        """For what moves on a terminal."""
        from rich.console import Console

        return Console(highlight=False)

    def line(self, text: str, style: str = "") -> None:
        """One line of the result, for people; `style` is a colour, or `dim`."""
        if self.silent:
            return
        if not self.terminal or "NO_COLOR" in os.environ:
            style = ""
        colour = style if style != "dim" else None
        click.echo(click.style(printable(text), fg=colour, dim=style == "dim" or None) if style else printable(text))

    def lines(self, texts: Iterable[str]) -> None:
        """Several lines of the result, for people."""
        for text in texts:
            self.line(text)

    def table(self, table: Table) -> None:
        """A table, for people."""
        if self.silent:
            return
        if not self.terminal:
            click.echo(table.plain())
            return
        styled = table.styled(shutil.get_terminal_size().columns, colours="NO_COLOR" not in os.environ)
        if styled is None:
            self.console().print(table.rich())
        else:
            click.echo(styled)

    def page(self, rows: Sequence[Row]) -> None:
        """Labels and lines, for people: what is too long for a terminal goes on below its own beginning."""
        if self.silent or not rows:
            return
        if self.terminal:
            self.console().print(_page(rows))
            return
        width = max(len(row.label) for row in rows)
        for row in rows:
            click.echo(printable(f"{row.label.ljust(width)}  {row.text}".rstrip()))

    def document(self, report: BaseModel) -> None:
        """The whole result, for programs."""
        if self._parts is not None:
            self._parts.append(report)
        elif self.json and not self.quiet:
            click.echo(_yaml(report) if self.yaml else report.model_dump_json(indent=2), nl=not self.yaml)

    def json_line(self, report: BaseModel) -> None:
        """One of a stream of results, for programs."""
        if self.json and not self.quiet:
            click.echo(f"---\n{_yaml(report)}" if self.yaml else report.model_dump_json(), nl=not self.yaml)

    def note(self, text: str) -> None:
        """What is being done, for whoever looks on; beside what other programs say of it, on stderr."""
        if not self.quiet:
            click.echo(printable(text), err=True)

    def error(self, text: str) -> None:
        """Something that is wrong; always printed."""
        click.echo("\n".join(printable(line) for line in text.splitlines()), err=True)
