"""Sees to it that a container's image is here before the container is made, as its pull policy has it.

What a tag stands for is asked again and again where a definition wants that
(`pull = "newer"`), one question for each reference, however many use it.
"""

import asyncio
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from api.conditions import Reason
from api.resolve import Defaults
from api.spec import PullPolicy
from reconcilers.base import Clock, Terminal, Transient
from reconcilers.containers.engine.podman import Engine
from reconcilers.containers.engine.transport import EngineError
from reconcilers.containers.images.collection import CollectionSettings, Collector, ImageRegistry
from reconcilers.containers.images.credentials import Credentials, CredentialsUnreadable
from reconcilers.containers.images.held import HeldImages
from reconcilers.containers.images.pulls import PullRegistry, Pulls
from reconcilers.containers.images.references import LocalImage
from reconcilers.containers.watching.picture import Picture

log = structlog.get_logger("images")


class ImagesRegistry(PullRegistry, ImageRegistry, Protocol):
    """What is known of the images that were brought."""


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """How images come and go. Times are in seconds."""

    credentials: Credentials = field(default_factory=lambda: Credentials({}))
    check: float = 300.0
    """Between two questions what a tag stands for."""
    collection: CollectionSettings = field(default_factory=CollectionSettings)


class Images:
    """The images of one engine. `run` does what takes its time; everything else may be called at any time."""

    def __init__(
        self,
        engine: Engine,
        picture: Picture,
        registry: ImagesRegistry,
        defaults: Defaults,
        settings: ImageSettings,
        clock: Clock,
        wake: Callable[[str], None],
    ) -> None:
        """`wake` is called with the name of each service that must be looked at again."""
        self._held = HeldImages(engine, picture)
        self._settings = settings
        self._wake = wake
        self._pulls = Pulls(engine, self._held, registry, settings.credentials, clock, wake)
        self._collector = Collector(engine, picture, registry, defaults, settings.collection, clock)
        self._newest: dict[str, str] = {}
        self._wanted_by: dict[str, set[str]] = {}
        self._watched: set[str] = set()
        self._to_watch: asyncio.Queue[str] = asyncio.Queue()

    async def obtain(self, service: str, reference: str, policy: PullPolicy) -> LocalImage:
        """The image for a container that is made next.

        Raises Transient while it is on its way, Terminal where it cannot be had.
        """
        self._pulls.check(reference, service)
        try:
            image = await self._held.image(reference)
        except EngineError as error:
            raise Transient(Reason.ENGINE_ERROR, error.message) from error
        if image is None and policy is PullPolicy.NEVER:
            message = f'{reference} is not on the node, and its definition says pull = "never"'
            raise Terminal(Reason.IMAGE_PULL_FAILED, message)
        if image is None or (policy is PullPolicy.ALWAYS and not self._may_use(reference, service)):
            self._pulls.miss(reference, service, held=image is not None)
        if reference in self._newest:
            # Required: what the container is made of now is no drift, whoever tagged it.
            self._newest[reference] = image.id
        return image

    def used(self, service: str, reference: str) -> None:
        """The container for which the image was obtained is made."""
        self._pulls.spend(reference, service)

    def wants_newer(self, service: str) -> frozenset[str]:
        """The references of which the registries are asked for this service."""
        return frozenset(reference for reference, services in self._wanted_by.items() if service in services)

    def want_newer(self, service: str, references: Collection[str]) -> None:
        """Has the registries asked from now on what these references stand for, and others not for this service."""
        # What a digest stands for never changes.
        references = [reference for reference in references if "@" not in reference]
        for reference, services in list(self._wanted_by.items()):
            services.discard(service)
            if not services and reference not in references:
                del self._wanted_by[reference]
                self._newest.pop(reference, None)
        for reference in references:
            self._wanted_by.setdefault(reference, set()).add(service)
            if reference not in self._watched:
                self._watched.add(reference)
                self._to_watch.put_nowait(reference)

    def newest(self) -> Mapping[str, str]:
        """The id of the image that each of these references stands for, where that was asked and answered."""
        return dict(self._newest)

    async def run(self) -> None:
        """Pulls, asks and collects until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pulls.run(), name="pulls")
            tasks.create_task(self._collector.run(), name="image-collector")
            while True:
                reference = await self._to_watch.get()
                tasks.create_task(self._watch(reference), name=f"watch-{reference}")

    def _may_use(self, reference: str, service: str) -> bool:
        """Whether the registry was asked for this very container, or does not answer."""
        if self._pulls.settled(reference, service):
            return True
        why = self._pulls.settle_without(reference, service)
        if why:
            log.warning("registry_does_not_answer", image=reference, service=service, error=why, used="what is here")
        return bool(why)

    async def _watch(self, reference: str) -> None:
        told = ""
        while reference in self._wanted_by:
            # Spread, so that a node's questions do not all come at once.
            await asyncio.sleep(self._settings.check * random.uniform(0.8, 1.2))  # noqa: S311
            if reference in self._wanted_by:
                told = await self._ask(reference, told)
        self._watched.discard(reference)

    async def _ask(self, reference: str, told: str) -> str:
        """Asks once; returns why that failed, which is logged where it is news."""
        try:
            image_id = await self._pulls.ask(reference)
        except (EngineError, Transient, CredentialsUnreadable) as error:
            if error.message != told:
                log.warning("newer_image_not_known", image=reference, error=error.message)
            return error.message
        if image_id and reference in self._wanted_by and self._newest.get(reference) != image_id:
            self._newest[reference] = image_id
            for service in self._wanted_by[reference]:
                self._wake(service)
        return ""
