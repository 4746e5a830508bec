"""What `mcp apply` and `mcp diff` do, once their options are read."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from api.client import Client
from api.control_plane import Applied
from api.errors import ExitCode, InvalidSpec, McpError, Refused, StaleGeneration
from api.manifest import InvalidManifest, Manifest, Problem
from api.service import Change, Service
from cli.config import Nodes, UnknownNode
from cli.connect import clients
from cli.handover import ABOUT_ONE, Course, Errand, Handover, label, undone
from cli.options import Settings, duration
from cli.output import Output
from cli.progress import Track
from cli.reports.changes import AppliedService, ApplyReport, DifferingService, DiffReport
from cli.reports.common import Unasked
from cli.sources import doubles, manifests
from cli.views import action_lines, field_line
from cli.wait import End, Goal, Settled, applied

_CONCURRENT_CHECKS = 8
"""Of one node."""


@dataclass(frozen=True, slots=True)
class Order:
    """A wish that is less than a definition."""

    name: str
    node: str
    client: Client
    act: Callable[[], Awaitable[Applied]]

    async def submit(self) -> Applied:
        """Makes it the desired state."""
        return await self.act()


@dataclass(frozen=True, slots=True)
class Wish:
    """A definition, or one component of it, and the node whose agent is to make it true."""

    manifest: Manifest
    node: str
    to: Callable[[str], Client]
    component: str = ""

    @property
    def name(self) -> str:
        """The service's name."""
        return self.manifest.spec.name

    @property
    def client(self) -> Client:
        """A connection to the agent. Raises Refused where there can be none."""
        return self.to(self.node)

    async def check(self) -> Applied:
        """What the agent would do about it, changing nothing. Raises InvalidManifest where it refuses."""
        return await self._placed(dry_run=True)

    async def submit(self) -> Applied:
        """Makes it the desired state. Raises InvalidManifest where the agent refuses it."""
        return await self._placed(dry_run=False)

    async def _placed(self, *, dry_run: bool) -> Applied:
        client = self.client
        try:
            return await client.apply(self.manifest.spec, dry_run=dry_run, component=self.component)
        except InvalidSpec as error:
            raise self.manifest.invalid(error) from error
        except (Refused, StaleGeneration) as error:
            line = self.manifest.locate("name")
            raise InvalidManifest((Problem(self.manifest.source, line, "", error.message),)) from error


@asynccontextmanager
async def wishes(settings: Settings, files: Iterable[str], component: str = "") -> AsyncIterator[list[Wish]]:
    """All definitions in `files`, each with a way to its agent. Raises InvalidManifest with all that is wrong."""
    nodes = Nodes(settings)
    found = [(node_for(nodes, manifest), manifest) for manifest in manifests(files)]
    if problems := tuple(doubles(found)):
        raise InvalidManifest(problems)
    async with clients(nodes) as to:
        yield [Wish(manifest, node, to, component) for node, manifest in found]


def node_for(nodes: Nodes, manifest: Manifest) -> str:
    """The node that a definition is for. Raises InvalidManifest where mcp.toml does not know it."""
    try:
        return nodes.name(manifest.spec.node)
    except UnknownNode as error:
        line = manifest.locate("node")
        raise InvalidManifest((Problem(manifest.source, line, "node", error.message),)) from error


async def check_all(them: Sequence[Wish]) -> tuple[list[Course[Applied]], list[Applied]]:
    """The wishes, of which those have an error whose agents did not answer; and the answers of the others, in order.

    Raises InvalidManifest with all that any agent refuses: then nothing is changed anywhere.
    """
    rooms = {wish.node: asyncio.Semaphore(_CONCURRENT_CHECKS) for wish in them}
    silent: dict[str, McpError] = {}

    async def check(wish: Wish) -> Applied | McpError:
        async with rooms[wish.node]:
            if wish.node in silent:
                return silent[wish.node]
            try:
                return await wish.check()
            except McpError as error:
                if not isinstance(error, ABOUT_ONE):
                    # Whoever lets one call run out of time is not asked for each of a hundred.
                    silent[wish.node] = error
                return error

    answers = await asyncio.gather(*map(check, them))
    refused = [answer for answer in answers if isinstance(answer, InvalidManifest)]
    if refused:
        raise InvalidManifest(tuple(problem for error in refused for problem in error.problems))
    courses = [
        Course[Applied](wish, answer if isinstance(answer, McpError) else None)
        for wish, answer in zip(them, answers, strict=True)
    ]
    label(courses)
    return courses, [answer for answer in answers if isinstance(answer, Applied)]


async def diff(settings: Settings, files: Iterable[str]) -> int:
    """Says what applying would change; FAILED where it would change anything."""
    output = Output(settings)
    async with wishes(settings, files) as them:
        courses, answers = await check_all(them)
    unasked, status = undone(output, courses, "not compared")
    differing = []
    for course, answer in zip((course for course in courses if course.error is None), answers, strict=True):
        tell_plan(output, course.label, answer)
        tell_drained(output, course, answer)
        differing.append(
            DifferingService(
                name=course.errand.name,
                node=course.errand.node,
                change=answer.change,
                fields=answer.fields,
                actions=answer.actions,
            )
        )
    output.line(_summary(answers))
    output.document(DiffReport(services=tuple(differing), unasked=unasked))
    same = all(answer.change is Change.UNCHANGED and not answer.actions for answer in answers)
    return status or (ExitCode.DONE if same else ExitCode.FAILED)


