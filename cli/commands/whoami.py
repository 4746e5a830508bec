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
    """Show whom the agents take you for, and what you may do there."""
    from cli.connect import ask, failures
    from cli.output import Output
    from cli.reports.access import NodeIdentity, WhoamiReport

    output = Output(settings)
    answers = await ask(settings, lambda client: client.access.whoami())
    found = tuple(NodeIdentity(node=one.node, **dict(one.value)) for one in answers if one.value is not None)
    for me in found:
        until = f", until {me.expires_at:%Y-%m-%d %H:%M} UTC" if me.expires_at else ""
        where = f"{me.node}: " if len(answers) > 1 else ""
        output.line(f"{where}{me.name} ({me.role}, by {me.how}{until})")
    unasked, status = failures(output, answers)
    output.document(WhoamiReport(identities=found, unasked=unasked))
    return status
