"""What is known of pushed files."""

from api.files import FoundFile, ServiceFile
from api.model import Model
from cli.wait import End


class PushedFile(Model):
    """`mcp push`"""

    service: str
    file: ServiceFile
    """As it was last seen."""
    unchanged: bool = False
    """Whether the very same was pushed there before."""
    end: End | None = None
    """How the wait ended; null where there was none."""
    message: str = ""


class UnpushedFile(Model):
    """`mcp unpush`"""

    service: str
    file: ServiceFile
    """What is taken back, as a revision of its own."""
    dry_run: bool = False
    end: End | None = None
    """How the wait ended; null where there was none."""
    message: str = ""
    """What became of what lies on the disk, or what is awaited or wrong; in a dry run: what would be done."""


class FilesReport(Model):
    """`mcp files`"""

    service: str
    files: tuple[ServiceFile, ...]
    """By path; with `--history` all that is kept, the oldest of each first."""


class PulledFile(Model):
    """`mcp pull`"""

    service: str
    path: str
    file: str
    """Where it was written."""
    found: FoundFile
