"""Brings images, beside the reconcilers' workers: a pull may take minutes, and others must not wait for it.

Whoever lacks an image says so each time that it looks. It is told that the
image is on its way, or why it could not be brought, and is woken when that
changes.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from api.conditions import Reason, Status
from reconcilers.base import Terminal, Transient
from reconcilers.containers.podman import Engine, EngineError

_LOOK_AGAIN = timedelta(seconds=30)
"""Only a safety net: who waits is woken."""


@dataclass(slots=True)
class _Pull:
    running: bool = False
    failure: str = ""
    """Why the last attempt failed; empty before the first has ended."""
    waiting: set[str] = field(default_factory=set)
    """The services that are to be told how the attempt ended."""


class Pulls:
    """All pulls of one engine; each image is pulled once at a time, however many want it."""

    def __init__(self, engine: Engine, wake: Callable[[str], None]) -> None:
        """`wake` is called with the name of each service whose image came, or could not come for a new reason."""
        self._engine = engine
        self._wake = wake
        self._pulls: dict[str, _Pull] = {}
        self._wanted: asyncio.Queue[str] = asyncio.Queue()

    def miss(self, image: str, service: str) -> None:
        """Has an image brought that the engine lacks; to miss it again after a failure tries once more.

        Always raises: Transient while the first attempt runs, and from then on
        Terminal with the reason of the last one.
        """
        pull = self._pulls.setdefault(image, _Pull())
        untold = bool(pull.failure) and not pull.running and service in pull.waiting
        if untold:
            pull.waiting.discard(service)
        else:
            pull.waiting.add(service)
            self._begin(image, pull)
        if pull.failure:
            raise Terminal(Reason.IMAGE_PULL_FAILED, f"{image} cannot be pulled: {pull.failure}")
        message = f"the image {image} is being pulled"
        raise Transient(Reason.PROGRESSING, message, delay=_LOOK_AGAIN, status=Status.FALSE)

    async def run(self) -> None:
        """Pulls what is missed until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                image = await self._wanted.get()
                tasks.create_task(self._pull(image), name=f"pull-{image}")

    def _begin(self, image: str, pull: _Pull) -> None:
        if not pull.running:
            pull.running = True
            self._wanted.put_nowait(image)

    async def _pull(self, image: str) -> None:
        pull = self._pulls[image]
        try:
            await self._engine.pull(image)
        except (EngineError, Transient) as error:
            pull.running = False
            if error.message == pull.failure:
                # They know it already; each tries again when its backoff says so.
                pull.waiting.clear()
            pull.failure = error.message
        else:
            del self._pulls[image]
        for service in list(pull.waiting):
            self._wake(service)
