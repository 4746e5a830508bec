"""Hands wishes to agents, each service's to its own, the nodes side by side, and waits until they are true.

One that fails is told and is not the end of the others: one way for apply, sync,
delete, stop and whatever else changes what should be.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

from api.client import Client
from api.errors import ExitCode, InvalidSpec, McpError, NotFound, Refused, StaleGeneration
from api.service import Convergence, Service
from cli.connect import Answer, failures
from cli.output import Output
from cli.progress import Progress, Track
from cli.reports.common import Unasked
from cli.wait import End, Follower, Goal, Settled, following, settle

ABOUT_ONE = (InvalidSpec, Refused, StaleGeneration, NotFound)
"""What is wrong with one wish; all else is wrong with its node, and keeps that one's other wishes from being done."""


class Answered(Protocol):
    """What an agent answers to a wish."""

    @property
    def service(self) -> Service:
        """As it is after that."""
        ...


A_co = TypeVar("A_co", bound=Answered, covariant=True)
A = TypeVar("A", bound=Answered)


class Errand(Protocol[A_co]):
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
        """A connection to the agent. Raises Refused where there can be none."""
        ...

    async def submit(self) -> A_co:
        """Makes it the desired state."""
        ...


@dataclass(slots=True)
class Course(Generic[A]):
    """How far an errand is."""

    errand: Errand[A]
    error: McpError | None = None
    """Why it was not done."""
    label: str = ""
    """What people are told: the service's name, with its node where that alone tells two apart."""
    answer: A | None = None
    track: Track | None = None
    """None: there is nothing to wait for."""
    end: Settled | None = None
    seconds: float | None = None


class Handover(ABC, Generic[A]):
    """Errands on their way."""

    undone: ClassVar[str]
    """What is said of one that was not done: `not applied`."""
    steps: ClassVar[bool] = True
    """Whether conditions that turn true are steps of it."""

    def __init__(self, output: Output, courses: Sequence[Course[A]]) -> None:
        self.output = output
        self.courses = courses
        self.progress = Progress(output)
        label(courses)

    @abstractmethod
    def tell_answer(self, course: Course[A], answer: A) -> None:
        """Says what the agent answered."""

    @abstractmethod
    def goal(self, answer: A) -> Goal:
        """What is to be waited for."""

    @abstractmethod
    def tell_end(self, track: Track, end: Settled, within: float) -> None:
        """Says how the wait ended, which took as long as `within` seconds at most."""

    @abstractmethod
    def tell_interrupted(self, under_way: Sequence[str]) -> None:
        """Says that these go on."""

    @abstractmethod
    def report(self, unasked: tuple[Unasked, ...]) -> None:
        """Prints all of it, for programs."""

    async def run(self, *, wait: bool, within: float) -> int:
        """Hands all over, then waits as long as `within` seconds; the exit status. Raises the error of one alone."""
        nodes = by_node(self.courses)
        async with AsyncExitStack() as stack:
            try:
                handed = (self._hand_over(theirs, stack if wait else None) for theirs in nodes)
                followers = await asyncio.gather(*handed)
                unasked, status = undone(self.output, self.courses, self.undone)
                async with self.progress.shown():
                    waits = zip(followers, nodes, strict=True)
                    await asyncio.gather(*(self._settle(one, theirs, within) for one, theirs in waits if one))
            except asyncio.CancelledError:
                self._say_that_it_goes_on()
                raise
        if self.output.terminal:
            self._tell_ends(within)
        self.report(unasked)
        ends = {course.end.end for course in self.courses if course.end is not None}
        late = ExitCode.TIMED_OUT if End.TIMED_OUT in ends else ExitCode.DONE
        return status or (ExitCode.FAILED if End.FAILED in ends else late)

    async def _hand_over(self, theirs: Sequence[Course[A]], stack: AsyncExitStack | None) -> Follower | None:
        """Hands one node's over, in order, and follows them where there is a `stack`."""
        left = [course for course in theirs if course.error is None]
        follower = None
        try:
            if left and stack is not None:
                names = frozenset(course.errand.name for course in left)
                follower = await stack.enter_async_context(following(left[0].errand.client, names))
                follower.skip()
            for course in left:
                await self._submit(course, wait=stack is not None)
        except McpError as error:
            for course in left:
                if course.answer is None:
                    course.error = course.error or error
        return follower

    async def _submit(self, course: Course[A], *, wait: bool) -> None:
        started = time.monotonic()
        try:
            course.answer = answer = await course.errand.submit()
        except ABOUT_ONE as error:
            course.error = error
            return
        self.tell_answer(course, answer)
        verdict, message = self.goal(answer)(answer.service)
        if verdict is Convergence.DONE:
            # It is already as it should be: there is nothing to wait for or to add.
            course.end, course.seconds = Settled(course.errand.name, End.DONE, message, answer.service), 0.0
        elif wait:
            course.track = self.progress.add(course.label, answer.service.generation, started=started, steps=self.steps)

    async def _settle(self, follower: Follower, theirs: Iterable[Course[A]], within: float) -> None:
        waiting = {one.errand.name: (one, one.track, one.answer) for one in theirs if one.track and one.answer}
        goals = {name: self.goal(answer) for name, (_, _, answer) in waiting.items()}
        answered = [answer.service for _, _, answer in waiting.values()]

        def show(service: Service, awaited: str) -> None:
            self.progress.show(waiting[service.name][1], service, awaited)

        def end(settled: Settled) -> None:
            course, track, _ = waiting[settled.name]
            self.progress.settled(track, settled)
            course.end, course.seconds = settled, track.seconds
            if not self.output.terminal:
                self.tell_end(track, settled, within)

        try:
            async for settled in settle(follower, goals, answered, within, show):
                end(settled)
        except McpError as error:  # as of a token that ended meanwhile
            for name in [name for name, (course, _, _) in waiting.items() if course.end is None]:
                end(Settled(name, End.FAILED, error.message))

    def _tell_ends(self, within: float) -> None:
        for course in self.courses:
            if course.track is not None and course.end is not None:
                self.tell_end(course.track, course.end, within)

    def _say_that_it_goes_on(self) -> None:
        under_way = [course.label for course in self.courses if course.answer is not None and course.end is None]
        if under_way:
            self.tell_interrupted(under_way)


def label(courses: Iterable[Course[A]]) -> None:
    """Has each called so that people can tell it from the others."""
    courses = list(courses)
    names = Counter(course.errand.name for course in courses)
    for course in courses:
        name = course.errand.name
        course.label = name if names[name] == 1 else f"{course.errand.node}/{name}"


def by_node(courses: Iterable[Course[A]]) -> Sequence[Sequence[Course[A]]]:
    """The same, those of each node together."""
    found: dict[str, list[Course[A]]] = {}
    for course in courses:
        found.setdefault(course.errand.node, []).append(course)
    return list(found.values())


def undone(output: Output, courses: Sequence[Course[A]], what: str) -> tuple[tuple[Unasked, ...], int]:
    """Tells which are `what` (`not applied`), and why; them, and the exit status. Raises the error of one alone."""
    if len(courses) == 1 and courses[0].error is not None:
        raise courses[0].error
    answers: list[Answer[None]] = [Answer(one.errand.node, error=one.error, service=one.errand.name) for one in courses]
    return failures(output, answers, what)
