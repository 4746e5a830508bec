"""The ground that everything stands on: pinned versions, and targets that say what they do."""

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned_to_a_version_and_to_no_place() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.!+]+", line)] == []
    pinned = {normal(line.partition("==")[0]) for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"], "setuptools"]
    assert {normal(re.split(r"[\[<>=~!; ]", name)[0]) for name in wanted} <= pinned


def test_help_lists_every_target() -> None:
    shown = subprocess.run(["make", "-C", str(ROOT), "--silent", "help"], capture_output=True, text=True, check=True)
    targets = re.findall(r"^\.PHONY: (\w+)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert [line.split()[1] for line in shown.stdout.splitlines()] == targets
    assert {"setup", "demo", "up", "down", "test", "check", "bench", "generate", "clean"} <= set(targets)


def test_down_is_harmless_where_nothing_is_up(tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(tmp_path / "clone")], check=True)
    done = subprocess.run(["make", "-C", str(tmp_path / "clone"), "down"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
