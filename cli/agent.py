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
    """Say whether the settings can be used, without starting anything."""
    from controller.auth.door import check
    from controller.settings import load

    settings = load(config, os.environ)
    check(settings)
    click.echo(f"{config}: ok (node {settings.node})")


@cli.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    click.echo(f"mcp-agent {installed('metacircular-mcp')}")


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
