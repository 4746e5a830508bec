"""An operator's own machine: a home folder, the `mcp` command, an editor, and nothing that says where the node is."""

import os
import subprocess
import sys
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from tests.terminal import Terminal, terminal

_MCP = Path(sys.executable).parent / "mcp"


@dataclass(frozen=True)
class Workstation:
    """Reaches nodes over TCP alone."""

    home: Path

    @property
    def services(self) -> Path:
        """The services folder."""
        return self.home / ".config" / "mcp" / "services"

    def definition(self, service: str) -> Path:
        """A service's definition."""
        return self.services / f"{service}.toml"

    def rewrite(self, service: str, old: str, new: str) -> None:
        """Edits a definition by hand."""
        text = self.definition(service).read_text()
        assert old in text
        self.definition(service).write_text(text.replace(old, new))

    def mcp(self, *arguments: str | Path, stdin: str = "", status: int = 0, editor: str = "") -> str:
        """What `mcp` says on both its outputs, once it ended with that status."""
        done = subprocess.run(
            [_MCP, *arguments],
            cwd=self.home,
            env=self._environment(editor),
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=90,
        )
        # What was typed and answered so far is what one wants to see of a day that went wrong.
        sys.stdout.write(f"$ mcp {' '.join(map(str, arguments))}\n{done.stdout}")
        assert done.returncode == status, done.stdout
        return done.stdout

    def screen(
        self, *arguments: str, editor: str = "", size: tuple[int, int] = (100, 30)
    ) -> AbstractAsyncContextManager[Terminal]:
        """`mcp` on a terminal."""
        return terminal([_MCP, *arguments], self._environment(editor), self.home, size)

    def editor(self, *commands: str) -> str:
        """What to name as $EDITOR: each time it is opened, it does the next of these sed commands."""
        script, opened = self.home / "editor", self.home / "opened"
        lines = [f"{number}) sed -i '{command}' \"$1\" ;;" for number, command in enumerate(commands, 1)]
        counting = f'echo >> "{opened}"; case $(wc -l < "{opened}") in'
        script.write_text("\n".join(["#!/bin/sh", counting, *lines, "*) exit 1 ;;", "esac", ""]))
        script.chmod(0o755)
        opened.unlink(missing_ok=True)
        return str(script)

    def _environment(self, editor: str = "") -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("COVERAGE_PROCESS_CONFIG",) if name in os.environ}
        variables = {"HOME": str(self.home), "PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
        return kept | variables | ({"EDITOR": editor} if editor else {})
