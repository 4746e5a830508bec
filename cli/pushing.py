"""What `mcp push` does, once its options are read."""

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import click
from pydantic import ValidationError

from api.client import Client
from api.complaints import complaints
from api.conditions import ConditionType, Status
from api.errors import ExitCode, Refused
from api.files import PIECE_BYTES, FileTarget, ServiceFile
from api.service import Convergence, Service, convergence
from cli.connect import connected
from cli.options import Settings
from cli.output import Output
from cli.reports.files import PushedFile
from cli.wait import End, Goal, Settled, following, settle


@dataclass(frozen=True, slots=True)
class Push:
    """A file and where it shall lie."""

    source: str
    target: FileTarget

    @classmethod
    def of(
        cls, source: str, service: str, path: str | None, *, mode: int | None, owner: str, managed: bool, restart: bool
    ) -> Self:
        """What the arguments mean. Raises click.UsageError."""
        name, _, component = service.partition("/")
        if component and not restart:
            raise click.UsageError(f"{service} names a component: only with --restart is one of them meant")
        if path is None or path.endswith("/"):
            if _is_stream(source):
                name = "standard input" if source == "-" else "a pipe"
                raise click.UsageError(f"say at which PATH: {name} has no name of its own")
            path = f"{path or ''}{Path(source).name}"
        fields = {
            "service": name,
            "path": path,
            "mode": _mode(source) if mode is None else mode,
            "owner": owner,
            "managed": managed,
            "restart": restart,
            "component": component,
        }
        try:
            return cls(source, FileTarget.model_validate(fields))
        except ValidationError as error:
            first = complaints(error)[0]
            raise click.UsageError(f"{first.field or 'the file'} {first.message}") from error

    async def run(self, settings: Settings, within: float | None) -> int:
        """Hands the file over and waits, if for any time, until it lies there."""
        output = Output(settings)
        async with connected(settings, self.target.service) as client:
            if within is None:
                there = await client.get(self.target.service)
                file = await self._hand_over(client)
                unchanged = _unchanged(there, file)
                words = "unchanged" if unchanged else "pushed"
                output.line(f"{self.target.service}: {file.path} is {words} (revision {file.revision})")
                output.document(PushedFile(service=self.target.service, file=file, unchanged=unchanged))
                return ExitCode.DONE
            async with following(client, [self.target.service]) as follower:
                before = follower.services.get(self.target.service)
                file = await self._hand_over(client)
                follower.skip()
                answered = await client.get(self.target.service)
                goals = {self.target.service: self._goal(file)}
                async for settled in settle(follower, goals, [answered], within, lambda *_: None):
                    return self._tell(output, file, settled, _unchanged(before, file))
        raise AssertionError("settled without an end")

    async def _hand_over(self, client: Client) -> ServiceFile:
        with _opened(self.source) as content:
            return await client.files.push(self.target, _pieces(content, self.source))

    def _goal(self, pushed: ServiceFile) -> Goal:
        def judge(service: Service | None) -> tuple[Convergence, str]:
            file = None if service is None else service.file(pushed.path)
            if service is None or file is None or service.deleting:
                return Convergence.FAILED, "somebody deletes the service"
            if file.laid or file.revision > pushed.revision:
                if self.target.restart:
                    return convergence(service, service.generation)
                return Convergence.DONE, "laid down"
            condition = service.condition(ConditionType.FILES_IN_PLACE)
            if condition is None or condition.status is Status.TRUE or not condition.reason.needs_a_person:
                return Convergence.WAITING, "the agent has not laid it down yet"
            return Convergence.FAILED, f"{condition.reason}: {condition.message}"

        return judge

    def _tell(self, output: Output, pushed: ServiceFile, settled: Settled, unchanged: bool) -> int:
        place = f"{settled.name}: {pushed.path}"
        file = pushed if settled.service is None else settled.service.file(pushed.path) or pushed
        match settled.end:
            case End.DONE:
                words = "unchanged, and lies there" if unchanged else "laid down"
                output.line(f"{place} is {words} (revision {pushed.revision})")
            case End.FAILED:
                output.error(f"{place}: {settled.message}")
            case End.TIMED_OUT:
                output.error(f"{place}: timed out: {settled.message}; the agent goes on, mcp status says how far it is")
        output.document(
            PushedFile(service=settled.name, file=file, unchanged=unchanged, end=settled.end, message=settled.message)
        )
        return {End.DONE: ExitCode.DONE, End.FAILED: ExitCode.FAILED, End.TIMED_OUT: ExitCode.TIMED_OUT}[settled.end]


def _mode(source: str) -> int:
    """The permissions of what is pushed; what comes from a pipe may be a secret."""
    if _is_stream(source):
        return 0o600
    with _opened(source) as file:
        return stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o777


def _is_stream(source: str) -> bool:
    """Whether it can be read only once, as what a shell gives for `<(command)`."""
    return source == "-" or Path(source).is_fifo()


def _opened(source: str) -> BinaryIO:
    """The content. Raises click.UsageError for what is no file that can be read."""
    if source == "-":
        return open(sys.stdin.fileno(), "rb", closefd=False)
    path = Path(source)
    try:
        if not (path.is_file() or path.is_fifo()):
            raise click.UsageError(f"{source} is {'no file' if path.exists() else 'not there'}")
        return path.open("rb")
    except OSError as error:
        raise click.UsageError(f"{source} cannot be read: {error.strerror}") from error


async def _pieces(content: BinaryIO, source: str) -> AsyncIterator[bytes]:
    """The content. Raises Refused before it ends where somebody wrote to the file meanwhile: no agent keeps it."""
    before = os.fstat(content.fileno())
    while piece := await asyncio.to_thread(content.read, PIECE_BYTES):
        yield piece
    after = os.fstat(content.fileno())
    if stat.S_ISREG(after.st_mode) and (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise Refused(f"{source} changed while it was read, and was not pushed: push it again once it is whole")


def _unchanged(before: Service | None, pushed: ServiceFile) -> bool:
    """Whether the service had the very same file: else it would be another revision."""
    file = None if before is None else before.file(pushed.path)
    return file is not None and file.revision == pushed.revision
