"""What can be asked of an agent: one protocol for the client, the server and the controller."""

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from api.service import Change, Container, Event, FieldChange, NodeStatus, PlannedAction, Revision, Service
from api.spec import ServiceSpec

DEFAULT_EVENTS = 100
DEFAULT_LOOK_SECONDS = 30.0
"""So long `reconcile` may take to answer."""
DRAINED = "drained with its node"
"""The note of a revision that has a service stopped for its node's sake: `mcp node undrain` starts it again."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The answer to an apply."""

    service: Service
    """As it is after the write; in a dry run, as it would be."""
    change: Change
    fields: tuple[FieldChange, ...] = ()
    actions: tuple[PlannedAction, ...] = ()
    """What the reconcilers would do, in order; in a dry run only."""
    notes: tuple[str, ...] = ()
    """Of a rollback: what does not come back, each in one sentence."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """The answer to a delete."""

    service: Service
    actions: tuple[PlannedAction, ...] = ()
    """What the reconcilers would do, in order; in a dry run only."""


@dataclass(frozen=True, slots=True)
class Looked:
    """The answer of the reconcilers that looked at a service."""

    service: Service
    """With the conditions that they found."""
    late: tuple[str, ...] = ()
    """The reconcilers that have not looked in time; they will."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """The answer to an adoption."""

    service: Service
    """As it is after the write; in a dry run, as it would be."""
    containers: tuple[str, ...]
    """The names of those that were taken over."""
    notes: tuple[str, ...] = ()
    """What podman does not tell, and what will be otherwise, each in one sentence."""


@dataclass(frozen=True, slots=True)
class Watched:
    """One message of a watch: exactly one of its fields is set."""

    service: Service | None = None
    deleted: str = ""
    """The name of a service that is gone."""
    synced: bool = False
    """The snapshot is complete; what follows are changes."""


class ControlPlane(Protocol):
    """The agent's API. All methods raise errors of api.errors."""

    async def apply(
        self,
        spec: ServiceSpec,
        *,
        actor: str,
        dry_run: bool = False,
        expected_generation: int | None = None,
        component: str = "",
    ) -> Applied:
        """Stores a definition as desired state; see ApplyService in control_plane.proto."""
        ...

    async def delete(
        self, name: str, *, actor: str, dry_run: bool = False, expected_generation: int | None = None
    ) -> Deleted:
        """Marks a service for deletion. Raises NotFound."""
        ...

    async def suspend(self, name: str, *, actor: str, reason: str = "") -> Looked:
        """Has a service left alone; nothing is done to it any more but by those that are late. Raises NotFound."""
        ...

    async def resume(self, name: str, *, actor: str) -> Service:
        """Has a service converged again. Raises NotFound."""
        ...

    async def reconcile(self, name: str, *, within: float = DEFAULT_LOOK_SECONDS) -> Looked:
        """Has all reconcilers look at a service, and answers when they did, or after that many seconds."""
        ...

    async def set_active(self, name: str, component: str = "", *, active: bool, actor: str, note: str = "") -> Applied:
        """Has a service, or one component of it, run or be kept stopped. Raises NotFound."""
        ...

    async def restart(self, name: str, component: str = "", *, actor: str) -> Service:
        """Has containers made anew. Raises NotFound, and Refused where they are stopped."""
        ...

    async def revisions(self, name: str) -> tuple[Revision, ...]:
        """What a service was to be, oldest first. Raises NotFound."""
        ...

    async def rollback(self, name: str, generation: int = 0, *, actor: str, dry_run: bool = False) -> Applied:
        """Makes an earlier revision (0: the last that was defined otherwise) the desired state. Raises NotFound."""
        ...

    async def adopt(
        self,
        name: str,
        containers: Mapping[str, str],
        routes: Mapping[str, str],
        *,
        actor: str,
        dry_run: bool = False,
    ) -> Adopted:
        """Takes over containers that run without a definition; see AdoptService. Raises NotFound, Refused."""
        ...

    async def get(self, name: str) -> Service:
        """One service. Raises NotFound."""
        ...

    async def services(self) -> tuple[Service, ...]:
        """All services of the node, by name."""
        ...

    def watch(self, names: Collection[str] = ()) -> AsyncIterator[Watched]:
        """The services (empty: all) as they are, `synced`, then each change; never ends by itself."""
        ...

    async def events(self, service: str = "", *, limit: int = DEFAULT_EVENTS) -> tuple[Event, ...]:
        """The newest events, newest last."""
        ...

    def watch_events(self, service: str = "", *, after_id: int = 0) -> AsyncIterator[Event]:
        """The events after that one (0: from now on); never ends by itself."""
        ...

    async def containers(self) -> tuple[Container, ...]:
        """Every container on the node, ours or not."""
        ...

    async def node_status(self) -> NodeStatus:
        """The agent and what it depends on."""
        ...

    async def set_drained(self, drained: bool, *, actor: str) -> None:
        """Has what is applied to the node stored and not started, or no longer. What runs is not touched."""
        ...
