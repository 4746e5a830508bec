"""What can be seen on a node that is made of memory."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from api.errors import McpError
from api.inspection import (
    ContainerUsage,
    Exported,
    ExportedFile,
    ExportFormat,
    Finding,
    FindingState,
    LogLine,
    LogQuery,
    LogStream,
    NodeUsage,
)

AT = datetime(2026, 11, 25, 9, 36, tzinfo=UTC)


def line(text: str, component: str = "web", stream: LogStream = LogStream.STDOUT) -> LogLine:
    return LogLine(component=component, container=f"hello-{component}", stream=stream, at=AT, text=text.encode())


@dataclass
class Seen:
    """What is told, and what was asked."""

    lines: list[LogLine] = field(default_factory=list)
    queries: list[LogQuery] = field(default_factory=list)
    findings: list[Finding] = field(
        default_factory=lambda: [Finding(check="podman", state=FindingState.OK, found="version 4.3.1")]
    )
    problem: str = ""
    refusal: McpError | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """The service that is followed."""

    async def logs(self, query: LogQuery) -> AsyncGenerator[tuple[LogLine, ...], None]:
        self.queries.append(query)
        if self.refusal is not None:
            raise self.refusal
        yield tuple(self.lines)
        if query.follow:
            await self.gone.wait()

    async def usage(self, interval: float) -> AsyncGenerator[NodeUsage, None]:
        for cpu in (None, 0.125):
            known = not self.problem
            yield NodeUsage(
                at=AT,
                problem=self.problem,
                containers=(
                    ContainerUsage(container="a\x1b[31m", owned=False, cpu=0.01 if cpu and known else None),
                    ContainerUsage(
                        container="hello-web",
                        owned=True,
                        service="hello",
                        component="web",
                        cpu=cpu if known else None,
                        memory=45 << 20 if known else None,
                        memory_limit=512 << 20 if known else None,
                        pids=3 if known else None,
                        received=1536,
                        sent=12,
                    ),
                ),
            )

        await self.gone.wait()

    async def diagnose(self) -> tuple[Finding, ...]:
        return tuple(self.findings)

    async def export(self, name: str, form: ExportFormat) -> Exported:
        if self.refusal is not None:
            raise self.refusal
        files = (
            ExportedFile(name="net.network", content="[Network]\n"),
            ExportedFile(name="../a", content="A=s3cret\n"),
        )
        return Exported(files=files, warnings=(f"{form} holds what looks secret",))
