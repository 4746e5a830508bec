"""What `mcp unpush` does, once its options are read."""

from collections.abc import Callable

from api.client import Client
from api.conditions import ConditionType, Reason
from api.errors import ExitCode
from api.files import ServiceFile
from api.service import Convergence, Event, Service
from cli.connect import connected
from cli.options import Settings
from cli.output import Output
from cli.reports.files import UnpushedFile
from cli.views import event_line
from cli.wait import End, Settled, following, settle

_EVENTS = 20
"""So many of a service's newest tell what became of the file."""


async def unpush(
    settings: Settings, service: str, path: str, *, delete: bool, forget: bool, dry_run: bool, within: float | None
) -> int:
    """Takes a push back, and waits, if for any time, until it is known what became of the file."""
    output = Output(settings)
    async with connected(settings, service) as client:
        if dry_run:
            would = await client.files.remove(service, path, delete=delete, forget=forget, dry_run=True)
            output.line(f"{service}: would {would.planned or f'forget {path}'}")
            output.document(UnpushedFile(service=service, file=would.file, dry_run=True, message=would.planned))
            return ExitCode.DONE
        if within is None:
            file = (await client.files.remove(service, path, delete=delete, forget=forget)).file
            output.line(f"{service}: {path} is unpushed")
            output.document(UnpushedFile(service=service, file=file))
            return ExitCode.DONE
        async with following(client, [service]) as follower:
            file = (await client.files.remove(service, path, delete=delete, forget=forget)).file
            follower.skip()
            answered = await client.get(service)
            async for settled in settle(follower, {service: _goal(file)}, [answered], within, lambda *_: None):
                return await _tell(client, output, file, settled)
    raise AssertionError("settled without an end")


def _goal(unpushed: ServiceFile) -> Callable[[Service | None], tuple[Convergence, str]]:
    def judge(service: Service | None) -> tuple[Convergence, str]:
        if service is None:
            return Convergence.DONE, "its service is gone"
        file, condition = service.file(unpushed.path), service.condition(ConditionType.FILES_IN_PLACE)
        looked = condition is not None and condition.reason is not Reason.PENDING
        if file is not None and file.revision > unpushed.revision:
            return Convergence.FAILED, "somebody pushed it again meanwhile"
        if file is None and (looked or unpushed.laid):
            return Convergence.DONE, ""
        if condition is not None and looked and condition.reason.needs_a_person:
            return Convergence.FAILED, f"{condition.reason}: {condition.message}"
        return Convergence.WAITING, "the agent has not looked at it yet"

    return judge


async def _tell(client: Client, output: Output, file: ServiceFile, settled: Settled) -> int:
    place = f"{settled.name}: {file.path}"
    message = settled.message
    match settled.end:
        case End.DONE:
            message = message or _became(file, await client.events(settled.name, limit=_EVENTS))
            output.line(f"{place} is unpushed: {message}" if message else f"{place} is unpushed")
        case End.FAILED:
            output.error(f"{place}: {message}")
        case End.TIMED_OUT:
            output.error(f"{place}: timed out: {message}; the agent goes on, mcp files says how far it is")
    output.document(UnpushedFile(service=settled.name, file=file, end=settled.end, message=message))
    return {End.DONE: ExitCode.DONE, End.FAILED: ExitCode.FAILED, End.TIMED_OUT: ExitCode.TIMED_OUT}[settled.end]


def _became(file: ServiceFile, events: tuple[Event, ...]) -> str:
    """What the agent did about it, in its own words."""
    told = (
        event_line(event)
        for event in reversed(events)
        if event.kind in ("removed", "forgot") and event.message.startswith(f"{file.path} (")
    )
    return next(told, "")
