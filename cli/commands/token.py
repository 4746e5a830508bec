"""`mcp token`: tokens of an agent's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


@click.group("token")
def cli() -> None:
    """Make, list and revoke the tokens that a node's agent lets in.

    The agent keeps only a hash of each. What a role may do: a viewer reads, an
    operator does all but tokens and nodes, an admin does all.
    """


@cli.command("create")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["viewer", "operator", "admin"]),
    default="viewer",
    show_default=True,
    help="What its owner may do.",
)
@click.option(
    "--expires", type=options.Duration(), metavar="DURATION", help="Holds so long: 12h, 90d. Default: for ever."
)
@options.command
async def create(settings: Settings, name: str, role: str, expires: float | None) -> int:
    """Make a token and print it; nobody can print it again.

    `mcp token create ci --role operator -q` prints nothing else.
    """
    from datetime import UTC, datetime, timedelta

    from pydantic import ValidationError

    from api.access import Role, TokenRequest
    from api.complaints import complaints
    from cli.connect import connected
    from cli.output import Output
    from cli.reports.access import MadeTokenReport

    expires_at = None if expires is None else datetime.now(UTC) + timedelta(seconds=expires)
    try:
        request = TokenRequest(name=name, role=Role(role), expires_at=expires_at)
    except ValidationError as error:
        raise click.BadParameter(complaints(error)[0].message, param_hint="NAME") from error
    output = Output(settings)
    async with connected(settings) as client:
        made = await client.access.create_token(request)
    if output.json:
        output.document(MadeTokenReport(token=made.token, secret=made.secret))
        return 0
    click.echo(made.secret)
    if not output.quiet:
        click.echo(f'This is the token "{name}" ({role}); it is not kept anywhere, and not shown again.', err=True)
    return 0


@cli.command("list")
@options.command
async def show(settings: Settings) -> int:
    """List the tokens of all nodes, those that hold no more too."""
    from datetime import UTC, datetime

    from cli.access_views import tokens_table
    from cli.connect import ask, failures
    from cli.output import Output
    from cli.reports.access import NodeToken, TokensReport
    from cli.views import located

    output = Output(settings)
    answers = await ask(settings, lambda client: client.access.tokens())
    tokens = tuple(NodeToken(node=one.node, **dict(token)) for one in answers for token in one.value or ())
    if tokens:
        table = tokens_table(tokens, datetime.now(UTC))
        output.table(located(table, (token.node for token in tokens)) if len(answers) > 1 else table)
    else:
        output.line("no tokens")
    unasked, status = failures(output, answers)
    output.document(TokensReport(tokens=tokens, unasked=unasked))
    return status


@cli.command("revoke")
@click.argument("name")
@options.command
async def revoke(settings: Settings, name: str) -> int:
    """End a token at once: calls that go on with it end within seconds."""
    from cli.config import Nodes
    from cli.connect import connected
    from cli.output import Output
    from cli.reports.access import NodeToken, TokensReport

    output = Output(settings)
    async with connected(settings) as client:
        token = await client.access.revoke_token(name)
    output.line(f'token "{name}" is revoked')
    output.document(TokensReport(tokens=(NodeToken(node=Nodes(settings).name(), **dict(token)),)))
    return 0
