"""What the containers of a service wrote, and on over their restarts and replacements.

The engine's log of one container ends with the container, and is one stream
with frames; the picture tells which containers there are. Whoever is slow to
take lines stops the reading of them: nothing is heaped up but a few pieces,
and nobody else waits.
"""

import asyncio
import re
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from api.errors import Refused
from api.inspection import ALL_LINES, LogLine, LogQuery, LogStream
from reconcilers.base import Transient
from reconcilers.containers.engine.podman import Engine
from reconcilers.containers.engine.transport import EngineError, Failure
from reconcilers.containers.model import ContainerObservation, Observation
from reconcilers.containers.watching.picture import Picture

_FRAME: Final = struct.Struct(">B3xI")
"""Before each piece: its stream, and its length."""

_MOST_FRAME: Final = 1 << 20
_MOST_LINE: Final = 1 << 16
"""Bytes. A longer line is passed on in several."""

_PIECE: Final = 1 << 16
_WAITING: Final = 16
"""Pieces that may wait for a caller who is slow."""

_GATHERING: Final = 0.1
"""Seconds in which the beginnings of several logs come in, to be put in the order in which they were written."""

_ANOTHER_TRY: Final = 1.0
"""Seconds after a log broke off though its container did not."""

_TIME: Final = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,6})?\d*(Z|[+-]\d\d:\d\d) ")

_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)

Lines = tuple[LogLine, ...]


class Frames:
    """Takes a multiplexed log apart as it comes; `feed` gives the lines that are complete by now."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._open: dict[LogStream, tuple[datetime | None, bytes]] = {}

    def feed(self, data: bytes) -> list[tuple[LogStream, datetime | None, bytes]]:
        """The lines that end in `data`. Raises EngineError where it is no log."""
        self._bytes += data
        lines = []
        at = 0
        while at + _FRAME.size <= len(self._bytes):
            number, length = _FRAME.unpack_from(self._bytes, at)
            if number > 2 or length > _MOST_FRAME:
                raise EngineError(Failure.GARBLED, "what podman calls a log is none")
            end = at + _FRAME.size + length
            if end > len(self._bytes):
                break
            stream = LogStream.STDERR if number == 2 else LogStream.STDOUT
            lines += self._joined(stream, bytes(self._bytes[at + _FRAME.size : end]))
            at = end
        del self._bytes[:at]
        return lines

    def rest(self) -> list[tuple[LogStream, datetime | None, bytes]]:
        """The lines that were begun and never ended."""
        return [(stream, *begun) for stream, begun in self._open.items()]

    def _joined(self, stream: LogStream, frame: bytes) -> list[tuple[LogStream, datetime | None, bytes]]:
        """The engine cuts long lines into frames of which only the last ends in a newline."""
        when, text = _dated(frame)
        began, before = self._open.pop(stream, (when, b""))
        text = before + text
        if text.endswith(b"\n"):
            return [(stream, began, text[:-1])]
        if len(text) >= _MOST_LINE:
            return [(stream, began, text)]
        self._open[stream] = (began, text)
        return []


def _dated(frame: bytes) -> tuple[datetime | None, bytes]:
    found = _TIME.match(frame)
    if found is None:
        return None, frame
    second, fraction, zone = found.groups(b"")
    with suppress(ValueError):
        return datetime.fromisoformat((second + fraction + zone).decode()), frame[found.end() :]
    return None, frame


@dataclass(slots=True)
class Place:
    """How far a log was read: the engine tells times in seconds, and many lines may have the same."""

    at: datetime | None = None
    count: int = 0
    """Lines with that time."""
    total: int = 0
    opened: datetime | None = None
    """Where it was there when the caller came: what was written before then is none of what is new."""

    def passed(self, when: datetime | None) -> None:
        """One line more was read."""
        self.count = self.count + 1 if when == self.at else 1
        self.at = when
        self.total += 1


@dataclass(slots=True)
class Again:
    """Leaves out what was read before, when a log is read again from the second at which it was left."""

    at: datetime | None
    left: float

    @classmethod
    def after(cls, place: Place, asked: int) -> "Again":
        """From that place on. Where the first lines were left out within that very second, all of it counts as read."""
        began_within = place.total == place.count and place.total >= asked
        return cls(place.at, float("inf") if began_within else place.count)

    def is_new(self, when: datetime | None) -> bool:
        """Whether the next line has not been read before."""
        if self.at is None or when is None or when > self.at:
            return True
        if when == self.at and self.left <= 0:
            return True
        self.left -= when == self.at
        return False


@dataclass(slots=True)
class _Followed:
    """One caller's view of a service's containers."""

    queue: asyncio.Queue[Lines | Exception | None] = field(default_factory=lambda: asyncio.Queue(_WAITING))
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    places: dict[str, Place] = field(default_factory=dict)
    lives: dict[str, object] = field(default_factory=dict)
    """The life of each container whose log was read to its end, or is being read."""
    pumps: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def notice(self, _: Observation | None, after: Observation | None) -> None:
        if after is None:
            # All logs break off with the engine, whatever their containers do.
            self.lives.clear()
        self.changed.set()


class Logs:
    """The logs of one node's containers."""

    def __init__(self, engine: Engine, picture: Picture, node: str) -> None:
        self._engine = engine
        self._picture = picture
        self._node = node

    async def read(self, query: LogQuery, over: asyncio.Event) -> AsyncGenerator[Lines, None]:
        """The lines that are asked for, as many at once as there are; to follow ends when `over` is set.

        Raises Refused with the engine's reason, and Transient where it cannot be asked.
        """
        containers = self._wanted(await self._picture.known(), query)
        try:
            if query.follow:
                async with aclosing(self._follow(query, over)) as batches:
                    async for batch in batches:
                        yield batch
            else:
                logs = [self._lines(container, query, Place(), first=True) for container in containers]
                async for batch in merged(logs):
                    yield batch
        except EngineError as error:
            raise Refused(f"podman does not give the log: {error.message}") from error

    def _wanted(self, observation: Observation, query: LogQuery) -> list[ContainerObservation]:
        return [
            container
            for container in observation.owned(self._node, query.service)
            if container.started_at is not None and query.component in ("", container.component)
        ]

    async def _lines(
        self, container: ContainerObservation, query: LogQuery, place: Place, *, first: bool
    ) -> AsyncGenerator[Lines, None]:
        # Only what was there when the caller came is left out beyond the lines that were asked for.
        again = Again.after(place, query.lines if place.opened is not None else ALL_LINES)
        # Earlier by one second: whether the engine means "since" to include it depends on its version.
        since = again.at - timedelta(seconds=1) if again.at else query.since if first else place.opened
        # Required: podman 4 cuts what it finds from the end of a log, long lines and unended ones among it.
        tail = query.lines if first and query.lines < ALL_LINES else None
        frames = Frames()
        async with self._engine.logs(container.id, follow=query.follow, tail=tail, since=since) as reader:
            while data := await reader.read(_PIECE):
                if batch := self._new(container, frames.feed(data), again, place):
                    yield batch
        if batch := self._new(container, frames.rest(), again, place):
            yield batch

    @staticmethod
    def _new(
        container: ContainerObservation,
        found: Iterable[tuple[LogStream, datetime | None, bytes]],
        again: Again,
        place: Place,
    ) -> Lines:
        lines = []
        for stream, when, text in found:
            if again.is_new(when):
                place.passed(when)
                lines.append(
                    LogLine(component=container.component, container=container.name, stream=stream, at=when, text=text)
                )
        return tuple(lines)

    async def _follow(self, query: LogQuery, over: asyncio.Event) -> AsyncGenerator[Lines, None]:
        followed = _Followed()
        self._picture.listen(followed.notice)
        tasks = [
            asyncio.create_task(self._attend(query, followed), name="logs-attend"),
            asyncio.create_task(_end(over, followed.queue), name="logs-end"),
        ]
        try:
            await asyncio.sleep(_GATHERING)
            while True:
                found = [await followed.queue.get()]
                while not followed.queue.empty():
                    found.append(followed.queue.get_nowait())
                yield in_order(lines for lines in found if isinstance(lines, tuple))
                for failure in (one for one in found if isinstance(one, Exception)):
                    raise failure
                if None in found:
                    return
        finally:
            self._picture.forget(followed.notice)
            tasks += followed.pumps.values()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _attend(self, query: LogQuery, followed: _Followed) -> None:
        """Has each container's log read that is not, until the caller goes."""
        first = True
        while True:
            with suppress(Transient):  # the picture says when the engine is back
                for container in self._wanted(self._picture.current(), query):
                    life = (container.state, container.pid, container.started_at, container.ended_at)
                    if container.id not in followed.pumps and followed.lives.get(container.id) != life:
                        followed.lives[container.id] = life
                        pump = self._pump(container, query, followed, first=first)
                        followed.pumps[container.id] = asyncio.create_task(pump, name="logs-pump")
            first = False
            await followed.changed.wait()
            followed.changed.clear()

    async def _pump(
        self, container: ContainerObservation, query: LogQuery, followed: _Followed, *, first: bool
    ) -> None:
        place = followed.places.setdefault(container.id, Place(opened=datetime.now(UTC) if first else None))
        try:
            async with aclosing(self._lines(container, query, place, first=first)) as batches:
                async for batch in batches:
                    await followed.queue.put(batch)
        except EngineError as error:
            if error.failure is not Failure.NO_SUCH_CONTAINER:
                await followed.queue.put(error)
        except (Transient, OSError):
            await asyncio.sleep(_ANOTHER_TRY)
            followed.lives.pop(container.id, None)
        finally:
            del followed.pumps[container.id]
            followed.changed.set()


