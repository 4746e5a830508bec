"""What the workstation says of a node, and of the caller's own token."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.access import How, Identity, Role
from api.inspection import Finding, FindingState
from cli import diagnosing
from cli.config import Node
from controller.registry import utc_now
from tests.unit.cli.plane import Mcp, Plane
from tests.unit.controller.auth.served import Served, serving


def state(finding: Finding) -> FindingState:
    assert bool(finding.advice) == (finding.state is not FindingState.OK)
    return finding.state


def test_a_token_that_ends_soon() -> None:
    def found(left: timedelta | None) -> Finding:
        end = None if left is None else datetime.now(UTC) + left
        return diagnosing.identity(Identity(name="ann", role=Role.ADMIN, how=How.MCIAS, expires_at=end))

    assert state(found(None)) is FindingState.OK
    assert state(found(timedelta(days=2))) is FindingState.OK
    assert state(found(timedelta(hours=2))) is FindingState.WARNING
    assert state(found(timedelta(hours=-2))) is FindingState.PROBLEM
    assert found(None).found == "ann (admin, by mcias)"


@pytest.mark.parametrize(
    ("there", "took", "words"),
    [
        (timedelta(seconds=-90), 1.0, "89 s behind this one"),
        (timedelta(seconds=90), 1.0, "90 s ahead of this one"),
        (timedelta(seconds=-40), 15.0, "agree within 15.0 s"),
        (timedelta(), 0.1, "agree within 0.1 s"),
    ],
)
def test_clocks_that_differ_by_more_than_the_answer_took(there: timedelta, took: float, words: str) -> None:
    (finding,) = diagnosing.clocks(datetime.now(UTC) + there, took)
    assert words in finding.found
    assert (state(finding) is FindingState.OK) == ("agree" in words)


def test_an_older_agent_does_not_tell_the_time() -> None:
    assert list(diagnosing.clocks(None, 1.0)) == []


@pytest.fixture
async def served(folder: Path) -> AsyncIterator[Served]:
    async with serving(folder) as served:
        yield served


async def test_who_is_not_let_in_is_told_to_log_in_and_who_is_for_how_long(served: Served, folder: Path) -> None:
    mcp = Mcp(folder, Plane())
    mcp.config.write_text(f'[nodes.rift]\naddress = "{served.address}"\nca_file = "{served.ca_file}"\n')
    mcp.write("token", await served.token("ci", Role.VIEWER, utc_now() + timedelta(hours=2)))
    mcp.write("wrong", "mcp_nobodys")
    ran = await mcp("doctor", "-o", "json", MCP_TOKEN_FILE=str(mcp.folder / "wrong"))
    found = {one["finding"]["check"]: one["finding"] for one in json.loads(ran.stdout)["findings"]}
    assert (ran.status, found["token"]["state"]) == (1, "problem")
    assert "mcp login" in found["token"]["advice"]
    ran = await mcp("doctor", "-o", "json", MCP_TOKEN_FILE=str(mcp.folder / "token"))
    found = {one["finding"]["check"]: one["finding"] for one in json.loads(ran.stdout)["findings"]}
    assert (ran.status, found["token"]["state"]) == (0, "warning")
    assert found["token"]["found"].startswith("ci (viewer, by token), until 20")


def test_a_token_that_others_may_read_is_warned_of(tmp_path: Path) -> None:
    token = tmp_path / "token"
    assert not list(diagnosing.kept(token))
    token.touch(mode=0o600)
    assert not list(diagnosing.kept(token))
    token.chmod(0o640)
    (warning,) = diagnosing.kept(token)
    assert (warning.state, warning.found) == (FindingState.WARNING, f"{token} can be read by others (0640)")


def test_a_ca_that_cannot_be_used_is_said_in_plain_words(tmp_path: Path) -> None:
    node = Node(address="rift:9444", ca_file=str(tmp_path / "ca.pem"))
    (missing,) = diagnosing.authority(node)
    assert missing.found == f"{tmp_path}/ca.pem cannot be read: No such file or directory"
    (tmp_path / "ca.pem").write_text("nonsense")
    (wrong,) = diagnosing.authority(node)
    assert wrong.found == f"{tmp_path}/ca.pem holds no certificate in PEM"
