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
    """Show who changed what, from where, and who was refused, on all nodes, the newest last.

    Each agent keeps it as long as its settings say ([audit]), and logs each
    line as well.
    """
    from api.access import AuditQuery
    from cli.access_views import audit_table
    from cli.connect import ask, failures
    from cli.output import Output
    from cli.reports.access import AuditReport, NodeRecord
    from cli.views import located

    output = Output(settings)
    query = AuditQuery(service=service, actor=actor, refused=refused, limit=lines)
    answers = await ask(settings, lambda client: client.access.audit(query))
    found = (NodeRecord(node=one.node, **dict(record)) for one in answers for record in one.value or ())
    records = tuple(sorted(found, key=lambda record: (record.at, record.id))[-lines:])
    if records:
        table = audit_table(records)
        output.table(located(table, (record.node for record in records)) if len(answers) > 1 else table)
    else:
        output.line("nothing was written or refused")
    unasked, status = failures(output, answers)
    output.document(AuditReport(records=records, unasked=unasked))
    return status
