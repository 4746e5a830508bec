"""`mcp logout`: forget the token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings
    from cli.output import Output


@click.command("logout")
@options.command
async def cli(settings: Settings) -> int:
    """Remove the token that `mcp login` kept, and tell MCIAS that it ends.

    A token that an agent made goes on holding until `mcp token revoke`.
    """
    from cli.config import Nodes
    from cli.credentials import drop_token, read_token, token_path
    from cli.output import Output
    from cli.reports.access import LogoutReport

    output = Output(settings)
    nodes = Nodes(settings)
    path = token_path(nodes.choose())
    token = read_token(path)
    drop_token(path)
    url, ca_file = nodes.mcias
    if token and url and not token.startswith("mcp_"):
        await _log_out(output, url, ca_file or "", token)
    output.line(f"{path} is removed" if token else f"nobody is logged in: there is no token in {path}")
    output.document(LogoutReport(token_file=str(path), removed=token is not None))
    return 0


async def _log_out(output: Output, url: str, ca_file: str, token: str) -> None:
    import asyncio

    from api.errors import Unreachable
    from api.https import Server
    from api.mcias import Mcias

    try:
        await asyncio.to_thread(Mcias(Server(url, ca_file)).logout, token)
    except Unreachable as error:
        output.error(f"mcp: the token is removed here, but MCIAS could not be told that it ends: {error.message}")
