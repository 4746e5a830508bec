"""Logging in, tokens and the audit, as programs against a real door over TLS and a stand-in for MCIAS over HTTPS."""

import asyncio
import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from api.access import Role
from stack.mcias import Account, Mcias
from tests.unit.cli.plane import Mcp, Plane
from tests.unit.controller.auth.served import Served, client_certificate, serving


@pytest.fixture
def mcias(folder: Path) -> Iterator[Mcias]:
    accounts = {
        "ann": Account("correct horse", ("admin",)),
        "bob": Account("battery", ("user",), totp_code="123456"),
        "eve": Account("x", ("guest",)),
        "out": Account("x", denied=True),
    }
    with Mcias(folder / "mcias", accounts).serving() as running:
        yield running


@dataclass
class World:
    """All three."""

    mcp: Mcp
    served: Served
    mcias: Mcias

    @property
    def token_file(self) -> Path:
        return self.mcp.folder / ".config" / "mcp" / "token"


@pytest.fixture
async def world(folder: Path, mcias: Mcias) -> AsyncIterator[World]:
    async with serving(folder, mcias={"url": mcias.url, "ca_file": str(mcias.ca_file), "cache_seconds": 0.2}) as served:
        mcp = Mcp(folder, Plane())
        mcp.config.write_text(f"""\
mcias_url = "{mcias.url}"
mcias_ca_file = "{mcias.ca_file}"
[nodes.rift]
address = "{served.address}"
ca_file = "{served.ca_file}"
""")
        yield World(mcp, served, mcias)


async def test_without_a_login_it_is_said_what_to_do(world: World) -> None:
    ran = await world.mcp("status")
    assert (ran.status, ran.stderr) == (5, "mcp: who are you? Log in with mcp login, or ask for a token\n")
    assert (await world.mcp("node", "list")).status == 5


async def test_what_is_no_token_is_said_of_its_file(world: World) -> None:
    world.token_file.parent.mkdir(parents=True, exist_ok=True)
    world.token_file.write_text("no token\nat all\n")
    ran = await world.mcp("status")
    assert (ran.status, ran.stderr) == (
        5,
        f"mcp: what is in {world.token_file} is no token: log in again with mcp login\n",
    )


async def test_without_a_terminal_no_password_is_asked_for(world: World) -> None:
    ran = await world.mcp("login", "--user", "ann", stdin="correct horse\n")
    assert (ran.status, ran.stdout) == (5, "")
    assert ran.stderr.startswith("mcp: there is no terminal on which to ask for the password: --password-stdin reads")


async def test_a_node_with_another_ca_is_a_sentence(world: World) -> None:
    stranger, _ = client_certificate(world.mcp.folder / "stranger", "x")
    settings = world.mcp.config.read_text()
    world.mcp.config.write_text(settings.replace(str(world.served.ca_file), str(stranger)))
    for command in ("list", "whoami"):
        ran = await world.mcp(command)
        assert (ran.status, ran.stdout, len(ran.stderr.splitlines())) == (4, "", 1)
        assert "shows a certificate that the CA given for it did not sign" in ran.stderr
        assert ran.stderr.endswith("(self signed certificate in certificate chain)\n")
    assert "copy <state_dir>/ca/ca.pem of the node" in (await world.mcp("doctor")).stdout


