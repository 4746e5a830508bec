"""Brings images, beside the reconcilers' workers: a pull may take minutes, and others must not wait for it.

Whoever lacks an image says so each time that it looks. It is told how far the
image is on its way, or why it could not be brought, and is woken when that
changes.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NoReturn, Protocol

import structlog

from api.conditions import Reason, Status
from api.errors import RegistryUnavailable
from reconcilers.base import Clock, PulledImage, Terminal, Transient
from reconcilers.containers.engine.podman import Engine
from reconcilers.containers.engine.transport import EngineError, Failure
from reconcilers.containers.images.credentials import Credentials, CredentialsUnreadable
from reconcilers.containers.images.held import HeldImages
from reconcilers.containers.images.references import registry_of

log = structlog.get_logger("images")

_LOOK_AGAIN = timedelta(seconds=30)
"""Only a safety net: who waits is woken."""

_TELL_EVERY = 0.5
"""Seconds between two words on how far a pull is; one that is quicker needs none."""

_AT_ONCE = 4
"""Pulls from one registry side by side: one that hangs holds up its own images only."""

_SETTLED_FOR = 300.0
"""Seconds for which an answer serves the creation that it was asked for."""


class PullRegistry(Protocol):
    """Where it is written down what was brought."""

    async def record_image(self, image: PulledImage) -> None:
        """Notes an image that was brought. Raises RegistryUnavailable."""
        ...


@dataclass(slots=True)
class _Pull:
    running: bool = False
    anew: bool = False
    failure: str = ""
    """Why the last attempt failed; empty before the first has ended."""
    denied: bool = False
    """Whether the registry answered, and said no, or could not even be asked as the settings have it."""
    layers: int = 0
    stage: str = ""
    """How far the attempt is, in words."""
    bell: asyncio.TimerHandle | None = None
    waiting: set[str] = field(default_factory=set)
    """The services that are to be told how the attempt ended."""

    def hear(self, said: str) -> None:
        """Takes in a line of podman's: it tells of the beginning of each step, and of no bytes."""
        if said.startswith("Trying to pull"):
            self.layers, self.stage = 0, "waits for its registry"
        elif said.startswith("Copying blob"):
            self.layers += 1
            self.stage = f"{self.layers} layer{'s' if self.layers > 1 else ''} begun"
        elif said.startswith("Copying config"):
            self.stage = "all layers are here"


