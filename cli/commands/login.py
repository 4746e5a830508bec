"""`mcp login`: get a token, and keep it."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime
    from pathlib import Path

    from api.mcias import Mcias
    from cli.config import Node
    from cli.options import Settings


@click.command("login")
@click.option("--user", metavar="NAME", help="Your name at MCIAS. Default: asked for.")
@click.option("--mcias", "url", metavar="URL", help="The MCIAS to log in to. Default: mcp.toml's mcias_url.")
@click.option("--mcias-ca-file", "ca_file", metavar="FILE", help="The CA that signed its certificate.")
@click.option("--totp", is_flag=True, help="Ask for a code of your second factor as well.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input's first line.")
@click.option(
    "--token-file",
    "source",
    metavar="FILE|-",
    help="Take over the token in this file (- for standard input), such as one of mcp token create.",
)
@options.command
async def cli(
    settings: Settings,
    user: str | None,
    url: str | None,
    ca_file: str | None,
    totp: bool,
    password_stdin: bool,
    source: str | None,
) -> int:
    """Log in to MCIAS, or take over a token, for the commands that come after.

    The password is asked for without being shown, and is never an argument. The
    token is kept in a file that only you may read, once the node's agent said
    that it lets you in, or could not be asked; `mcp logout` removes it.
    """
    from api.errors import Refused
    from cli.config import Nodes
    from cli.credentials import token_path

    nodes = Nodes(settings)
    node = nodes.choose()
    path = token_path(node)
    if source is not None:
        return await _keep(settings, node, path, _given(source), "", None)
    known_url, known_ca = nodes.mcias
    if not (url or known_url):
        raise Refused("there is no MCIAS to log in to: name it with --mcias, or give a token with --token-file")
    mcias = _mcias(url or known_url or "", ca_file or known_ca or "")
    user = user or click.prompt("Name", err=True)
    password = _password(password_stdin)
    code = _hidden("Code") if totp else ""
    async with _logged_in(mcias, user, password, code) as (token, until):
        return await _keep(settings, node, path, token, user, until)


async def _keep(settings: Settings, node: Node, path: Path, token: str, user: str, expires_at: datetime | None) -> int:
    from cli.credentials import keep_token
    from cli.logins import tried
    from cli.output import Output
    from cli.reports.access import LoginReport

    found = await tried(node, token)
    keep_token(path, token)
    output = Output(settings)
    role = f" ({found.me.role})" if found.me else ""
    user = found.me.name if found.me else user
    expires_at = expires_at or (found.me.expires_at if found.me else None)
    until = f" until {expires_at:%Y-%m-%d %H:%M} UTC" if expires_at else ""
    output.line(f"logged in as {user}{role}{until}; the token is in {path}" if user else f"the token is in {path}")
    if found.doubt:
        output.error(f"mcp: whether {node.address} lets you in is not known, as it could not be asked: {found.doubt}")
    output.document(LoginReport(user=user, token_file=str(path), expires_at=expires_at, unchecked=found.doubt))
    return 0


def _password(from_stdin: bool) -> str:
    import sys

    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return _hidden("Password")


def _hidden(what: str) -> str:
    import sys

    from api.errors import Refused

    # Elsewhere it would be asked for all the same, and shown.
    if not sys.stdin.isatty():
        raise Refused(
            f"there is no terminal on which to ask for the {what.lower()}: --password-stdin reads a password,"
            " --token-file takes over a token"
        )
    answer: str = click.prompt(what, hide_input=True, err=True)
    return answer


def _given(source: str) -> str:
    import sys
    from pathlib import Path

    from api.errors import Refused
    from api.metadata import bearer
    from cli.credentials import read_token

    token = sys.stdin.read().strip() if source == "-" else read_token(Path(source))
    if not token:
        raise Refused(f"there is no token in {'standard input' if source == '-' else source}")
    bearer(token)
    return token


def _mcias(url: str, ca_file: str) -> Mcias:
    """Raises Refused where it cannot be asked so: that is said before a password is asked for."""
    from api.errors import Refused
    from api.https import Server
    from api.mcias import Mcias

    if not url.startswith("https://"):
        raise Refused(f"{url} is not an https:// URL: a password goes nowhere else")
    return Mcias(Server(url, ca_file, timeout=15.0))


@asynccontextmanager
async def _logged_in(mcias: Mcias, user: str, password: str, code: str) -> AsyncIterator[tuple[str, datetime | None]]:
    """A token of MCIAS and when it ends; it is told at once of one that turns out to be of no use."""
    import asyncio

    from api.errors import McpError, Unreachable

    token, expires_at = await asyncio.to_thread(mcias.login, user, password, code)
    try:
        yield token, expires_at
    except McpError:
        with suppress(Unreachable):
            await asyncio.to_thread(mcias.logout, token)
        raise
