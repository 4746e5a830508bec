"""What only the node can see, while somebody looks: one contract for the client, the server and the controller."""

from collections.abc import AsyncGenerator
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from pydantic import Field

from api.model import Model

DEFAULT_LINES = 100
ALL_LINES = 1_000_000
"""As many stand for all there are: nothing is left out, and long lines come whole from any podman."""
DEFAULT_INTERVAL = 2.0
"""Seconds."""


class LogStream(StrEnum):
    """Where a line was written."""

    STDOUT = "stdout"
    STDERR = "stderr"


class LogQuery(Model):
    """Which lines are wanted."""

    service: str
    component: str = ""
    """Empty: all."""
    lines: int = Field(default=DEFAULT_LINES, ge=0, le=ALL_LINES)
    """Of each container, the newest so many."""
    since: datetime | None = None
    follow: bool = False


class LogLine(Model):
    """One line that a container wrote."""

    component: str
    container: str
    """Its name."""
    stream: LogStream
    at: datetime | None = None
    """As exactly as the engine tells; null where it does not."""
    text: bytes
    """Without the end of the line; UTF-8 is likely, and nobody promised it."""


class ContainerUsage(Model):
    """What one running container uses. What could not be measured is null, which is not the same as 0."""

    container: str
    """Its name."""
    owned: bool
    service: str = ""
    component: str = ""
    cpu: float | None = None
    """Cores, on average since the look before: 0.5 is half of one."""
    memory: int | None = None
    """Bytes."""
    memory_limit: int | None = None
    """Bytes; the host's memory where there is no limit."""
    pids: int | None = None
    received: int | None = None
    """Bytes, since its network was made."""
    sent: int | None = None
    """Bytes, since its network was made."""


class NodeUsage(Model):
    """What the running containers of a node use."""

    at: datetime
    containers: tuple[ContainerUsage, ...] = ()
    """By name."""
    problem: str = ""
    """Why the figures are missing, where they all are."""


class FindingState(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    WARNING = "warning"
    """It works, and may not for long or not as well as it could."""
    PROBLEM = "problem"
    """Something does not work because of it."""


class Finding(Model):
    """What one check found."""

    check: str
    state: FindingState
    found: str
    advice: str = ""
    """What to do about it; empty where nothing is to be done."""


class ExportFormat(StrEnum):
    """For whom files that run a service are written."""

    QUADLET = "quadlet"
    """systemd, by podman's generator."""
    KUBE = "kube"
    """`podman kube play`."""


class ExportedFile(Model):
    """One file that helps to run a service."""

    name: str
    content: str


class Exported(Model):
    """Files that run a service without us."""

    files: tuple[ExportedFile, ...]
    warnings: tuple[str, ...] = ()
    """What whoever runs them has to know: what is secret, and what is not carried over."""


class Inspection(Protocol):
    """What can be looked at on a node. All methods raise errors of api.errors."""

    def logs(self, query: LogQuery) -> AsyncGenerator[tuple[LogLine, ...], None]:
        """Lines as they are there, oldest first. Raises NotFound."""
        ...

    def usage(self, interval: float) -> AsyncGenerator[NodeUsage, None]:
        """What containers use, each `interval` seconds; never ends by itself."""
        ...

    async def diagnose(self) -> tuple[Finding, ...]:
        """All that was checked."""
        ...

    async def export(self, name: str, form: ExportFormat) -> Exported:
        """Files that run a service without us. Raises NotFound, and Refused while a route has no port."""
        ...