class Pulls:
    """All pulls of one engine; each image is pulled once at a time, however many want it."""

    def __init__(
        self,
        engine: Engine,
        held: HeldImages,
        registry: PullRegistry,
        credentials: Credentials,
        clock: Clock,
        wake: Callable[[str], None],
    ) -> None:
        """`wake` is called with the name of each service whose image came, comes nearer, or cannot come."""
        self._engine = engine
        self._held = held
        self._registry = registry
        self._credentials = credentials
        self._clock = clock
        self._wake = wake
        self._pulls: dict[str, _Pull] = {}
        self._wanted: asyncio.Queue[str] = asyncio.Queue()
        self._lanes: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_AT_ONCE))
        self._settled: dict[tuple[str, str], float] = {}

    def check(self, image: str, service: str) -> None:
        """Raises Transient while the image is on its way to the service."""
        pull = self._pulls.get(image)
        if pull is not None and pull.running and not pull.failure and service in pull.waiting:
            raise _progressing(image, pull)

    def miss(self, image: str, service: str, *, held: bool = False) -> NoReturn:
        """Has an image brought that the engine lacks, or asked for anew that it holds.

        To miss it again after a failure tries once more. Always raises:
        Transient while the first attempt runs, and from then on Terminal with
        the reason of the last one.
        """
        pull = self._pulls.setdefault(image, _Pull())
        if pull.failure and not pull.running and service in pull.waiting:
            pull.waiting.discard(service)
        else:
            if held and not pull.denied:
                # Nobody heard of the last failure: what is held was used instead.
                pull.failure = ""
            pull.waiting.add(service)
            self._begin(image, pull, held)
        if pull.failure:
            raise Terminal(Reason.IMAGE_PULL_FAILED, f"{image} cannot be pulled: {pull.failure}")
        raise _progressing(image, pull)

    def settled(self, image: str, service: str) -> bool:
        """Whether the registry was asked for the container that the service makes now."""
        at = self._settled.get((image, service))
        return at is not None and asyncio.get_running_loop().time() - at < _SETTLED_FOR

    def settle_without(self, image: str, service: str) -> str:
        """Why the registry did not answer the service, which then makes do with what is held; empty: it did."""
        pull = self._pulls.get(image)
        if pull is None or pull.running or pull.denied or not pull.failure or service not in pull.waiting:
            return ""
        pull.waiting.discard(service)
        self._settled[image, service] = asyncio.get_running_loop().time()
        return pull.failure

    def spend(self, image: str, service: str) -> None:
        """The container is made: the next one asks again."""
        self._settled.pop((image, service), None)

    async def ask(self, image: str) -> str:
        """Pulls what the reference stands for now, and returns its id; empty where that is under way already.

        Raises EngineError, Transient or CredentialsUnreadable.
        """
        known = self._pulls.get(image)
        return "" if known is not None and known.running else await self._fetch(image, _Pull(anew=True))

    async def run(self) -> None:
        """Pulls what is missed until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                image = await self._wanted.get()
                tasks.create_task(self._pull(image), name=f"pull-{image}")

    def _begin(self, image: str, pull: _Pull, anew: bool) -> None:
        if not pull.running:
            pull.running, pull.anew, pull.stage = True, anew, ""
            self._wanted.put_nowait(image)

    async def _pull(self, image: str) -> None:
        pull = self._pulls[image]
        try:
            await self._fetch(image, pull)
        except (EngineError, Transient, CredentialsUnreadable) as error:
            pull.running = False
            if error.message == pull.failure:
                # They know it already; each tries again when its backoff says so.
                pull.waiting.clear()
            pull.failure = error.message
            pull.denied = _is_a_no(error)
        else:
            del self._pulls[image]
            now = asyncio.get_running_loop().time()
            self._settled.update({(image, service): now for service in pull.waiting})
        if pull.bell is not None:
            pull.bell.cancel()
            pull.bell = None
        for service in list(pull.waiting):
            self._wake(service)

    async def _fetch(self, image: str, pull: _Pull) -> str:
        access = self._credentials.access(image)

        def said(line: str) -> None:
            pull.hear(line)
            if pull.bell is None:
                pull.bell = asyncio.get_running_loop().call_later(_TELL_EVERY, self._tell, pull)

        async with self._lanes[registry_of(image)]:
            before = await self._held.image(image)
            image_id = await self._engine.pull(image, access, said, anew=pull.anew)
            # Required: the engine's own word of it comes later than the next question.
            self._held.forget()
        if before is None or before.id != image_id:
            await self._record(image, image_id)
        return image_id

    def _tell(self, pull: _Pull) -> None:
        pull.bell = None
        for service in pull.waiting:
            self._wake(service)

    async def _record(self, image: str, image_id: str) -> None:
        now = self._clock()
        try:
            found = await self._held.image(image)
            digest = found.digest_in(image) if found else ""
            log.info("pulled", image=image, id=image_id, digest=digest)
            await self._registry.record_image(PulledImage(image, image_id, digest, now, now))
        except (EngineError, Transient, RegistryUnavailable) as error:
            # It is here all the same, and will never be taken for garbage.
            log.warning("pull_not_recorded", image=image, id=image_id, error=error.message)


def _is_a_no(error: EngineError | Transient | CredentialsUnreadable) -> bool:
    match error:
        case EngineError():
            return error.failure is Failure.DENIED
        case _:
            return isinstance(error, CredentialsUnreadable)


def _progressing(image: str, pull: _Pull) -> Transient:
    message = f"the image {image} is being pulled" + (f": {pull.stage}" if pull.stage else "")
    return Transient(Reason.PROGRESSING, message, delay=_LOOK_AGAIN, status=Status.FALSE)
