"""The frame: instant help, lazy imports, and an answer for every error."""

import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

from api.errors import ExitCode
from cli import main
from cli.main import LazyGroup, run
from scripts.docs import every_command
from tests.unit.cli.plane import Mcp

HEAVY = ("grpc", "pydantic", "rich", "asyncio", "google.protobuf", "tenacity", "api", "importlib.metadata")


def imported_by(*arguments: str) -> set[str]:
    program = (
        "import sys; from cli.main import run; status = run(sys.argv[1:]); "
        "print('\\n'.join(sys.modules), file=sys.stderr); sys.exit(status)"
    )
    ran = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return set(ran.stderr.splitlines())


@pytest.mark.parametrize("arguments", [["--help"], ["apply", "--help"], ["status", "--help"], ["watch", "-h"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    assert imported_by(*arguments).isdisjoint(HEAVY)


def test_help_answers_at_once() -> None:
    def once() -> float:
        before = time.monotonic()
        subprocess.run([sys.executable, "-m", "cli.main", "--help"], check=True, capture_output=True)
        return time.monotonic() - before

    assert min(once() for _ in range(5)) < 0.15


def test_every_command_is_listed_with_the_words_it_uses_itself() -> None:
    context = click.Context(main.cli)
    for name, words in main._COMMANDS.items():
        command = main.cli.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert (command.help or "").splitlines()[0].startswith(words.rstrip(".").split(",")[0].split(";")[0][:20])


def test_every_command_has_the_common_options() -> None:
    for command in every_command(click.Context(main.cli)).values():
        assert {"node", "address", "config", "output", "quiet"} <= {parameter.name for parameter in command.params}


def test_help_names_every_exit_status() -> None:
    epilog = main.cli.epilog or ""
    assert [int(line.split()[0]) for line in epilog.splitlines() if line.startswith("  ")] == [*ExitCode, 130]


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["apply"], ["status", "--nonsense"], ["apply", "-f", "/nonexistent"]]
)
def test_wrong_usage_is_a_sentence_and_exit_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == ExitCode.USAGE
    assert "Error:" in capsys.readouterr().err


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command("version")
    def cli() -> None:
        raise KeyError("x")

    monkeypatch.setattr(LazyGroup, "get_command", lambda *_: cli)


@pytest.mark.usefixtures("broken")
def test_a_defect_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["version"]) == ExitCode.FAILED
    assert capsys.readouterr().err == (
        "mcp: this is a defect of mcp itself (KeyError: 'x'); MCP_DEBUG=1 shows the details\n"
    )


@pytest.mark.usefixtures("broken")
def test_debugging_shows_where_a_defect_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_DEBUG", "1")
    run(["version"])
    assert "Traceback" in capsys.readouterr().err


async def test_an_empty_folder_is_not_taken_for_done(offline: Mcp) -> None:
    (offline.folder / "empty").mkdir()
    ran = await offline("apply", "-f", "empty")
    assert ran.status == ExitCode.USAGE
    assert ran.stderr.endswith("Error: empty holds no *.toml\n")


def test_what_cannot_be_printed_is_said() -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "cli.main", "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (ran.returncode, ran.stderr) == (1, "mcp: what is printed: No space left on device\n")


@pytest.mark.parametrize(
    ("closed", "status", "stderr"),
    [
        (">&-", 1, "mcp: what is printed: Bad file descriptor\n"),
        ("2>&-", 0, ""),
        ("<&-", 0, ""),
        (">&- 2>&- <&-", 1, ""),
    ],
)
@pytest.mark.parametrize("arguments", ["--help", "completion bash"])
def test_streams_that_the_caller_closed_are_no_defect(arguments: str, closed: str, status: int, stderr: str) -> None:
    command = f'"{sys.executable}" -m cli.main {arguments} {closed}'
    ran = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (status, stderr)
