"""`mcp audit`: who wrote, and who was refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.command("audit")
@click.argument("service", default="")
@click.option("--actor", metavar="NAME", default="", help="Only what this one did.")
@click.option("--refused", is_flag=True, help="Only what was refused, or failed.")
@click.option(
    "-n", "--lines", default=100, show_default=True, type=click.IntRange(1, 10_000), help="The newest so many."
)
@options.command
async def cli(settings: Settings, service: str, actor: str, refused: bool, lines: int) -> int:
    """Show who changed what, from where, and who was refused, the newest last.

    The agent keeps it as long as its settings say ([audit]), and logs each line
    as well.
    """
    from api.access import AuditQuery
    from cli.access_views import audit_table
    from cli.connect import connected
    from cli.output import Output
    from cli.reports import AuditReport

    output = Output(settings)
    query = AuditQuery(service=service, actor=actor, refused=refused, limit=lines)
    async with connected(settings) as client:
        records = await client.access.audit(query)
    if records:
        output.table(audit_table(records))
    else:
        output.line("nothing was written or refused")
    output.document(AuditReport(records=records))
    return 0
