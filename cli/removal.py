"""What `mcp delete` does, once its options are read."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from api.client import Client
from api.control_plane import Deleted
from api.errors import ExitCode
from cli.connect import connected
from cli.options import Settings, duration
from cli.output import Output
from cli.progress import Progress
from cli.reports import DeletedService, DeleteReport
from cli.views import action_lines
from cli.wait import End, Follower, Settled, deleted, following, settle


async def delete(settings: Settings, names: Sequence[str], *, dry_run: bool, wait: bool, within: float) -> int:
    """Marks services for deletion and waits until they are gone; see `mcp delete --help`."""
    output = Output(settings)
    names = list(dict.fromkeys(names))
    async with connected(settings, names[0]) as client, AsyncExitStack() as stack:
        await asyncio.gather(*(client.get(name) for name in names))
        if dry_run:
            return await _plan(output, client, names)
        follower = await stack.enter_async_context(following(client, names)) if wait else None
        removal = Removal(output, client, follower)
        try:
            for name in names:
                await removal.submit(name)
            return await removal.finish(within)
        except asyncio.CancelledError:
            removal.say_that_it_goes_on()
            raise


async def _plan(output: Output, client: Client, names: Sequence[str]) -> int:
    reports = []
    for name in names:
        answer = await client.delete(name, dry_run=True)
        output.line(f"{name} would be deleted")
        output.lines(f"    {line}" for action in answer.actions for line in action_lines(action))
        reports.append(DeletedService(name=name, actions=answer.actions))
    output.document(DeleteReport(dry_run=True, services=tuple(reports)))
    return ExitCode.DONE


class Removal:
    """Services that were marked for deletion, on their way out."""

    def __init__(self, output: Output, client: Client, follower: Follower | None) -> None:
        self._output = output
        self._client = client
        self._follower = follower
        self._progress = Progress(output)
        self._marked: dict[str, Deleted] = {}
        self._ends: dict[str, tuple[Settled, float]] = {}

    async def submit(self, name: str) -> None:
        """Marks one service."""
        started = time.monotonic()
        self._marked[name] = answer = await self._client.delete(name)
        self._output.line(f"{name} is being deleted")
        self._progress.add(name, answer.service.generation, started=started, steps=False)

    async def finish(self, within: float) -> int:
        """Waits as long as `within` seconds allow, and tells the end of each service."""
        if self._follower is not None:
            goals = {name: deleted(answer.service.uid) for name, answer in self._marked.items()}
            answered = [answer.service for answer in self._marked.values()]
            async with self._progress.shown():
                async for settled in settle(self._follower, goals, answered, within, self._progress.show):
                    track = self._progress.settled(settled)
                    self._ends[settled.name] = (settled, track.seconds)
        for settled, seconds in self._ends.values():
            self._tell(settled, seconds, within)
        self._output.document(DeleteReport(dry_run=False, services=tuple(map(self._report, self._marked))))
        late = any(settled.end is End.TIMED_OUT for settled, _ in self._ends.values())
        return ExitCode.TIMED_OUT if late else ExitCode.DONE

    def _tell(self, settled: Settled, seconds: float, within: float) -> None:
        if settled.end is End.DONE:
            self._output.line(f"{settled.name} deleted in {seconds:.2f}s", style="green")
        else:
            self._output.error(
                f"{settled.name} timed out after {duration(within)}: {settled.message}; the deletion goes on"
            )

    def say_that_it_goes_on(self) -> None:
        """The last words of an interrupted delete."""
        under_way = [name for name in self._marked if name not in self._ends]
        if under_way:
            self._output.error(
                f"interrupted: the deletion of {', '.join(under_way)} goes on; mcp status {under_way[0]} shows it"
            )

    def _report(self, name: str) -> DeletedService:
        settled, seconds = self._ends.get(name, (None, None))
        return DeletedService(
            name=name,
            end=settled.end if settled else None,
            message=settled.message if settled else "",
            seconds=None if seconds is None else round(seconds, 3),
        )
