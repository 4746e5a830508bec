"""What `mcp delete` does, once its options are read."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from api.client import Client
from api.control_plane import Deleted
from api.errors import McpError, NotFound
from cli.config import Nodes
from cli.connect import ask_each, clients, failures, places
from cli.handover import Course, Handover
from cli.options import Settings, duration
from cli.output import Output
from cli.progress import Track
from cli.reports.changes import DeletedService, DeleteReport
from cli.reports.common import Unasked
from cli.views import action_lines
from cli.wait import End, Goal, Settled, deleted


async def delete(settings: Settings, names: Sequence[str], *, dry_run: bool, wait: bool, within: float) -> int:
    """Marks services for deletion and waits until they are gone; see `mcp delete --help`."""
    if dry_run:
        return await _plan(settings, names)
    names = list(dict.fromkeys(names))
    if len(names) > 1:
        await _refuse_unknown(settings, names)
    return await remove(settings, (await places(settings, names)).items(), wait=wait, within=within)


async def _refuse_unknown(settings: Settings, names: Sequence[str]) -> None:
    """Whoever misspells one of several may have meant another one of them, too. Raises NotFound."""
    answers = await ask_each(settings, names, lambda client, name: client.get(name))
    unknown = [answer.error.message for answer in answers if isinstance(answer.error, NotFound)]
    if unknown:
        raise NotFound("\n".join(["nothing was deleted:", *unknown]))


async def _plan(settings: Settings, names: Sequence[str]) -> int:
    output = Output(settings)
    answers = await ask_each(settings, names, lambda client, name: client.delete(name, dry_run=True))
    reports = []
    for answer in answers:
        if answer.value is not None:
            output.line(f"{answer.service} would be deleted")
            output.lines(f"    {line}" for action in answer.value.actions for line in action_lines(action))
            reports.append(DeletedService(name=answer.service, node=answer.node, actions=answer.value.actions))
    unasked, status = failures(output, answers)
    output.document(DeleteReport(dry_run=True, services=tuple(reports), unasked=unasked))
    return status


async def remove(
    settings: Settings,
    them: Iterable[tuple[str, str | McpError]],
    *,
    wait: bool,
    within: float,
    reported: bool = True,
) -> int:
    """Takes services away, each by its name and where it is, or why that is not known; the exit status.

    `reported`: that is the whole result, for programs.
    """
    async with clients(Nodes(settings)) as to:
        courses = [
            Course(Deletion(name, "", to), place) if isinstance(place, McpError) else Course(Deletion(name, place, to))
            for name, place in them
        ]
        return await Removal(Output(settings), courses, reported=reported).run(wait=wait, within=within)


@dataclass(frozen=True, slots=True)
class Deletion:
    """A wish that a service be gone."""

    name: str
    node: str
    to: Callable[[str], Client]

    @property
    def client(self) -> Client:
        """A connection to the agent. Raises Refused where there can be none."""
        return self.to(self.node)

    async def submit(self) -> Deleted:
        """Marks it. Raises NotFound."""
        return await self.client.delete(self.name)


class Removal(Handover[Deleted]):
    """Services that were marked for deletion, on their way out."""

    undone = "not deleted"
    steps = False

    def __init__(self, output: Output, courses: Sequence[Course[Deleted]], *, reported: bool) -> None:
        super().__init__(output, courses)
        self._reported = reported

    def tell_answer(self, course: Course[Deleted], answer: Deleted) -> None:  # noqa: ARG002  # they are all alike
        """Says that it has begun."""
        self.output.line(f"{course.label} is being deleted")

    def goal(self, answer: Deleted) -> Goal:
        """That very service is to be gone."""
        return deleted(answer.service.uid)

    def tell_end(self, track: Track, end: Settled, within: float) -> None:
        """Says whether it is gone."""
        if end.end is End.DONE:
            self.output.line(f"{track.name} deleted in {track.seconds:.2f}s", style="green")
        else:
            how = f"timed out after {duration(within)}" if end.end is End.TIMED_OUT else "cannot be followed"
            self.output.error(f"{track.name} {how}: {end.message}; the deletion goes on")

    def tell_interrupted(self, under_way: Sequence[str]) -> None:
        """The last words of an interrupted delete."""
        self.output.error(
            f"interrupted: the deletion of {', '.join(under_way)} goes on; mcp status {under_way[0]} shows it"
        )

    def report(self, unasked: tuple[Unasked, ...]) -> None:
        """What became of each."""
        services = tuple(self._report_of(course) for course in self.courses if course.answer is not None)
        if self._reported:
            self.output.document(DeleteReport(dry_run=False, services=services, unasked=unasked))

    def _report_of(self, course: Course[Deleted]) -> DeletedService:
        return DeletedService(
            name=course.errand.name,
            node=course.errand.node,
            end=course.end.end if course.end else None,
            message=course.end.message if course.end else "",
            seconds=None if course.seconds is None else round(course.seconds, 3),
        )
