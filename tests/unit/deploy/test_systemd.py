"""The units start commands that there are, beside each other, and as nobody who may do more than is needed."""

import configparser
import re
import subprocess
from pathlib import Path

import pytest

from cli import agent
from controller.settings import ApiSettings, LoopSettings, Settings
from mcproxy.main import main as mcproxyd

FOLDER = Path("deploy/systemd")
PROGRAMS = {"/usr/bin/mcp-agent": agent.cli, "/usr/bin/mcproxyd": mcproxyd}
SERVICES = sorted(FOLDER.glob("*.service"))


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, delimiters="=", strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(path)
    return parser


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.stem)
def test_each_service_starts_a_command_that_there_is(path: Path) -> None:
    service = unit(path)["Service"]
    for key in ("ExecStartPre", "ExecStart"):
        if key in service:
            program, command, *_ = service[key].split()
            assert command in PROGRAMS[program].commands


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.stem)
def test_no_service_hides_podmans_socket_or_can_gain_rights(path: Path) -> None:
    service = unit(path)["Service"]
    assert service["NoNewPrivileges"] == "yes"
    assert service["ProtectSystem"] != "strict"
    assert {"ProtectHome", "PrivateUsers", "PrivateNetwork", "ProtectProc"}.isdisjoint(service)


def test_systemd_itself_finds_nothing_wrong_with_them(tmp_path: Path) -> None:
    """The command is that of this machine, as systemd looks whether there is one."""
    for path in FOLDER.iterdir():
        (tmp_path / path.name).write_text(re.sub("/usr/bin/(mcp-agent|mcproxyd)", "/usr/bin/true", path.read_text()))
    units = sorted(str(path) for path in tmp_path.iterdir())
    ran = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("path", SERVICES, ids=lambda path: path.stem)
def test_no_service_is_more_exposed_than_it_was(path: Path) -> None:
    command = ["systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=35", path]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-200:]


def test_the_agent_may_call_what_it_needs() -> None:
    """RestrictSUIDSGID makes openat2 vanish, with which files are pushed; namespaces of containers are entered."""
    service = unit(FOLDER / "mcp-agent.service")["Service"]
    assert "RestrictSUIDSGID" not in service
    assert (service["RestrictNamespaces"], service["SystemCallFilter"]) == ("net", "@system-service setns")


def test_the_agent_is_given_the_folders_of_its_settings_and_the_time_to_end() -> None:
    service = unit(FOLDER / "mcp-agent.service")["Service"]
    assert f"/var/lib/{service['StateDirectory']}" == Settings(node="rift").state_dir
    assert ApiSettings().socket.startswith(f"/run/{service['RuntimeDirectory']}/")
    assert int(service["TimeoutStopSec"]) > LoopSettings().stop_seconds
    assert (service["Type"], service["KillMode"]) == ("notify", "mixed")


def test_the_timer_starts_a_service_that_there_is() -> None:
    for timer in FOLDER.glob("*.timer"):
        assert timer.with_suffix(".service").exists()
        assert unit(timer)["Timer"]["Persistent"] == "true"


def test_the_way_back_names_every_command_of_it_and_its_links_lead_somewhere() -> None:
    page = Path("docs/recovery.md")
    text = page.read_text()
    for command in ("mcp-agent snapshot", "mcp-agent restore", "mcp-agent migrate", "mcp resume", "mcp suspend"):
        assert command in text
    for option in ("--to", "--force", "--dry-run", "--node"):
        assert option in text
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (page.parent / link).exists(), link