async def test_a_login_keeps_a_token_for_its_owner_alone_and_a_logout_ends_it(world: World) -> None:
    ran = await world.mcp("login", "--user", "ann", "--password-stdin", stdin="correct horse\n")
    assert (ran.status, ran.stderr) == (0, "")
    assert ran.stdout.startswith("logged in as ann (admin) until 20")
    assert stat.S_IMODE(world.token_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(world.token_file.parent.stat().st_mode) == 0o700
    token = world.token_file.read_text().strip()
    assert token in world.mcias.tokens
    assert token not in ran.stdout
    me = await world.mcp("whoami")
    assert me.stdout.startswith("ann (admin, by mcias, until 20")
    assert (await world.mcp("status", "-o", "json")).status == 0
    out = await world.mcp("logout")
    assert (out.status, out.stderr) == (0, "")
    assert not world.token_file.exists()
    assert token not in world.mcias.tokens
    assert (await world.mcp("logout")).stdout.startswith("nobody is logged in")


def _on_a_terminal(mcp: Mcp, text: bytes, *arguments: str) -> tuple[bytes, int]:
    """All that a terminal shows, on which `text` is typed once a password is asked for, and the exit status."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", *arguments],
        env=mcp.environment | {"PYTHONPATH": str(Path.cwd())},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    seen, typed = b"", False
    with suppress(OSError):  # how a terminal says that nobody is left on the other side
        while more := os.read(ours, 1024):
            seen += more
            if not typed and b"Password" in seen:
                os.write(ours, text)
                typed = True
    os.close(ours)
    return seen, process.wait(10)


async def test_an_mcias_that_cannot_be_asked_is_refused_before_a_password_is_asked_for(world: World) -> None:
    arguments = ("login", "--user", "ann", "--mcias", "http://mcias")
    seen, status = await asyncio.to_thread(_on_a_terminal, world.mcp, b"correct horse\n", *arguments)
    assert (status, b"Password" in seen, b"http://mcias is not an https:// URL" in seen) == (5, False, True)


async def test_a_password_is_asked_for_and_never_shown(world: World) -> None:
    seen, status = await asyncio.to_thread(_on_a_terminal, world.mcp, b"correct horse\n", "login", "--user", "ann")
    assert status == 0
    assert b"correct horse" not in seen
    assert b"logged in as ann" in seen


@pytest.mark.parametrize(
    ("arguments", "password", "status", "sentence"),
    [
        (["--user", "ann"], "wrong", 5, "knows no such user and password"),
        (["--user", "bob"], "battery", 5, "give it with --totp"),
        (["--user", "out"], "x", 5, "does not let out log in to mcp"),
        (["--user", "ann", "--mcias", "https://localhost:1"], "x", 4, "does not answer"),
        (["--user", "ann", "--mcias", "http://localhost:1"], "x", 5, "is not an https:// URL"),
    ],
)
async def test_a_login_that_fails_keeps_nothing_and_says_why(
    world: World, arguments: list[str], password: str, status: int, sentence: str
) -> None:
    ran = await world.mcp("login", *arguments, "--password-stdin", stdin=f"{password}\n")
    assert (ran.status, ran.stdout) == (status, "")
    assert sentence in ran.stderr
    assert password not in ran.stderr or password == "x"
    assert not world.token_file.exists()


async def test_a_token_that_the_agent_refuses_is_not_kept_and_mcias_is_told(world: World) -> None:
    ran = await world.mcp("login", "--user", "eve", "--password-stdin", stdin="x\n")
    assert (ran.status, ran.stdout) == (5, "")
    assert "lets nobody in with this token, which is not kept: eve has no role here" in ran.stderr
    assert not world.token_file.exists()
    assert not world.mcias.tokens


async def test_a_login_that_fails_leaves_the_token_that_was_there(world: World) -> None:
    secret = await world.served.token("ci", Role.VIEWER)
    assert (await world.mcp("login", "--token-file", "-", stdin=secret)).status == 0
    ran = await world.mcp("login", "--token-file", "-", stdin="mcp_nobodys")
    assert (ran.status, "which is not kept: the token is nobody's here" in ran.stderr) == (5, True)
    assert world.token_file.read_text() == f"{secret}\n"


async def test_a_token_is_kept_though_the_agent_cannot_be_asked_and_that_is_said(world: World) -> None:
    text = world.mcp.config.read_text()
    world.mcp.config.write_text(text.replace(world.served.address, "localhost:1"))
    ran = await world.mcp("login", "--user", "ann", "--password-stdin", "-o", "json", stdin="correct horse\n")
    assert ran.status == 0
    assert "mcp: whether localhost:1 lets you in is not known, as it could not be asked" in ran.stderr
    report = json.loads(ran.stdout)
    assert (report["user"], "localhost:1" in report["unchecked"]) == ("ann", True)
    assert world.token_file.exists()


async def test_a_socket_wants_no_token_and_is_not_asked(world: World) -> None:
    address = f"unix://{world.served.folder}/agent.sock"
    ran = await world.mcp("login", "--address", address, "--token-file", "-", stdin="of another node")
    assert ran.status == 5
    ran = await world.mcp("login", "--address", address, "--token-file", "-", stdin="another-nodes")
    assert (ran.status, ran.stderr, ran.stdout) == (0, "", f"the token is in {world.token_file}\n")


async def test_a_token_of_the_agents_own_is_taken_over_without_its_white_space(world: World) -> None:
    secret = await world.served.token("ci", Role.VIEWER)
    world.mcp.write("given", f"\n  {secret}\r\n\n")
    assert (await world.mcp("login", "--token-file", "given")).status == 0
    assert world.token_file.read_text() == f"{secret}\n"
    assert (await world.mcp("whoami")).stdout == "ci (viewer, by token)\n"
    assert (await world.mcp("login", "--token-file", "-", stdin="two words")).status == 5
    assert (await world.mcp("login", "--token-file", "-", stdin=" \n")).status == 5
    assert (await world.mcp("whoami", "-o", "json", MCP_TOKEN_FILE=str(world.mcp.folder / "given"))).status == 0


async def test_tokens_are_made_listed_and_revoked(world: World) -> None:
    world.mcp.write("given", await world.served.token("root"))
    await world.mcp("login", "--token-file", "given")
    made = await world.mcp("token", "create", "ci", "--role", "operator", "--expires", "90d")
    assert (made.status, len(made.lines)) == (0, 1)
    assert "not shown again" in made.stderr
    assert made.stdout.startswith("mcp_")
    quiet = await world.mcp("token", "create", "other", "-q")
    assert (len(quiet.lines), quiet.stderr) == (1, "")
    shown = await world.mcp("token", "list")
    assert [line.split()[:4] for line in shown.lines[1:]] == [
        ["ci", "operator", "holds", "in"],
        ["other", "viewer", "holds", "-"],
        ["root", "admin", "holds", "-"],
    ]
    assert (await world.mcp("token", "revoke", "ci")).stdout == 'token "ci" is revoked\n'
    report = json.loads((await world.mcp("token", "list", "-o", "json")).stdout)
    assert [token["revoked_at"] is None for token in report["tokens"]] == [False, True, True]
    assert (await world.mcp("token", "create", "root")).status == 5
    wrong = await world.mcp("token", "create", "Not Good")
    assert (wrong.status, "must be lower case letters" in wrong.stderr) == (2, True)


async def test_the_audit_says_who_did_what_and_who_was_refused(world: World) -> None:
    world.mcp.write("root", await world.served.token("root"))
    await world.mcp("token", "create", "ci", MCP_TOKEN_FILE=str(world.mcp.folder / "root"))
    assert (await world.mcp("token", "list")).status == 5
    environment = {"MCP_TOKEN_FILE": str(world.mcp.folder / "root")}
    shown = await world.mcp("audit", **environment)
    hint = "Log in with mcp login, or ask for a token"
    assert [line.split()[1:] for line in shown.lines] == [
        ["ACTOR", "FROM", "CALL", "SERVICE", "GENERATION", "OUTCOME", "DETAIL"],
        ["root", "(admin)", "127.0.0.1", "CreateToken", "-", "-", "OK", "token", "ci"],
        [
            "nobody",
            "known",
            "127.0.0.1",
            "ListTokens",
            "-",
            "-",
            "UNAUTHENTICATED",
            "who",
            "are",
            "you?",
            *hint.split(),
        ],
    ]
    report = json.loads((await world.mcp("audit", "--refused", "-o", "json", **environment)).stdout)
    assert [record["outcome"] for record in report["records"]] == ["UNAUTHENTICATED"]
    assert (await world.mcp("audit", "nothing", **environment)).stdout == "nothing was written or refused\n"


async def test_nothing_secret_is_an_argument_or_printed(world: World) -> None:
    assert "--password " not in (await world.mcp("login", "--help")).stdout
