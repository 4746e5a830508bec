"""A snapshot as a file: a gzipped tar whose first member says what the others are.

It is written under another name and moved into place once it is whole and on
the disk. It is read with suspicion: what its manifest does not name, or names
differently, is an error and never comes near the disk.
"""

import gzip
import hashlib
import io
import os
import stat
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Final, Literal

from pydantic import Field, ValidationError

from api.errors import Refused
from api.model import Model

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"

_MANIFEST_MOST: Final = 64 * 1024 * 1024
"""Bytes."""
_PIECE: Final = 1024 * 1024


class Part(Model):
    """One file."""

    path: str
    """Below the snapshot's own root, with forward slashes."""
    mode: int = Field(ge=0, le=0o777)
    size: int = Field(ge=0)
    sha256: str


class Folder(Model):
    """One folder."""

    path: str
    mode: int = Field(ge=0, le=0o777)


class Manifest(Model):
    """What a snapshot is, and all that is in it."""

    format: int = FORMAT
    version: str
    """Of the MCP that made it."""
    schema_revision: str
    """Of the registry's tables."""
    node: str
    database: Literal["sqlite", "postgresql"]
    taken_at: datetime
    services: int
    folders: tuple[Folder, ...] = ()
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A file to be kept, and the name under which it is."""

    path: str
    file: Path


def describe(source: Source) -> Part:
    """The file's size and hash. Raises OSError."""
    with source.file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
        status = os.fstat(content.fileno())
    return Part(path=source.path, mode=stat.S_IMODE(status.st_mode) & 0o777, size=status.st_size, sha256=digest)


def write(target: Path, manifest: Manifest, sources: Iterable[Source]) -> None:
    """Makes the archive at `target`, 0600, whole or not at all. Raises OSError; the sources must not change."""
    files = {source.path: source.file for source in sources}
    partial = target.with_name(f".{target.name}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as raw:
            with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=6, format=tarfile.PAX_FORMAT) as archive:
                _add_manifest(archive, manifest)
                for part in manifest.parts:
                    with files[part.path].open("rb") as content:
                        archive.addfile(_entry(part.path, part.size, part.mode, manifest.taken_at), content)
            raw.flush()
            os.fsync(raw.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(target.parent)


def unpack(file: Path, folder: Path) -> Manifest:
    """Lays the snapshot's parts down below `folder`, each as its manifest says. Raises Refused, OSError."""
    with _opened(file) as archive:
        members = iter(archive)
        manifest = _manifest(file, archive, members)
        _make_folders(file, manifest, folder)
        expected = {part.path: part for part in manifest.parts}
        for member in members:
            part = expected.pop(member.name, None)
            content = archive.extractfile(member) if part is not None and member.isreg() else None
            if part is None or content is None:
                raise _damaged(file, f'holds "{member.name}", of which its manifest knows nothing')
            _lay_down(file, content, folder, part)
    if expected:
        raise _damaged(file, f"lacks {', '.join(sorted(expected))}")
    return manifest


def sync_file(file: Path) -> None:
    """What was written is on the disk. Raises OSError."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """What was moved into the folder is there after a loss of power, too. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _opened(file: Path) -> Iterator[tarfile.TarFile]:
    try:
        with gzip.open(file) as content, tarfile.open(fileobj=content, mode="r|") as archive:
            yield archive
            # To the very end, where the sum over all of it is.
            while content.read(_PIECE):
                pass
    except FileNotFoundError as error:
        raise Refused(f"there is no snapshot {error.filename}") from error
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise _damaged(file, f"cannot be read to its end ({error})") from error


def _manifest(file: Path, archive: tarfile.TarFile, members: Iterator[tarfile.TarInfo]) -> Manifest:
    first = next(members, None)
    content = archive.extractfile(first) if first is not None and first.isreg() and first.name == MANIFEST else None
    if first is None or content is None or first.size > _MANIFEST_MOST:
        raise Refused(f"{file} is no snapshot of mcp-agent: it does not begin with {MANIFEST}")
    try:
        manifest = Manifest.model_validate_json(content.read())
    except ValidationError as error:
        raise Refused(f"{file} is a snapshot of a version of MCP that this one does not know: {error}") from error
    if manifest.format != FORMAT:
        raise Refused(f"{file} is a snapshot of format {manifest.format}, which MCP {manifest.version} wrote")
    return manifest


def _make_folders(file: Path, manifest: Manifest, folder: Path) -> None:
    for one in manifest.folders:
        _below(file, folder, one.path).mkdir(mode=one.mode | stat.S_IRWXU, parents=True, exist_ok=True)


def _lay_down(file: Path, content: IO[bytes], folder: Path, part: Part) -> None:
    target = _below(file, folder, part.path)
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    digest = hashlib.sha256()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as out, closing(content):
        while piece := content.read(_PIECE):
            digest.update(piece)
            out.write(piece)
        out.flush()
        os.fchmod(out.fileno(), part.mode)
        os.fsync(out.fileno())
    if digest.hexdigest() != part.sha256 or target.stat().st_size != part.size:
        raise _damaged(file, f"holds another {part.path} than its manifest says")


def _below(file: Path, folder: Path, path: str) -> Path:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise _damaged(file, f'names "{path}", which is no place for a part')
    return folder.joinpath(*parts)


def _add_manifest(archive: tarfile.TarFile, manifest: Manifest) -> None:
    content = manifest.model_dump_json(indent=2).encode()
    archive.addfile(_entry(MANIFEST, len(content), 0o600, manifest.taken_at), io.BytesIO(content))


def _entry(path: str, size: int, mode: int, at: datetime) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.size, entry.mode, entry.mtime = size, mode, int(at.timestamp())
    return entry


def _damaged(file: Path, what: str) -> Refused:
    return Refused(f"the snapshot {file} is damaged: it {what}; nothing was changed")
