"""Files that are pushed to a service: one contract for the client, the server and the controller."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Protocol

from pydantic import AfterValidator, Field, model_validator

from api.fields import Name
from api.model import Model

PIECE_BYTES: Final = 64 * 1024
"""Of a file's content in one message."""

TEMPORARY: Final = re.compile(r"\.mcp-[0-9a-f]{16}\.new")
"""The names of files that are being written: no file may be pushed to one."""

_LONGEST_PATH: Final = 1024
_LONGEST_PART: Final = 255
_NOBODY: Final = 2**32 - 1
"""What the kernel takes for "leave it as it is"."""


def relative_path(value: str) -> str:
    """The path as it is. Raises ValueError unless it leads to a file below whatever folder it begins in."""
    if not value:
        raise ValueError("is empty")
    if not value.isprintable():
        raise ValueError("holds a character that cannot be printed")
    if value.startswith("/"):
        raise ValueError("is absolute: say where below the service's folder the file lies")
    for part in value.split("/"):
        if part in ("", ".", ".."):
            raise ValueError(f'has "{part}" between its slashes: only names may be there')
        if len(part.encode()) > _LONGEST_PART:
            raise ValueError(f"has a name of more than {_LONGEST_PART} bytes")
        if TEMPORARY.fullmatch(part):
            raise ValueError(f'has the name "{part}": such are the files that are being written')
    if len(value.encode()) > _LONGEST_PATH:
        raise ValueError(f"is longer than {_LONGEST_PATH} bytes")
    return value


def _owner(value: str) -> str:
    if value and not (re.fullmatch(r"\d{1,10}:\d{1,10}", value) and max(map(int, value.split(":"))) < _NOBODY):
        raise ValueError('is not uid:gid in numbers, such as "0:0"')
    return value


FilePath = Annotated[str, AfterValidator(relative_path)]
FileMode = Annotated[int, Field(ge=0, le=0o777)]
FileOwner = Annotated[str, AfterValidator(_owner)]


class FileTarget(Model):
    """Where a file that is pushed shall lie, and how."""

    service: Name
    path: FilePath
    """Below the service's folder."""
    mode: FileMode = 0o644
    owner: FileOwner = ""
    """uid:gid on the host; empty: the agent's own."""
    managed: bool = False
    """Kept as it is pushed; otherwise it is laid down once."""
    restart: bool = False
    """A content that is not the one before makes the containers anew."""
    component: str = ""
    """Whose containers; empty: all of the service's."""

    @model_validator(mode="after")
    def _component_restarts(self) -> "FileTarget":
        if self.component and not self.restart:
            raise ValueError("names a component, and nothing is to be restarted")
        return self


class ServiceFile(Model):
    """A file as it was pushed to a service: all but its content."""

    path: str
    revision: int
    """Rises with each push of something else to this path."""
    sha256: str
    size: int
    mode: int
    owner: str = ""
    managed: bool = False
    restart: bool = False
    component: str = ""
    actor: str
    at: datetime
    generation: int
    """Of the service when it was pushed."""
    laid: bool = False
    """Whether it was laid down since it was pushed last; of one that was taken back: whether it is done with."""
    removed: bool = False
    """Taken back: the other fields say what lay there, and `managed` whether that goes from the disk, too."""


@dataclass(frozen=True, slots=True)
class Removal:
    """What became of a file that is taken back."""

    file: ServiceFile
    planned: str = ""
    """In a dry run: what would be done about what lies on the disk, in a sentence."""


class FoundFile(Model):
    """A file as it lies on the node's disk."""

    size: int
    mode: int
    owner: str


class Files(Protocol):
    """What can be asked about files. All methods raise errors of api.errors."""

    async def push(self, target: FileTarget, pieces: AsyncIterator[bytes], *, actor: str) -> ServiceFile:
        """Keeps a file as desired state; it is laid down afterwards. Raises NotFound, Refused, InvalidSpec."""
        ...

    async def remove(
        self,
        service: str,
        path: str,
        *,
        actor: str,
        delete: bool = False,
        forget: bool = False,
        dry_run: bool = False,
    ) -> Removal:
        """Takes a push back: nothing is kept at that path any more; see RemoveFile. Raises NotFound, Refused."""
        ...

    async def pull(self, service: str, path: str) -> tuple[FoundFile, AsyncIterator[bytes]]:
        """What lies on the disk now. Raises NotFound where there is no such service or file, Refused for no file."""
        ...

    async def files(self, service: str, *, history: bool = False) -> tuple[ServiceFile, ...]:
        """The files of a service, by path; with `history` the earlier ones too, oldest first. Raises NotFound."""
        ...
