"""A day at the door of a whole agent: the first token, logins at MCIAS, and an account that is closed."""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.client import Client
from api.errors import Unauthenticated
from stack.mcias import Account, Mcias
from stack.web import free_port
from tests.unit.controller.registry.samples import spec
from tests.unit.controller.test_app import Program

pytestmark = pytest.mark.system


@pytest.fixture
def mcias() -> Iterator[Mcias]:
    with tempfile.TemporaryDirectory(prefix="mcp-i") as folder:
        accounts = {"ann": Account("correct horse", ("admin",)), "bob": Account("battery staple")}
        with Mcias(Path(folder), accounts).serving() as running:
            yield running


@pytest.fixture
def program(mcias: Mcias) -> Iterator[Program]:
    with tempfile.TemporaryDirectory(prefix="mcp-x") as folder:
        made = Program(Path(folder))
        made.environ |= {
            "MCP_API_LISTEN": f"127.0.0.1:{free_port()}",
            "MCP_MCIAS_URL": mcias.url,
            "MCP_MCIAS_CA_FILE": str(mcias.ca_file),
            "MCP_MCIAS_CACHE_SECONDS": "0.5",
            "MCP_AUTH_RECHECK_SECONDS": "0.2",
        }
        (made.folder / "mcp.toml").write_text(f"""\
mcias_url = "{mcias.url}"
mcias_ca_file = "{mcias.ca_file}"
[nodes.rift]
address = "{made.environ["MCP_API_LISTEN"].replace("127.0.0.1", "localhost")}"
ca_file = "state/ca/ca.pem"
""")
        yield made
        if made.running is not None and made.running.poll() is None:
            made.running.kill()
            made.running.communicate()


def mcp(program: Program, home: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the command as somebody with a home of their own."""
    environment = {"MCP_CONFIG": str(program.folder / "mcp.toml"), "HOME": str(program.folder / home)}
    command = [Path(sys.executable).parent / "mcp", *arguments]
    return subprocess.run(
        command, env=os.environ | environment, input=stdin, capture_output=True, text=True, timeout=30, check=False
    )


async def test_people_come_in_are_known_by_their_names_and_are_out_once_their_account_is_closed(
    program: Program, mcias: Mcias
) -> None:
    first = program.run("token", "bootstrap").stdout
    program.start()
    assert mcp(program, "root", "login", "--token-file", "-", stdin=first).returncode == 0
    assert mcp(program, "root", "whoami").stdout == "bootstrap (admin, by token)\n"
    for name, password in (("ann", "correct horse"), ("bob", "battery staple")):
        assert mcp(program, name, "login", "--user", name, "--password-stdin", stdin=password).returncode == 0
    assert mcp(program, "bob", "token", "list").returncode == 5
    assert mcp(program, "ann", "token", "revoke", "bootstrap").returncode == 0
    assert mcp(program, "root", "whoami").returncode == 5

    token = (program.folder / "bob" / ".config" / "mcp" / "token").read_text().strip()
    address, ca_file = program.environ["MCP_API_LISTEN"].replace("127.0.0.1", "localhost"), f"{program.folder}/state/ca"
    async with Client(address, actor="ann", ca_file=f"{ca_file}/ca.pem", token=token) as bob:
        await bob.apply(spec())
        assert {event.actor for event in await bob.events("hello") if event.kind == "created"} == {"bob"}
        stream = bob.watch()
        await anext(stream)
        del mcias.accounts["bob"]
        with pytest.raises(Unauthenticated, match="does not hold any more"):
            await asyncio.wait_for(_to_its_end(stream), 10)

    told = mcp(program, "ann", "audit").stdout
    (line,) = (line for line in told.splitlines() if "ApplyService" in line)
    assert line.split()[1:4] == ["bob", "(operator)", "127.0.0.1"]
    code, said = program.stop()
    assert (code, "Traceback" in said) == (0, False)
    kept = b"".join(file.read_bytes() for file in (program.folder / "state").glob("registry.db*"))
    for secret in ("correct horse", "battery staple", token, first.strip()):
        assert secret not in told + said
        assert secret.encode() not in kept


async def _to_its_end(stream: object) -> None:
    async for _ in stream:  # type: ignore[attr-defined]
        pass
