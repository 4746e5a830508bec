"""`mcp push`: hands a file over, to be laid down in a service's folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli import options

if TYPE_CHECKING:
    from cli.options import Settings


class Mode(click.ParamType[int]):
    """Permissions in octal digits, such as 0640."""

    name = "mode"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The bits; refuses what is not three or four octal digits up to 0777."""
        if isinstance(value, int):
            return value
        digits = str(value).removeprefix("0")
        if not (0 < len(digits) <= 3 and set(digits) <= set("01234567")):
            self.fail(f'"{value}" is not permissions in octal digits, such as 0640', param, ctx)
        return int(digits, 8)


@click.command("push")
@click.argument("file", metavar="FILE|-", type=options.LOCAL)
@click.argument("service", metavar="SERVICE[/COMPONENT]")
@click.argument("path", required=False, type=options.PATH)
@click.option("--mode", type=Mode(), metavar="MODE", help="Permissions, such as 0640. Default: those of FILE.")
@click.option("--owner", metavar="UID:GID", default="", help="On the node. Default: the agent's own.")
@click.option("--managed", is_flag=True, help="Keep the file as it is pushed: what others change is corrected.")
@click.option("--restart", is_flag=True, help="Where the content is another one, make the containers anew.")
@options.wait
@options.timeout
@options.command
async def cli(
    settings: Settings,
    file: str,
    service: str,
    path: str | None,
    mode: int | None,
    owner: str,
    managed: bool,
    restart: bool,
    wait: bool,
    within: float,
) -> int:
    """Lay a file down at PATH in the folder of a service on its node, /srv/SERVICE.

    Without PATH it is called as FILE is; where PATH ends with a slash it lies
    there under that name. It is laid down once, at once and whole, and left
    alone from then on unless it is managed. The agent keeps it, with some of
    those before, so that a rollback brings files back too.
    """
    from cli.pushing import Push

    push = Push.of(file, service, path, mode=mode, owner=owner, managed=managed, restart=restart)
    return await push.run(settings, within if wait else None)
