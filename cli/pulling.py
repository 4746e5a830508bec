"""What `mcp pull` does, once its options are read."""

import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import click

from api.errors import ExitCode, Refused
from api.files import FoundFile
from cli.connect import connected
from cli.options import Settings
from cli.output import Output
from cli.reports import PulledFile


async def pull(settings: Settings, service: str, path: str, file: str | None) -> int:
    """Brings the file here."""
    output = Output(settings)
    async with connected(settings, service) as client:
        found, pieces = await client.files.pull(service, path)
        if file == "-":
            async for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return ExitCode.DONE
        target = _target(path, file)
        await _write(target, found, pieces)
    output.line(f"{target}: {found.size} bytes of {service}, {path}")
    output.document(PulledFile(service=service, path=path, file=str(target), found=found))
    return ExitCode.DONE


def _target(path: str, file: str | None) -> Path:
    target = Path(file or ".")
    return target / Path(path).name if target.is_dir() else target


async def _write(target: Path, found: FoundFile, pieces: AsyncIterator[bytes]) -> None:
    """Raises Refused where it cannot be written, or is not whole: then what was there stays."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.")
    except OSError as error:
        raise click.UsageError(f"{target} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as written:
            async for piece in pieces:
                written.write(piece)
            size = written.tell()
            os.fchmod(descriptor, found.mode)
        if size < found.size:
            raise Refused(f"only {size} of {found.size} bytes came: somebody cut it meanwhile; pull it again")
        os.replace(temporary, target)  # noqa: PTH105  # as the rest here speaks
    except OSError as error:
        raise Refused(f"{target} cannot be written: {error.strerror}") from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108
