"""`mcp whoami`: whom the agent takes the caller for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("whoami")
@options.command
async def cli(settings: Settings) -> int:
    """Show whom the agent takes you for, and what you may do there."""
    from cli.connect import connected
    from cli.output import Output

    output = Output(settings)
    async with connected(settings) as client:
        me = await client.access.whoami()
    until = f", until {me.expires_at:%Y-%m-%d %H:%M} UTC" if me.expires_at else ""
    output.line(f"{me.name} ({me.role}, by {me.how}{until})")
    output.document(me)
    return 0
