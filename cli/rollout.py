"""What `mcp apply` and `mcp diff` do, once their options are read."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from api.client import Client
from api.control_plane import Applied
from api.errors import ExitCode, InvalidSpec, McpError, Refused, StaleGeneration
from api.manifest import InvalidManifest, Manifest, Problem
from api.service import Change, Convergence, Service
from cli.config import Nodes, UnknownNode
from cli.connect import client_for
from cli.options import Settings, duration
from cli.output import Output
from cli.progress import Progress
from cli.reports import AppliedService, ApplyReport, DifferingService, DiffReport
from cli.sources import manifests
from cli.views import action_lines, field_line
from cli.wait import End, Follower, Goal, Settled, applied, following, settle

_CONCURRENT_CHECKS = 8


class Asked(Protocol):
    """Something that is asked of an agent, and that takes its time to be true."""

    @property
    def name(self) -> str:
        """The service's name."""
        ...

    @property
    def node(self) -> str:
        """Empty where --address named the agent."""
        ...

    @property
    def client(self) -> Client:
        """A connection to the agent."""
        ...

    async def submit(self) -> Applied:
        """Makes it the desired state."""
        ...


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
    """A definition, or one component of it, and the agent that is to make it true."""

    manifest: Manifest
    node: str
    client: Client
    component: str = ""

    @property
    def name(self) -> str:
        """The service's name."""
        return self.manifest.spec.name

    async def check(self) -> Applied:
        """What the agent would do about it, changing nothing. Raises InvalidManifest where it refuses."""
        return await self._placed(dry_run=True)

    async def submit(self) -> Applied:
        """Makes it the desired state. Raises InvalidManifest where the agent refuses it."""
        return await self._placed(dry_run=False)

    async def _placed(self, *, dry_run: bool) -> Applied:
        try:
            return await self.client.apply(self.manifest.spec, dry_run=dry_run, component=self.component)
        except InvalidSpec as error:
            raise self.manifest.invalid(error) from error
        except (Refused, StaleGeneration) as error:
            line = self.manifest.locate("name")
            raise InvalidManifest((Problem(self.manifest.source, line, "", error.message),)) from error


@asynccontextmanager
async def wishes(settings: Settings, files: Iterable[str], component: str = "") -> AsyncIterator[list[Wish]]:
    """All definitions in `files`, each with a connection to its agent."""
    found = manifests(files)
    nodes = Nodes(settings)
    chosen = [node_for(nodes, manifest) for manifest in found]
    async with AsyncExitStack() as stack:
        clients = {
            node: await stack.enter_async_context(client_for(nodes.named(node))) for node in dict.fromkeys(chosen)
        }
        yield [Wish(manifest, node, clients[node], component) for manifest, node in zip(found, chosen, strict=True)]


def node_for(nodes: Nodes, manifest: Manifest) -> str:
    """The node that a definition is for. Raises InvalidManifest where mcp.toml does not know it."""
    try:
        return nodes.name(manifest.spec.node)
    except UnknownNode as error:
        line = manifest.locate("node")
        raise InvalidManifest((Problem(manifest.source, line, "node", error.message),)) from error


async def check_all(them: Sequence[Wish]) -> list[Applied]:
    """What the agents would do, in order. Raises InvalidManifest with all that any of them refuses."""
    room = asyncio.Semaphore(_CONCURRENT_CHECKS)

    async def check(wish: Wish) -> Applied:
        async with room:
            return await wish.check()

    answers = await asyncio.gather(*(check(wish) for wish in them), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, InvalidManifest)]
    if refused:
        raise InvalidManifest(tuple(problem for error in refused for problem in error.problems))
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if isinstance(answer, Applied)]


async def diff(settings: Settings, files: Iterable[str]) -> int:
    """Says what applying would change; FAILED where it would change anything."""
    output = Output(settings)
    async with wishes(settings, files) as them:
        answers = await check_all(them)
    differing = []
    for wish, answer in zip(them, answers, strict=True):
        tell_plan(output, wish.name, answer)
        differing.append(
            DifferingService(
                name=wish.name, node=wish.node, change=answer.change, fields=answer.fields, actions=answer.actions
            )
        )
    output.line(_summary(answers))
    output.document(DiffReport(services=tuple(differing)))
    same = all(answer.change is Change.UNCHANGED and not answer.actions for answer in answers)
    return ExitCode.DONE if same else ExitCode.FAILED


async def apply(
    settings: Settings, files: Iterable[str], *, dry_run: bool, wait: bool, within: float, component: str = ""
) -> int:
    """Makes definitions the desired state, then waits for them; see `mcp apply --help`."""
    output = Output(settings)
    async with wishes(settings, files, component) as them:
        if dry_run:
            return await plan(output, them)
        if len(them) > 1:
            await check_all(them)
        return await carry_out(output, them, wait=wait, within=within)


async def carry_out(output: Output, them: Sequence[Asked], *, wait: bool, within: float) -> int:
    """Hands all over, then waits for them as long as that; tells what became of each."""
    async with AsyncExitStack() as stack:
        followers = await _subscribe(stack, them) if wait else {}
        rollout = Rollout(output, followers)
        try:
            await rollout.submit(them)
            return await rollout.finish(within)
        except asyncio.CancelledError:
            rollout.say_that_it_goes_on()
            raise


async def plan(output: Output, them: Sequence[Wish]) -> int:
    """Says what handing them over would do, and does nothing."""
    answers = await check_all(them)
    for wish, answer in zip(them, answers, strict=True):
        tell_plan(output, wish.name, answer)
    output.line(_summary(answers))
    reports = (report(wish, answer) for wish, answer in zip(them, answers, strict=True))
    output.document(ApplyReport(dry_run=True, services=tuple(reports)))
    return ExitCode.DONE


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


