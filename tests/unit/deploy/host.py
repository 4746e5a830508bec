"""A host below a folder, on which deploy/install is run for real: only systemd is a small one of our own."""

import os
import re
import shutil
import site
import subprocess
import sys
from pathlib import Path

from stack.web import free_port

REPOSITORY = Path(__file__).parents[3]
OURS = re.compile(r"__editable__|metacircular_mcp|pip|.*\.pth$")


class HostBelow:
    """`folder` holds the host (root), and the trees that are installed on it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "r"
        self.trees = folder / "t"
        self.state = self.root / "var/lib/mcp"
        self.settings = self.root / "etc/mcp/mcp-agent.toml"
        self._systemd = self.root / "run/systemd/system"
        self._systemd.mkdir(parents=True)
        tools = folder / "tools"
        tools.mkdir()
        for name in ("systemctl", "journalctl"):
            program = Path(__file__).with_name(f"{name}.py")
            (tools / name).write_text(f'#!/bin/sh\nexec {sys.executable} {program} "$@"\n')
            (tools / name).chmod(0o755)
        self.environ = os.environ | {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "UNIT_ROOT": str(self.root),
            "MCP_CONFIG": str(folder / "mcp.toml"),
            **_without_network(folder / "packages"),
        }
        (folder / "mcp.toml").write_text(f'[nodes.rift]\naddress = "unix://{self.root}/run/mcp/agent.sock"\n')

    def tree(self, name: str, version: str = "0.1.0") -> Path:
        """A tree of MCP to be changed."""
        tree = self.trees / name
        tree.mkdir(parents=True)
        without = shutil.ignore_patterns("__pycache__", "*.egg-info")
        for part in ("api", "controller", "reconcilers", "cli", "mcproxy", "docs", "deploy"):
            shutil.copytree(REPOSITORY / part, tree / part, ignore=without)
        for part in ("pyproject.toml", "constraints.txt", "README.md"):
            shutil.copy(REPOSITORY / part, tree / part)
        project = tree / "pyproject.toml"
        project.write_text(re.sub('(?m)^version = ".*"$', f'version = "{version}"', project.read_text()))
        return tree

    def install(self, tree: Path, *options: str) -> subprocess.CompletedProcess[str]:
        """Runs its installer, for this host alone."""
        return self._run(tree / "deploy/install", "--root", self.root, *options)

    def configure(self) -> None:
        """What an operator sets: the folders of this host, and a podman that does not answer."""
        text = self.settings.read_text()
        for old, new in (
            (r'^node = ".*"', 'node = "rift"'),
            (r'"/var/lib/mcp"', f'"{self.state}"'),
            (r'"/run/mcp/agent.sock"', f'"{self.root}/run/mcp/agent.sock"'),
            (r'^socket = ".*podman.sock"', f'socket = "{self.root}/run/podman.sock"'),
            (r'"127.0.0.1:9464"', f'"127.0.0.1:{free_port()}"'),
        ):
            text, count = re.subn(old, new, text, flags=re.MULTILINE)
            assert count == 1, old
        self.settings.write_text(text)

    def systemctl(self, *words: str) -> str:
        """What the small systemd says."""
        return self._run("systemctl", *words).stdout.strip()

    def calls(self) -> list[str]:
        """What it was asked since somebody last looked."""
        file = self._systemd / "calls"
        calls = file.read_text().splitlines()
        file.unlink()
        return calls

    def mcp(self, *words: str | Path) -> str:
        """Runs the installed command."""
        ran = self._run(self.root / "usr/bin/mcp", *words)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def serving(self) -> str:
        """The version that the agent's process runs from."""
        pid = (self._systemd / "mcp-agent.pid").read_text()
        interpreter = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]
        return Path(interpreter).relative_to(self.root / "opt/mcp").parts[0]

    def linked(self, name: str) -> str:
        """Where /opt/mcp/current or previous leads."""
        return str((self.root / "opt/mcp" / name).readlink())

    def versions(self) -> set[str]:
        """All that are installed."""
        return {path.parent.name for path in self.root.glob("opt/mcp/[0-9]*/complete")}

    def an_old_version(self, name: str) -> None:
        """Lays down one that nobody uses any more."""
        (self.root / "opt/mcp" / name).mkdir()
        (self.root / "opt/mcp" / name / "complete").touch()

    def _run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, env=self.environ, capture_output=True, text=True, check=False, timeout=100)


def _without_network(packages: Path) -> dict[str, str]:
    """Lends the packages that MCP needs: constraints.txt names the very versions that this test runs with."""
    packages.mkdir()
    for path in Path(site.getsitepackages()[0]).iterdir():
        if not OURS.match(path.name):
            (packages / path.name).symlink_to(path)
    return {"PYTHONPATH": str(packages), "PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
