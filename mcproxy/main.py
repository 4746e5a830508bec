"""The command line of mcproxyd."""

import asyncio
import logging
import sqlite3
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
import grpc
import structlog

from mcproxy import settings as settings_file
from mcproxy import store
from mcproxy.client import read_status
from mcproxy.server import StartError, serve
from mcproxy.settings import Settings, SettingsError

_CONFIG = click.option(
    "-c",
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The TOML configuration file.",
)


@click.group()
@click.version_option(package_name="metacircular-mcp")
def main() -> None:
    """mc-proxy's admin API over HAProxy: TLS passthrough and termination by hostname."""


@main.command()
@_CONFIG
@click.option("-v", "--verbose", is_flag=True, help="Log what HAProxy says, too.")
def server(config: Path, verbose: bool) -> None:
    """Serve until SIGTERM, then let connections finish."""
    settings = _load(config)
    _log_to_stderr(logging.DEBUG if verbose else logging.INFO)
    try:
        asyncio.run(serve(settings))
    except StartError as error:
        raise click.ClickException(str(error)) from error


@main.command()
@_CONFIG
def status(config: Path) -> None:
    """Print version, uptime and connections of the running proxy."""
    settings = _load(config)
    try:
        click.echo(read_status(settings.admin.socket))
    except grpc.RpcError as error:
        raise click.ClickException(f"{settings.admin.socket}: {error.details()}") from error


@main.command()
@_CONFIG
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: backups/ beside the database.")
def snapshot(config: Path, output: Path | None) -> None:
    """Copy the database, consistent even while the proxy runs; prints the copy's path."""
    database = _load(config).database.path
    target = output or database.parent / "backups" / f"{database.stem}-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.db"
    try:
        store.snapshot(database, target)
    except (OSError, sqlite3.Error) as error:
        raise click.ClickException(f"no snapshot of {database}: {error}") from error
    click.echo(target)


@main.command()
@_CONFIG
def check(config: Path) -> None:
    """Say whether the configuration file can be used."""
    _load(config)
    click.echo(f"{config}: good")


def _load(path: Path) -> Settings:
    try:
        return settings_file.load(path)
    except SettingsError as error:
        raise click.ClickException(str(error)) from error


def _log_to_stderr(level: int) -> None:
    renderer = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


if __name__ == "__main__":
    main()
