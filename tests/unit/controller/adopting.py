"""Containers in memory that can be looked at and renamed, as an adoption needs it."""

from dataclasses import replace
from typing import Any

from reconcilers.containers.engine.adoptions import Adoptions
from reconcilers.containers.engine.transport import EngineError, Failure
from reconcilers.containers.guard import Guard
from reconcilers.containers.model import ContainerObservation, Observation
from reconcilers.containers.policy import Ground, Policy
from reconcilers.routes.model import Listing, ProxyRoute

ADMITS = Guard(Policy(), Ground("/srv"))
"""What is allowed where the settings say nothing."""


class Running:
    """An engine, its picture, and a proxy's table in one."""

    def __init__(self) -> None:
        self.adoptions = Adoptions()
        self.seen: dict[str, ContainerObservation] = {}
        self.inspections: dict[str, dict[str, Any]] = {}
        self.images: dict[str, dict[str, Any]] = {}
        self.routes: list[ProxyRoute] = []
        self.stuck: str = ""
        """A container that cannot be renamed."""

    def put(self, seen: ContainerObservation, inspection: dict[str, Any], image: dict[str, Any]) -> None:
        """Has a container run."""
        self.seen[seen.id] = seen
        self.inspections[seen.id] = inspection
        self.images[inspection["Image"]] = image

    async def refresh(self, *ids: str) -> Observation:  # all are looked at
        return self.adoptions.labelled(Observation(dict(self.seen)))

    async def inspect(self, container_id: str) -> dict[str, Any]:
        return self.inspections[container_id]

    async def inspect_image(self, image: str) -> dict[str, Any]:
        return self.images[image]

    async def rename(self, container_id: str, name: str) -> None:
        if container_id == self.stuck:
            raise EngineError(Failure.REFUSED, "it is stuck")
        self.seen[container_id] = replace(self.seen[container_id], name=name)

    async def listing(self) -> Listing:
        return Listing(frozenset(), {route.key: route for route in self.routes})
