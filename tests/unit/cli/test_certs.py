"""`mcp certs`, as a program in a pipe against a real socket."""

import json
import re
from datetime import UTC, datetime

from tests.unit.cli.plane import Mcp
from tests.unit.cli.test_commands import applied

MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


def rows(text: str) -> list[list[str]]:
    return [re.split(r"  +", re.sub(MOMENT, "T", line)) for line in text.splitlines()]


async def test_certificates_are_listed_with_their_dates(mcp: Mcp) -> None:
    await applied(mcp, "hello", "world")
    ran = await mcp("certs")
    assert (ran.status, ran.stderr) == (0, "")
    assert rows(ran.stdout) == [
        ["HOSTNAME", "SERVICE", "ISSUER", "ISSUED", "EXPIRES", "RENEWED"],
        ["hello.svc.mcp.metacircular.net", "hello", "MCP CA", "T", "T", "T"],
        ["world.svc.mcp.metacircular.net", "world", "MCP CA", "T", "T", "T"],
    ]


async def test_what_failed_is_said_and_when_it_is_tried_again(mcp: Mcp) -> None:
    await applied(mcp, "hello", "world")
    hello = mcp.plane.registry["hello"]
    trouble = {"error": "CA: too many", "failures": 2, "retry_at": datetime(2026, 6, 1, tzinfo=UTC), "fingerprint": ""}
    never = tuple(certificate.model_copy(update=trouble) for certificate in hello.certificates)
    mcp.plane.registry["hello"] = hello.model_copy(update={"certificates": never})
    assert rows((await mcp("certs")).stdout) == [
        ["HOSTNAME", "SERVICE", "ISSUER", "ISSUED", "EXPIRES", "RENEWED", "RETRIED", "ERROR"],
        ["hello.svc.mcp.metacircular.net", "hello", "MCP CA", "-", "-", "-", "T", "CA: too many"],
        ["world.svc.mcp.metacircular.net", "world", "MCP CA", "T", "T", "T", "-", "-"],
    ]


async def test_those_of_one_service_are_given_to_programs_too(mcp: Mcp) -> None:
    await applied(mcp, "hello", "world")
    (found,) = json.loads((await mcp("certs", "world", "-o", "json")).stdout)["certificates"]
    assert found["service"] == "world"
    assert found["certificate"] == mcp.plane.registry["world"].certificates[0].model_dump(mode="json")


async def test_a_node_without_certificates_says_so(mcp: Mcp) -> None:
    assert (await mcp("certs")).stdout == "no certificates\n"
    assert (await mcp("certs", "nobody")).status == 5
