"""How the demo speaks: what it does, the commands it runs, and what it has verified, each with its time."""

import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stack import web
from stack.processes import StackError


@dataclass
class Story:
    """A narration on `console`: rich on a terminal, plain lines in a pipe. `env` is what the commands run with."""

    env: Mapping[str, str]
    console: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))
    corrected: list[tuple[str, float]] = field(default_factory=list)

    def part(self, number: int, title: str) -> None:
        """Begins a part of the story."""
        self.console.print(f"\n[bold cyan]{number}. {escape(title)}[/]")

    def say(self, text: str) -> None:
        """One sentence of what happens now."""
        self.console.print(f"{escape(text)}")

    def show(self, *argv: str) -> None:
        """Runs a command with the terminal as its own. Raises StackError when it fails."""
        self._prompt(argv)
        done = subprocess.run(argv, check=False, env=self.env, stdin=subprocess.DEVNULL, timeout=120)
        if done.returncode != 0:
            raise StackError(f"{shlex.join(argv)} ended with {done.returncode}")

    def read(self, *argv: str) -> str:
        """Runs a command and shows what it prints. Raises StackError when it fails."""
        code, said = self._run(argv)
        if code != 0:
            raise StackError(f"{shlex.join(argv)} ended with {code}")
        return said

    def fails(self, *argv: str) -> str:
        """Runs a command that must not succeed and shows what it prints. Raises StackError when it does."""
        code, said = self._run(argv)
        self.verify(f"it ends with {code}", code != 0)
        return said

    def _run(self, argv: tuple[str, ...]) -> tuple[int, str]:
        self._prompt(argv)
        done = subprocess.run(
            argv, check=False, env=self.env, stdin=subprocess.DEVNULL, timeout=120, capture_output=True, text=True
        )
        for line in (done.stdout + done.stderr).splitlines():
            self.console.print(f"{escape(line)}")
        return done.returncode, done.stdout + done.stderr

    def verify(self, what: str, holds: bool) -> None:
        """Says that something holds. Raises StackError when it does not: the demo ends there."""
        if not holds:
            raise StackError(f"not true: {what}")
        self.console.print(f"[green]✓[/] {escape(what)}")

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Says what was done and how long it took."""
        began = time.monotonic()
        yield
        self.console.print(f"[green]✓[/] {escape(what)} [dim]{_duration(time.monotonic() - began)}[/]")

    def drift(self, what: str, harm: Callable[[], object], corrected: Callable[[], bool], limit: float = 30) -> None:
        """Does harm, and measures from its beginning until it is corrected; more than `limit` raises StackError."""
        self.console.print(f"[yellow]✗[/] {escape(what)} …", end=" ")
        began = time.monotonic()
        harm()
        web.wait_for(corrected, seconds=limit, what=f"{what}: corrected")
        seconds = time.monotonic() - began
        self.corrected.append((what, seconds))
        self.console.print(f"[green]corrected[/] after {_duration(seconds)}")

    def summary(self) -> None:
        """The table of all drift that was corrected."""
        border = box.ROUNDED if self.console.is_terminal else None
        table = Table(title="Drift, and how long it lasted", title_justify="left", box=border)
        table.add_column("what happened")
        table.add_column("corrected after", justify="right")
        for what, seconds in self.corrected:
            table.add_row(what, _duration(seconds))
        self.console.print(table)

    def fail(self, reason: str) -> None:
        """The last line of a demo that did not hold."""
        self.console.print(f"[bold red]✗ {escape(reason)}[/]")

    def end(self, seconds: float) -> None:
        """The last line of a demo in which everything was verified."""
        self.console.print(f"\n[bold green]Every step was verified.[/] {seconds:.0f} s")

    def _prompt(self, argv: tuple[str, ...]) -> None:
        self.console.print(f"[bold]$ {escape(shlex.join(argv))}[/]")
        self.console.file.flush()


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
