"""Removes images that MCP brought and nobody uses any more: old ones, but for the last few of each repository.

What is removed is decided purely, of one look at the containers, the images,
the definitions and the records. Where one of these is unknown, nothing is
removed. An image goes by its id and without force: the engine itself refuses
what somebody began to use meanwhile.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import structlog

from api.errors import InvalidSpec, RegistryUnavailable
from api.resolve import Defaults, resolve
from api.service import Service
from reconcilers.base import Clock, PulledImage, Transient
from reconcilers.containers.engine.podman import Engine
from reconcilers.containers.engine.transport import EngineError
from reconcilers.containers.images.references import LocalImage, is_called, repository_of
from reconcilers.containers.watching.picture import Picture

log = structlog.get_logger("images")


@dataclass(frozen=True, slots=True)
class CollectionSettings:
    """What is kept."""

    keep: timedelta = timedelta(days=7)
    """An image that was in use so lately."""
    keep_last: int = 2
    """So many unused images of each repository, for a rollback."""
    every: float = 3600.0
    """Seconds between two looks."""


class ImageRegistry(Protocol):
    """The records. Every method raises RegistryUnavailable."""

    async def services(self) -> tuple[Service, ...]:
        """All services of the node."""
        ...

    async def pulled_images(self) -> tuple[PulledImage, ...]:
        """The images that this node's MCP brought, the one brought last first."""
        ...

    async def images_in_use(self, image_ids: Collection[str]) -> None:
        """Notes that these are in use now."""
        ...

    async def forget_images(self, image_ids: Collection[str]) -> None:
        """Drops the records of images that are gone."""
        ...


@dataclass(frozen=True, slots=True)
class Look:
    """All that the decision depends on."""

    brought: Sequence[PulledImage]
    """The one brought last first."""
    held: Sequence[LocalImage]
    running: frozenset[str]
    """The ids of the images of which there are containers."""
    wanted: frozenset[str]
    """The references that definitions name."""

    @property
    def in_use(self) -> frozenset[str]:
        """The ids of the images that containers are made of, or will be."""
        named = {i.id for i in self.held for name in i.names if any(is_called(name, w) for w in self.wanted)}
        # A reference by digest is no name of its image; the record knows what it stands for.
        latest = {image.reference: image.image_id for image in reversed(self.brought) if image.reference in self.wanted}
        return self.running | named | frozenset(latest.values())


def collectable(look: Look, settings: CollectionSettings, now: datetime) -> tuple[LocalImage, ...]:
    """The images to remove: brought by us, in no use, not of late, known by no name but ours, not among the last."""
    in_use = look.in_use
    last_used: dict[str, tuple[datetime, datetime]] = {}
    references: dict[str, set[str]] = {}
    for record in look.brought:
        times = (record.used_at, record.pulled_at)
        last_used[record.image_id] = max(times, last_used.get(record.image_id, times))
        references.setdefault(record.image_id, set()).add(record.reference)
    unused = [i for i in look.held if i.id in references and i.id not in in_use and _is_ours(i, references[i.id])]
    kept: Counter[str] = Counter()
    removed = []
    for image in sorted(unused, key=lambda image: last_used[image.id], reverse=True):
        repositories = {repository_of(reference) for reference in references[image.id]}
        spare = all(kept[repository] >= settings.keep_last for repository in repositories)
        kept.update(repositories)
        if spare and now - last_used[image.id][0] > settings.keep:
            removed.append(image)
    return tuple(removed)


def _is_ours(image: LocalImage, references: Iterable[str]) -> bool:
    return all(any(is_called(name, reference) for reference in references) for name in image.names)


class Collector:
    """Looks again and again."""

    def __init__(
        self,
        engine: Engine,
        picture: Picture,
        registry: ImageRegistry,
        defaults: Defaults,
        settings: CollectionSettings,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._picture = picture
        self._registry = registry
        self._defaults = defaults
        self._settings = settings
        self._clock = clock

    async def run(self) -> None:
        """Collects until it is cancelled."""
        while True:
            await asyncio.sleep(self._settings.every * random.uniform(0.8, 1.2))  # noqa: S311
            try:
                await self._collect()
            except (EngineError, Transient, RegistryUnavailable) as error:
                log.warning("images_not_collected", error=error.message)

    async def _collect(self) -> None:
        brought = await self._registry.pulled_images()
        if not brought:
            return
        look = await self._look(brought)
        known = {image.image_id for image in brought}
        await self._registry.images_in_use(known & look.in_use)
        gone = known - {image.id for image in look.held}
        for image in collectable(look, self._settings, self._clock()):
            if await self._remove(image):
                gone.add(image.id)
        if gone:
            await self._registry.forget_images(gone)

    async def _look(self, brought: Sequence[PulledImage]) -> Look:
        # The containers come last: one that is being made meanwhile is seen, or its definition was.
        wanted = self._wanted(await self._registry.services())
        held = await self._engine.images()
        running = frozenset(container.image_id for container in await self._picture.refresh())
        return Look(brought, held, running, wanted)

    def _wanted(self, services: Iterable[Service]) -> frozenset[str]:
        wanted: set[str] = set()
        for service in services:
            if service.deleting:
                continue
            wanted |= {component.image for component in service.spec.components if component.image}
            try:
                wanted |= {component.image for component in resolve(service.spec, self._defaults).components}
            except InvalidSpec:
                continue  # nothing is made of what cannot be resolved
        return frozenset(wanted)

    async def _remove(self, image: LocalImage) -> bool:
        try:
            for name in image.names[1:]:
                await self._engine.untag(image.id, name)
            await self._engine.remove_image(image.id)
        except EngineError as error:
            log.info("image_not_removed", id=image.id, names=image.names, error=error.message)
            return False
        log.info("image_removed", id=image.id, names=image.names, cause="nothing used it for long")
        return True
