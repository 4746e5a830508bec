"""Completion in the shells themselves, as a person at a terminal sees it."""

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.terminal import terminal
from tests.unit.cli.plane import Mcp
from tests.unit.cli.test_apply import HELLO

SHELLS: Mapping[str, list[str]] = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "--no-rcs", "-i"],
    "fish": ["fish", "--no-config", "--private", "-i"],
}
READY: Mapping[str, str] = {
    "bash": 'PS1=; eval "$(mcp completion bash)"; echo loa"ded"',
    "zsh": 'PS1=; autoload -Uz compinit; compinit -D; eval "$(mcp completion zsh)"; echo loa"ded"',
    "fish": 'mcp completion fish | source; echo loa"ded"',
}


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_service_is_completed_by_pressing_tab(mcp: Mcp, shell: str) -> None:
    await mcp("apply", "-q", "-f", "-", stdin=HELLO)
    command = mcp.folder / "bin" / "mcp"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m cli.main "$@"\n')
    command.chmod(0o755)
    path = f"{command.parent}:/usr/bin:/bin"
    variables = mcp.environment | {"PYTHONPATH": str(Path.cwd()), "PATH": path, "HOME": str(mcp.folder)}
    async with terminal(SHELLS[shell], variables, mcp.folder) as screen:
        screen.press(READY[shell].encode() + b"\n")
        await screen.until("loaded")
        screen.press(b"mcp status hel\t")
        await screen.until("mcp status hello")
        screen.press(b"\n")
        await screen.until("generation 1")
