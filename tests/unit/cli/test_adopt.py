"""Taking over what runs, from the command line."""

import json
from pathlib import Path

import pytest

from api.manifest import load
from tests.unit.cli.plane import Mcp
from tests.unit.cli.test_commands import applied


async def test_the_definition_is_printed_with_what_podman_does_not_tell(mcp: Mcp) -> None:
    ran = await mcp("adopt", "shop", "--route", "web/default=443:l7")
    assert (ran.status, ran.stderr) == (0, "")
    assert ran.lines[:3] == ["# Written from what ran as shop.", "# shop: see to health", "# web/default"]
    assert load(ran.stdout, "shop.toml").spec == mcp.plane.registry["shop"].spec


async def test_a_dry_run_takes_nothing_over(mcp: Mcp) -> None:
    ran = await mcp("adopt", "shop", "--dry-run", "-o", "json", "--container", "p_web_1=web")
    report = json.loads(ran.stdout)
    assert (report["dry_run"], report["containers"], mcp.plane.registry) == (True, ["p_web_1"], {})
    assert [component["name"] for component in report["service"]["spec"]["components"]] == ["web"]


async def test_it_is_written_to_a_new_file_only(mcp: Mcp, tmp_path: Path) -> None:
    file = tmp_path / "shop.toml"
    ran = await mcp("adopt", "shop", "--write", str(file))
    assert ran.lines == [f"{file} is written from what ran as shop", "    shop: see to health"]
    assert load(file.read_bytes(), "shop.toml").spec == mcp.plane.registry["shop"].spec
    ran = await mcp("adopt", "other", "--write", str(file))
    assert (ran.status, "other" in mcp.plane.registry) == (2, False)
    ran = await mcp("adopt", "third", "--write", str(tmp_path / "missing" / "x.toml"))
    assert "mcp export third prints the definition" in ran.stderr


@pytest.mark.parametrize("arguments", [("--container", "x"), ("--container", "=web"), ("--route", "web=")])
async def test_pairs_are_pairs(mcp: Mcp, arguments: tuple[str, str]) -> None:
    assert (await mcp("adopt", "shop", *arguments)).status == 2


async def test_what_is_defined_is_not_adopted(mcp: Mcp) -> None:
    await applied(mcp, "hello")
    ran = await mcp("adopt", "hello")
    assert (ran.status, ran.stderr) == (5, 'mcp: service "hello" is defined: mcp status hello shows what it lacks\n')
