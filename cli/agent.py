"""The entry point of the agent: the one place on the command line that knows the controller."""

import os
import sys
import threading
import traceback
from pathlib import Path

import click

# gRPC reads it as it is loaded, and this is all that makes it refuse TLS 1.2: a cipher of 1.2 that no ECDSA key can
# use, and the agent's key is one. What TLS 1.3 uses is not named here.
os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-RSA-AES256-GCM-SHA384"

# What it says of an address that cannot be had, the agent says itself.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from api.errors import ExitCode, McpError

DEFAULT_CONFIG = "/etc/mcp/mcp-agent.toml"

_PATIENCE = 0.5
"""Seconds that a thread has to end once all else has."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Converge this node's containers, ports, certificates and routes toward their definitions."""


_config = click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=DEFAULT_CONFIG,
    show_default=True,
    envvar="MCP_AGENT_CONFIG",
    help="The agent's settings.",
)


@cli.command()
@_config
def serve(config: Path) -> None:
    """Run until told to stop (SIGTERM or SIGINT)."""
    from controller.app import serve as run
    from controller.settings import load

    run(load(config, os.environ))


@cli.command("check-config")
@_config
def check_config(config: Path) -> None:
    """Say whether the settings can be used, without starting anything.

    What they name and does not answer is a warning: it may be started later.
    """
    import asyncio

    from controller import certificate
    from controller.auth import door
    from controller.outside import unreachable
    from controller.settings import load

    settings = load(config, os.environ)
    door.check(settings)
    certificate.check(settings)
    for warning in asyncio.run(unreachable(settings)):
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{config}: ok (node {settings.node})")


@cli.group()
def token() -> None:
    """Let the first one in."""


@token.command()
@_config
@click.option("--name", default="bootstrap", show_default=True, help="What to call it, in `mcp token list`.")
def bootstrap(config: Path, name: str) -> None:
    """Make a token for an administrator and print it, whether the agent runs or not.

    It does not expire: make tokens of your own with it (mcp token create), and
    then revoke it.
    """
    import asyncio

    from cli.connect import actor
    from controller.auth.bootstrap import bootstrap as make
    from controller.settings import load

    click.echo(asyncio.run(make(load(config, os.environ), name, actor())))


@cli.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    click.echo(f"mcp-agent {installed('metacircular-mcp')}")


@cli.command()
@_config
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Put it there, and remove no older one; default: the settings' [snapshot] folder.",
)
def snapshot(config: Path, folder: Path | None) -> None:
    """Keep all that nobody could tell the agent again, in one file, while it runs.

    That is the registry, the CA with its key, and accounts with other CAs.
    """
    from controller.recovery.snapshot import take
    from controller.settings import load

    taken = take(load(config, os.environ), folder)
    click.echo(
        f"{taken.file}: {_counted(taken.manifest.services, 'service')} of node {taken.manifest.node},"
        f" schema {taken.manifest.schema_revision}, {taken.file.stat().st_size} bytes"
    )
    for old in taken.removed:
        click.echo(f"{old} removed")


@cli.command()
@_config
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--node", metavar="NAME", help="The node of the snapshot, where it is another one than this agent's.")
@click.option("--force", is_flag=True, help="Also where there is a registry already, which is then kept aside.")
@click.option("--dry-run", is_flag=True, help="Verify the snapshot, and say what would be replaced.")
def restore(config: Path, file: Path, node: str | None, force: bool, dry_run: bool) -> None:
    """Put a snapshot in the place of what the agent keeps, which must not run.

    It is verified first. All services are then suspended: once the agent is
    started, `mcp status` says what it would do, and `mcp resume --all` lets it.
    """
    from controller.recovery.restore import Wish
    from controller.recovery.restore import restore as run
    from controller.settings import load

    restored = run(load(config, os.environ), file, Wish(node, force, dry_run))
    manifest = restored.manifest
    as_of = f"as of {manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC"
    what = f"{_counted(restored.services, 'service')} of node {manifest.node}, {as_of}"
    if dry_run:
        click.echo(f"{file} is whole: {what}, written by MCP {manifest.version}")
        for one in restored.there:
            click.echo(f"{one} would be replaced, and kept aside")
        return
    click.echo(f"restored: {what}")
    if restored.aside:
        click.echo(f"what was there is kept in {restored.aside}")
    click.echo("all services are suspended: start the agent, look at mcp status, then: mcp resume --all")


@cli.command()
@_config
def migrate(config: Path) -> None:
    """Bring the registry to this version's schema without serving it; `serve` does it, too."""
    import asyncio

    from controller.recovery.upgrade import migrate as run
    from controller.settings import load

    done = asyncio.run(run(load(config, os.environ)))
    was = "did not exist" if done.before is None else f"was at {done.before}"
    click.echo(f"the registry is at schema {done.after}" + ("" if done.before == done.after else f"; it {was}"))


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def main() -> None:
    """Runs the command, and ends the process whatever still hangs in it."""
    code = _run()
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.main_thread():
            thread.join(_PATIENCE)
            if thread.is_alive():
                # Python would wait until the engine answers it, which may take minutes.
                sys.stderr.flush()
                os._exit(code)
    sys.exit(code)


def _run() -> int:
    """The command's exit code; an error that is meant for a person is one sentence."""
    try:
        cli(standalone_mode=True)
    except McpError as error:
        click.echo(f"mcp-agent: {error.message}", err=True)
        return int(error.exit_code)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:  # a defect ends the agent, for whoever started it to start it again
        traceback.print_exc()
        return int(ExitCode.FAILED)
    return int(ExitCode.DONE)
