"""A steady load on one hostname: was each request answered, by which version, and how long after the one before."""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from pathlib import Path
from threading import Thread
from typing import Self

from benchmarks.clients import Http1, Http2

_PAUSE = 0.01
"""Seconds between an answer and the client's next request: a steady load, that leaves time for a switch."""
_PATIENCE = 10.0
_KEPT_ALIVE = 4
_STREAMS = 8
_TENTHS = 40
_LINES_FROM = b"v1."

Ask = Callable[[], Awaitable[str]]
"""One request; gives the version that answered. Raises OSError, EOFError or TimeoutError where none did."""


@dataclass
class Load:
    """Four HTTP/1.1 clients that keep their connections, eight HTTP/2 streams on one, and a download of four seconds.

    It goes on in a thread of its own for as long as `with` lasts, and the download. Times are time.perf_counter's.
    """

    address: tuple[str, int]
    hostname: str
    ca: Path
    failures: list[str] = field(default_factory=list)
    answers: list[list[tuple[float, str]]] = field(default_factory=list)
    """Of each client: when, and from which version."""
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _flows: Future[None] = field(default_factory=Future)

    def __enter__(self) -> Self:
        self._ends = asyncio.Event()
        self._thread = Thread(target=self._loop.run_until_complete, args=(self._run(),), name="load")
        self._thread.start()
        self._flows.result(_PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ends.set)
        self._thread.join()
        self._loop.close()

    @property
    def requests(self) -> int:
        """How many were made, the download among them."""
        return sum(map(len, self.answers)) + len(self.failures) + 1

    @property
    def longest_gap(self) -> float:
        """Between two answers of one client, in seconds."""
        return max(after[0] - before[0] for mine in self.answers for before, after in pairwise(mine))

    def switched_to(self, version: str) -> float:
        """When the last client had an answer of that version, and none of another one ever after."""
        return max(_first_of_the_last(mine, version) for mine in self.answers)

    def all_have(self, version: str) -> bool:
        """Whether that version gave each client its newest answer."""
        return all(mine[-1][1] == version for mine in self.answers)

    async def _run(self) -> None:
        streams = Http2(self._connect)
        kept_alive = [Http1(self._connect, self.hostname) for _ in range(_KEPT_ALIVE)]
        asks: list[Ask] = [*(client.ask for client in kept_alive), *[lambda: streams.ask(self.hostname)] * _STREAMS]
        self.answers += [[] for _ in asks]
        async with asyncio.TaskGroup() as group:
            download = group.create_task(self._download())
            for ask, mine in zip(asks, self.answers, strict=True):
                group.create_task(self._client(ask, mine, download))
        for client in kept_alive:
            client.close()
        await streams.close()

    async def _client(self, ask: Ask, mine: list[tuple[float, str]], download: asyncio.Task[None]) -> None:
        while not (self._ends.is_set() and download.done()):
            try:
                by = await asyncio.wait_for(ask(), _PATIENCE)
            except (OSError, EOFError, TimeoutError) as error:
                self.failures.append(repr(error))
            else:
                mine.append((time.perf_counter(), by))
            if not self._flows.done() and all(self.answers):
                self._flows.set_result(None)
            await asyncio.sleep(_PAUSE)

    async def _download(self) -> None:
        reader, writer = await self._connect("http/1.1")
        head = f"GET /cgi-bin/slow?{_TENTHS} HTTP/1.1\r\nHost: {self.hostname}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode())
        lines: list[bytes] = []
        with suppress(OSError):
            lines = (await reader.read()).splitlines()
        if (whole := sum(_LINES_FROM in line for line in lines)) != _TENTHS:
            self.failures.append(f"the download ended after {whole} of {_TENTHS} lines")
        writer.close()

    async def _connect(self, protocol: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        trusting = ssl.create_default_context(cafile=str(self.ca))
        trusting.set_alpn_protocols([protocol])
        return await asyncio.open_connection(*self.address, ssl=trusting, server_hostname=self.hostname)


def _first_of_the_last(answers: list[tuple[float, str]], version: str) -> float:
    return next(when for when, _ in reversed(list(takewhile(lambda one: one[1] == version, reversed(answers)))))