async def apply(
    settings: Settings,
    files: Iterable[str],
    *,
    dry_run: bool,
    wait: bool,
    within: float,
    component: str = "",
    output: Output | None = None,
) -> int:
    """Makes definitions the desired state, then waits for them; see `mcp apply --help`."""
    output = output or Output(settings)
    async with wishes(settings, files, component) as them:
        if dry_run:
            return await plan(output, them)
        courses = (await check_all(them))[0] if len(them) > 1 else [Course[Applied](wish) for wish in them]
        return await Rollout(output, courses).run(wait=wait, within=within)


async def plan(output: Output, them: Sequence[Wish]) -> int:
    """Says what handing them over would do, and does nothing."""
    courses, answers = await check_all(them)
    unasked, status = undone(output, courses, "not checked")
    planned = list(zip((course for course in courses if course.error is None), answers, strict=True))
    for course, answer in planned:
        tell_plan(output, course.label, answer)
        tell_drained(output, course, answer)
    output.line(_summary(answers))
    reports = tuple(report(course.errand, answer) for course, answer in planned)
    output.document(ApplyReport(dry_run=True, services=reports, unasked=unasked))
    return status


def tell_plan(output: Output, name: str, answer: Applied) -> None:
    """Says what an agent answered that it would do."""
    words = {Change.CREATED: "would be created", Change.CONFIGURED: "would be configured"}
    output.line(f"{name} {words.get(answer.change, 'unchanged')}")
    if answer.change is not Change.CREATED:
        output.lines(field_line(change) for change in answer.fields)
    if answer.actions:
        output.line("  what would be done:")
        told = {change.path for change in answer.fields}
        output.lines(f"    {line}" for action in answer.actions for line in action_lines(action, told))


def tell_drained(output: Output, course: Course[Applied], answer: Applied) -> None:
    """Says that a definition is stored, and kept stopped with its node, where it is."""
    wish, stored = course.errand, answer.service
    if isinstance(wish, Wish) and not wish.component and wish.manifest.spec.active and not stored.spec.active:
        node = stored.node
        output.line(f"{course.label} is kept stopped: node {node} is drained; mcp node undrain {node}", "yellow")


def _summary(answers: Iterable[Applied]) -> str:
    changes = [answer.change for answer in answers]
    return (
        f"{changes.count(Change.CREATED)} to create, {changes.count(Change.CONFIGURED)} to change, "
        f"{changes.count(Change.UNCHANGED)} unchanged"
    )


class Rollout(Handover[Applied]):
    """Definitions that were handed over, on their way to being true."""

    undone = "not applied"

    def tell_answer(self, course: Course[Applied], answer: Applied) -> None:
        """Says what became of the definition."""
        if answer.change is Change.UNCHANGED:
            self.output.line(f"{course.label} unchanged")
        else:
            generation = answer.service.generation
            self.output.line(f"{course.label} {answer.change} (generation {generation})", style="green")
            if answer.change is Change.CONFIGURED:
                self.output.lines(field_line(change) for change in answer.fields)
        tell_drained(self.output, course, answer)

    def goal(self, answer: Applied) -> Goal:
        """That very generation is to converge."""
        return applied(answer.service.uid, answer.service.generation)

    def tell_end(self, track: Track, end: Settled, within: float) -> None:
        """Says whether it did."""
        match end.end:
            case End.DONE:
                self.output.line(f"{track.name} {_state(end.service)} in {track.seconds:.2f}s", style="green")
            case End.FAILED:
                self.output.error(f"{track.name} failed: {end.message}")
            case End.TIMED_OUT:
                self.output.error(
                    f"{track.name} timed out after {duration(within)}, waiting: {end.message}; the rollout goes on"
                )

    def tell_interrupted(self, under_way: Sequence[str]) -> None:
        """The last words of an interrupted apply."""
        self.output.error(
            f"interrupted: the rollout of {', '.join(under_way)} goes on; mcp status {under_way[0]} shows it"
        )

    def report(self, unasked: tuple[Unasked, ...]) -> None:
        """What became of each."""
        services = tuple(
            report(course.errand, course.answer, course.end, course.seconds)
            for course in self.courses
            if course.answer is not None
        )
        self.output.document(ApplyReport(dry_run=False, services=services, unasked=unasked))


def report(
    wish: Errand[Applied], answer: Applied, settled: Settled | None = None, seconds: float | None = None
) -> AppliedService:
    """What became of it, for programs."""
    return AppliedService(
        name=wish.name,
        node=wish.node,
        change=answer.change,
        generation=answer.service.generation,
        fields=answer.fields,
        actions=answer.actions,
        notes=answer.notes,
        end=settled.end if settled else None,
        message=settled.message if settled else "",
        seconds=None if seconds is None else round(seconds, 3),
        service=settled.service if settled and settled.service else answer.service,
    )


def _state(service: Service | None) -> str:
    return "ready" if service is None or service.spec.active else "stopped"