async def _end(over: asyncio.Event, queue: asyncio.Queue[Lines | Exception | None]) -> None:
    await over.wait()
    await queue.put(None)


def in_order(batches: Iterable[Lines]) -> Lines:
    """All the lines by their times; those with the same stay as they came."""
    return tuple(sorted((line for batch in batches for line in batch), key=lambda line: line.at or _EARLIEST))


async def _piece(source: AsyncGenerator[Lines, None]) -> list[LogLine]:
    """The next piece; empty where it was the last."""
    async for lines in source:
        return list(lines)
    return []


async def merged(logs: Iterable[AsyncGenerator[Lines, None]]) -> AsyncIterator[Lines]:
    """Several logs as one, by time: of each no more than one piece is held."""
    sources = list(logs)
    heads: list[list[LogLine]] = []
    try:
        heads = [await _piece(source) for source in sources]
        while any(heads):
            index = min((i for i, head in enumerate(heads) if head), key=lambda i: heads[i][0].at or _EARLIEST)
            others = [head[0].at or _EARLIEST for i, head in enumerate(heads) if head and i != index]
            limit = min(others, default=None)
            head = heads[index]
            count = next((i for i, line in enumerate(head) if limit and (line.at or _EARLIEST) > limit), len(head))
            yield tuple(head[:count])
            heads[index] = head[count:] or await _piece(sources[index])
    finally:
        for source in sources:
            await source.aclose()
