"""The `mcp` command: finds the subcommand, and turns whatever it raises into a sentence and an exit status.

Heavy imports stay inside the commands that use them, so that help is instant.
"""

import atexit
import gc
import importlib
import os
import sys
from typing import NoReturn

import click

from cli.options import INTERRUPTED, SERVICE

_COMMANDS = {
    "adopt": "Take over containers that run without a definition.",
    "apply": "Make services be as their definitions say.",
    "audit": "Show who changed what, from where, and who was refused, on all nodes.",
    "build": "Build the images of a service and push them.",
    "certs": "List the certificates of all nodes, or of one service.",
    "completion": "Print what completes commands and services in a shell.",
    "delete": "Take services away, with all that belongs to them.",
    "deploy": "Apply a service from the services folder.",
    "diff": "Show what applying definitions would change.",
    "doctor": "Check this command's settings, and what its nodes need.",
    "events": "Show what happened, why, and who caused it, on all nodes, the newest last.",
    "export": "Print a service's definition, or files that run it without MCP.",
    "files": "List the files that were pushed to a service, and how they were before.",
    "list": "List the services that are defined, on all nodes.",
    "login": "Log in to MCIAS, or take over a token.",
    "logout": "Remove the token that was kept.",
    "logs": "Show what a service's containers wrote.",
    "node": "List, add, remove and drain the nodes of mcp.toml.",
    "ps": "List the containers of all nodes, ours or not.",
    "pull": "Bring a file from the folder of a service.",
    "purge": "Forget services that have neither a definition in the services folder nor a container.",
    "push": "Lay a file down at PATH in the folder of a service.",
    "reconcile": "Have services looked at now, and say what was found.",
    "restart": "Have the containers of a service made anew, or those of one component.",
    "resume": "Have services converged again that were suspended.",
    "routes": "List the routes of all nodes, or of one service: which name leads where.",
    "service": "Begin, edit and check definitions; look at earlier ones and go back.",
    "start": "Have a service run again, or one component of it.",
    "status": "Show services, or all about one.",
    "stop": "Keep a service stopped, or one component of it.",
    "suspend": "Leave services alone until they are resumed.",
    "sync": "Apply all definitions of the services folder, each on its node.",
    "token": "Make, list and revoke the tokens of a node.",
    "top": "Show what the running containers of all nodes use.",
    "undeploy": "Take a service away from its node, and keep its definition.",
    "unpush": "Take back what was pushed to PATH in the folder of a service.",
    "version": "Show the versions of this command and of the agents.",
    "watch": "Follow services as they change.",
    "whoami": "Show whom the agents take you for.",
}

_EPILOG = """\b
Exit status:
  0    done
  1    failed, or (diff) there are differences
  2    wrong usage
  3    timed out
  4    the agent cannot be reached
  5    refused: the definition is wrong, or not right here
  130  interrupted

MCP_DEBUG=1 shows the details of an unexpected error."""

_FAILED = 1
_UNCOLLECTED = 100_000
"""Objects; Python's own threshold of 700 costs an eighth of the time in which a thousand services are shown."""


class LazyGroup(click.Group):
    """Imports a command's module when the command is called, and not before."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """All commands, in alphabetic order."""
        return sorted(_COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, from the module of that name."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"cli.commands.{cmd_name}").cli
        for one in (command, *getattr(command, "commands", {}).values()):
            for parameter in one.params:
                if parameter.name in ("service", "services") and isinstance(parameter, click.Argument):
                    parameter.type = SERVICE
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is meant; for one that is misspelt, its error says which."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            meant = "".join(f" Did you mean {name}?" for name in get_close_matches(args[0], _COMMANDS, n=1))
            raise click.UsageError(f"{error.message}{meant}", ctx) from error

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(_COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
def cli() -> None:
    """Control the services of a handful of podman hosts.

    You say what should be; MCP makes it so and keeps it so.
    """


def main() -> NoReturn:
    """Runs the command line and exits."""
    # Most commands end before there is anything worth collecting; those that go on are collected all the same.
    gc.set_threshold(_UNCOLLECTED)
    # There are none, and looking for them among all that is installed takes as long as loading gRPC.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    _open_what_is_closed()
    _leave(run(sys.argv[1:]))


def _open_what_is_closed() -> None:
    """Puts something in the place of streams that the caller closed: writing to what cannot be written is an error."""
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _leave(status: int) -> NoReturn:
    """Ends as Python does, without taking itself apart: that would be a seventh of the time of a long list."""
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads it has enough
        pass
    except OSError as error:
        status = status or _report(error)
    sys.stderr.flush()
    os._exit(status)


def run(arguments: list[str]) -> int:
    """Runs one command and gives its exit status; no traceback gets out unless MCP_DEBUG is set."""
    try:
        status = cli.main(arguments, prog_name="mcp", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:  # the last resort: a person gets a sentence, whatever happened
        return _report(error)
    return int(status or 0)


def _report(error: Exception) -> int:
    from api.errors import McpError
    from api.manifest import InvalidManifest

    if os.environ.get("MCP_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, InvalidManifest):
        click.echo(str(error), err=True)
        return int(error.exit_code)
    if isinstance(error, McpError):
        click.echo(f"mcp: {error.message}", err=True)
        return int(error.exit_code)
    if isinstance(error, OSError):
        click.echo(f"mcp: {error.filename or 'what is printed'}: {error.strerror}", err=True)
        return _FAILED
    click.echo(
        f"mcp: this is a defect of mcp itself ({type(error).__name__}: {error}); MCP_DEBUG=1 shows the details",
        err=True,
    )
    return _FAILED


if __name__ == "__main__":
    main()
