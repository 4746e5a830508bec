"""What `mcp pull` does, once its options are read."""

import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import click

from api.errors import ExitCode, Refused
from api.files import FoundFile
from cli.connect import connected
from cli.options import Settings
from cli.output import Output
from cli.reports.files import PulledFile


async def pull(settings: Settings, service: str, path: str, file: str | None) -> int:
    """Brings the file here."""
    output = Output(settings)
    target = None if file == "-" else _target(path, file)
    async with connected(settings, service) as client:
        found, pieces = await client.files.pull(service, path)
        if target is None:
            with _told("standard output"):
                await _pour(sys.stdout.buffer, pieces, found)
            return ExitCode.DONE
        if target.exists() and not target.is_file():
            # A device or a pipe is written to: to put a file in its place is what nobody means.
            with _told(str(target)), target.open("wb") as there:
                await _pour(there, pieces, found)
        else:
            await _write(target, found, pieces)
    output.line(f"{target}: {found.size} bytes of {service}, {path}")
    output.document(PulledFile(service=service, path=path, file=str(target), found=found))
    return ExitCode.DONE


def _target(path: str, file: str | None) -> Path:
    """Where it is written: a link is left as it is, and what it leads to is replaced."""
    target = Path(file or ".")
    if file and file.endswith("/") and not target.is_dir():
        raise click.UsageError(f"{file} is no folder")
    target = target / Path(path).name if target.is_dir() else target
    return target.resolve() if target.is_symlink() else target


@contextmanager
def _told(target: str) -> Iterator[None]:
    """Says in a sentence that something cannot be written."""
    try:
        yield
    except BrokenPipeError:  # whoever reads it has enough
        raise
    except OSError as error:
        raise Refused(f"{target} cannot be written: {error.strerror}") from error


async def _pour(there: BinaryIO, pieces: AsyncIterator[bytes], found: FoundFile) -> None:
    """Raises Refused where less came than was found."""
    size = 0
    async for piece in pieces:
        size += there.write(piece)
    there.flush()
    if size < found.size:
        raise Refused(f"only {size} of {found.size} bytes came: somebody cut it meanwhile; pull it again")


async def _write(target: Path, found: FoundFile, pieces: AsyncIterator[bytes]) -> None:
    """Raises Refused where it cannot be written, or is not whole: then what was there stays."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.")
    except OSError as error:
        raise click.UsageError(f"{target} cannot be written: {error.strerror}") from error
    try:
        with _told(str(target)), os.fdopen(descriptor, "wb") as written:
            await _pour(written, pieces, found)
            os.fchmod(descriptor, found.mode)
            os.fsync(descriptor)
        with _told(str(target)):
            os.replace(temporary, target)  # noqa: PTH105  # as the rest here speaks
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)  # noqa: PTH108