def _summary(answers: Iterable[Applied]) -> str:
    changes = [answer.change for answer in answers]
    return (
        f"{changes.count(Change.CREATED)} to create, {changes.count(Change.CONFIGURED)} to change, "
        f"{changes.count(Change.UNCHANGED)} unchanged"
    )


async def _subscribe(stack: AsyncExitStack, them: Sequence[Asked]) -> dict[Client, Follower]:
    names: dict[Client, list[str]] = {}
    for wish in them:
        names.setdefault(wish.client, []).append(wish.name)
    return {
        client: await stack.enter_async_context(following(client, frozenset(wanted)))
        for client, wanted in names.items()
    }


class Rollout:
    """Definitions that were handed over, on their way to being true."""

    def __init__(self, output: Output, followers: dict[Client, Follower]) -> None:
        self._output = output
        self._followers = followers
        self._progress = Progress(output)
        self._submitted: dict[str, tuple[Asked, Applied]] = {}
        self._goals: dict[Client, dict[str, Goal]] = {client: {} for client in followers}
        self._ends: dict[str, tuple[Settled, float]] = {}

    async def submit(self, them: Sequence[Asked]) -> None:
        """Hands all over, in order, and tells what became of each. The first refusal ends it."""
        for follower in self._followers.values():
            follower.skip()
        for wish in them:
            started = time.monotonic()
            try:
                answer = await wish.submit()
            except McpError as error:
                raise self._with_what_was_done(error, them) from error
            self._submitted[wish.name] = (wish, answer)
            self._tell(wish.name, answer)
            self._await(wish, answer, started)

    def _tell(self, name: str, answer: Applied) -> None:
        if answer.change is Change.UNCHANGED:
            self._output.line(f"{name} unchanged")
            return
        self._output.line(f"{name} {answer.change} (generation {answer.service.generation})", style="green")
        if answer.change is Change.CONFIGURED:
            self._output.lines(field_line(change) for change in answer.fields)

    def _await(self, wish: Asked, answer: Applied, started: float) -> None:
        if wish.client not in self._followers:
            return
        service = answer.service
        goal = applied(service.uid, service.generation)
        verdict, message = goal(service)
        if answer.change is Change.UNCHANGED and verdict is Convergence.DONE:
            # It is already as it should be: there is nothing to wait for or to add.
            self._ends[wish.name] = (Settled(wish.name, End.DONE, message, service), 0.0)
            return
        self._goals[wish.client][wish.name] = goal
        self._progress.add(wish.name, service.generation, started=started)

    def _with_what_was_done(self, error: McpError, them: Sequence[Asked]) -> McpError:
        left = [wish.name for wish in them if wish.name not in self._submitted]
        if not self._submitted:
            return error
        words = f"not applied: {', '.join(left)}; applied before: {', '.join(self._submitted)}"
        if isinstance(error, InvalidManifest):
            first = error.problems[0]
            return InvalidManifest((*error.problems, Problem(first.source, first.line, "", words)))
        return type(error)(f"{error.message}\n{words}")

    async def finish(self, within: float) -> int:
        """Waits as long as `within` seconds allow, and tells the end of each service."""
        async with self._progress.shown():
            await asyncio.gather(*(self._settle(client, within) for client in self._followers))
        for name, (settled, seconds) in self._ends.items():
            if name in self._progress.tracks:
                self._tell_end(name, settled, seconds, within)
        self._output.document(ApplyReport(dry_run=False, services=tuple(map(self._report_of, self._submitted))))
        ends = {settled.end for settled, _ in self._ends.values()}
        if End.FAILED in ends:
            return ExitCode.FAILED
        return ExitCode.TIMED_OUT if End.TIMED_OUT in ends else ExitCode.DONE

    async def _settle(self, client: Client, within: float) -> None:
        goals = self._goals[client]
        answered = [self._submitted[name][1].service for name in goals]
        async for settled in settle(self._followers[client], goals, answered, within, self._progress.show):
            track = self._progress.settled(settled)
            self._ends[settled.name] = (settled, track.seconds)
            if not self._output.terminal:
                self._tell_end(settled.name, settled, track.seconds, within)

    def _tell_end(self, name: str, settled: Settled, seconds: float, within: float) -> None:
        track = self._progress.tracks[name]
        if "end" in track.told:
            return
        track.told.add("end")
        match settled.end:
            case End.DONE:
                self._output.line(f"{name} {_state(settled.service)} in {seconds:.2f}s", style="green")
            case End.FAILED:
                self._output.error(f"{name} failed: {settled.message}")
            case End.TIMED_OUT:
                self._output.error(
                    f"{name} timed out after {duration(within)}, waiting: {settled.message}; the rollout goes on"
                )

    def say_that_it_goes_on(self) -> None:
        """The last words of an interrupted apply."""
        under_way = [name for name in self._submitted if name not in self._ends]
        if under_way:
            self._output.error(
                f"interrupted: the rollout of {', '.join(under_way)} goes on; mcp status {under_way[0]} shows it"
            )

    def _report_of(self, name: str) -> AppliedService:
        wish, answer = self._submitted[name]
        settled, seconds = self._ends.get(name, (None, None))
        return report(wish, answer, settled, seconds)


def report(
    wish: Asked, answer: Applied, settled: Settled | None = None, seconds: float | None = None
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
