"""A host is installed, upgraded, and led back from an upgrade that fails: by the script that operators run."""

import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.deploy.host import HostBelow

DEFINITION = """
name = "web"

[[components]]
name = "web"
image = "localhost/web:v1"
"""

LATER = '''
"""What a later version adds."""

import sqlalchemy as sa
from alembic import op

revision = "9001"
down_revision = "{last}"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("later", sa.Column("name", sa.Text(), primary_key=True))
'''


@pytest.fixture
def host() -> Iterator[HostBelow]:
    with tempfile.TemporaryDirectory(prefix="mcp-i") as folder:
        host = HostBelow(Path(folder))
        yield host
        host.systemctl("stop", "mcp-agent")


def with_a_newer_schema(tree: Path) -> Path:
    folder = tree / "controller/registry/migrations/versions"
    last = max(path.stem.partition("_")[0] for path in folder.glob("[0-9]*.py"))
    (folder / "9001_later.py").write_text(LATER.format(last=last))
    return tree


def that_cannot_serve_while(tree: Path, obstacle: Path) -> Path:
    with (tree / "controller/app.py").open("a") as module:
        module.write(f'\nif Path("{obstacle}").exists():\n    raise RuntimeError("nobody tried this version")\n')
    return tree


def test_a_host_is_installed_and_upgraded_and_led_back(host: HostBelow) -> None:
    first = host.tree("first")
    ran = host.install(first)
    assert ran.returncode == 0, ran.stderr
    assert "enable --now mcproxyd mcp-agent" in ran.stdout
    assert host.calls() == ["daemon-reload"], "nothing is started"
    one = host.linked("current")
    assert host.versions() == {one}

    host.configure()
    settings = host.settings.read_text()
    again = host.install(first)
    assert again.returncode == 0, again.stderr
    assert "stays as it is" in again.stdout
    assert (host.settings.read_text(), host.versions()) == (settings, {one})
    assert host.calls() == ["daemon-reload"]

    host.systemctl("start", "mcp-agent")
    definition = host.root / "web.toml"
    definition.write_text(DEFINITION)
    host.mcp("apply", "--no-wait", "--file", definition)

    # One that takes over the registry, and then cannot serve.
    obstacle = host.root / "obstacle"
    obstacle.touch()
    second = that_cannot_serve_while(with_a_newer_schema(host.tree("second", "0.2.0")), obstacle)
    ran = host.install(second)
    assert ran.returncode == 1, ran.stdout
    assert f"{one} serves again" in ran.stderr
    assert "nobody tried this version" in ran.stderr
    assert (host.serving(), host.linked("current")) == (one, one)
    assert "suspended for" in host.mcp("status", "web")
    host.mcp("resume", "--all")

    host.an_old_version("0.0.9-0a0a0a0a")
    obstacle.unlink()
    ran = host.install(second)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    two = host.linked("current")
    assert two.startswith("0.2.0-")
    assert (host.serving(), host.linked("previous"), host.versions()) == (two, one, {one, two})
    assert "suspended for" not in host.mcp("status", "web")

    # Settings that a version does not understand keep it from being tried at all.
    host.calls()
    host.settings.write_text(f"colour = 1\n{settings}")
    ran = host.install(first, "--rollback")
    assert (ran.returncode, host.serving()) == (1, two)
    assert "colour" in ran.stderr
    assert host.calls() == ["is-active mcp-agent"]
    host.settings.write_text(settings)

    ran = host.install(first, "--rollback")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (host.serving(), host.linked("previous")) == (one, two)
    assert "mcp resume --all" in ran.stdout
    assert "suspended for" in host.mcp("status", "web")


def dry(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = ("deploy/install", "--dry-run", "--root", root, *options)
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_dry_run_says_what_would_be_done_and_does_nothing(tmp_path: Path) -> None:
    ran = dry(tmp_path)
    assert ran.returncode == 0, ran.stderr
    for path in ("opt/mcp/current", "etc/mcp/mcp-agent.toml", "usr/bin/mcp-agent", "mcp-agent-snapshot.timer"):
        assert path in ran.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--colour"], "there is no --colour"),
        (["--user", "ann;reboot"], "nobody can be called"),
        (["--user"], "--user needs a name"),
        (["--rollback"], "there is no version before"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path: Path, options: list[str], complaint: str) -> None:
    ran = dry(tmp_path, *options)
    assert ran.returncode != 0
    assert complaint in ran.stderr


def test_what_is_not_mcps_is_left_alone_and_told_of(tmp_path: Path) -> None:
    """Such as Debian's mmv, which has a program called mcp."""
    program = tmp_path / "usr/bin/mcp"
    program.parent.mkdir(parents=True)
    program.touch()
    assert f"{program} is not MCP's" in dry(tmp_path).stdout


def test_the_packages_are_those_that_a_clone_needs_to_run() -> None:
    """scripts/setup has git, make and the tools of the demo besides."""
    listed = [
        re.search(r"^packages=\(([^)]*)\)", Path(path).read_text(), re.MULTILINE)
        for path in ("deploy/install", "scripts/setup")
    ]
    installed, developed = (set(found[1].split()) for found in listed if found)
    assert installed - {"dbus-user-session"} == developed - {
        "git",
        "make",
        "curl",
        "openssl",
        "iproute2",
        "busybox-static",
    }
