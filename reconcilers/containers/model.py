"""What the engine says of its containers, as frozen values: the reconciler's view of the world.

Everything MCP must know of a container later is in its labels, so that a
registry that was lost, or an agent that was killed, finds its own again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from api.fields import RESERVED_LABELS
from api.service import ContainerState, ServedPort

MANAGER: Final = "mcp-agent"

MANAGED_BY: Final = f"{RESERVED_LABELS}managed-by"
NODE: Final = f"{RESERVED_LABELS}node"
SERVICE: Final = f"{RESERVED_LABELS}service"
COMPONENT: Final = f"{RESERVED_LABELS}component"
GENERATION: Final = f"{RESERVED_LABELS}generation"
SPEC_HASH: Final = f"{RESERVED_LABELS}spec-hash"
SECRET_VARIABLES: Final = f"{RESERVED_LABELS}secret-variables"
"""`VARIABLE=secret` of podman's, joined by commas; absent where there are none. podman tells their values, not that."""
SECRET_ENV: Final = f"{RESERVED_LABELS}secret-env"
"""The names of the variables whose values are shown to nobody, joined by commas; absent where there are none."""
FIELDS: Final = f"{RESERVED_LABELS}fields"
"""A short hash of each field of the request: tells what changed when the spec hash differs."""
ROUTES: Final = f"{RESERVED_LABELS}routes"
"""The port of each route on the host, and inside where that is another: `default=10001,grpc=10007:10002`."""
SLOT: Final = f"{RESERVED_LABELS}slot"
NEXT: Final = ".next"
OLD: Final = ".old"
"""What follows the name of a container that takes another's place, or gave its own; see rollout.py."""
DIGEST: Final = f"{RESERVED_LABELS}digest"
"""What the image's tag stood for when the container was made."""


@dataclass(frozen=True, slots=True)
class ContainerObservation:
    """One container, ours or not, as one listing showed it."""

    id: str
    name: str
    image: str
    state: ContainerState
    image_id: str = ""
    exit_code: int | None = None
    """None where it never ended."""
    pid: int = 0
    """Of its first process, in the engine's pid namespace; 0 where none runs."""
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: tuple[str, ...] = ()
    """Published ports in podman's notation: `127.0.0.1:10001->10001/tcp`."""
    networks: tuple[str, ...] = ()
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    forsaken: bool = False
    """Its process ended and the engine will never learn of it, as its monitor ended too: it can only be removed."""

    @property
    def running(self) -> bool:
        """Whether its process runs and is scheduled."""
        return self.state is ContainerState.RUNNING

    @property
    def service(self) -> str:
        """The service that it was made for; empty for a stranger's."""
        return self.labels.get(SERVICE, "")

    @property
    def component(self) -> str:
        """The component that it was made for; empty for a stranger's."""
        return self.labels.get(COMPONENT, "")

    @property
    def generation(self) -> int:
        """The generation that it was created in; 0 where that is not known."""
        value = self.labels.get(GENERATION, "")
        return int(value) if value.isdecimal() else 0

    @property
    def slot(self) -> int:
        """Whose ports it has: 0 or 1."""
        return 1 if self.labels.get(SLOT) == "1" else 0

    @property
    def digest(self) -> str:
        """What its image's tag stood for when it was made; empty where nobody said."""
        return self.labels.get(DIGEST, "")

    @property
    def routes(self) -> tuple[ServedPort, ...]:
        """The host's port for each of its routes."""
        return tuple(ServedPort(route=key, port=port) for key, port, _ in self._routes())

    @property
    def listens_on(self) -> tuple[int, ...]:
        """The ports inside the container at which its routes are served."""
        return tuple(inside for _, _, inside in self._routes())

    def _routes(self) -> Iterator[tuple[str, int, int]]:
        for entry in self.labels.get(ROUTES, "").split(","):
            key, _, ports = entry.partition("=")
            port, _, inside = ports.partition(":")
            if port.isdecimal():
                yield key, int(port), int(inside) if inside.isdecimal() else int(port)

    def owned_by(self, node: str) -> bool:
        """Whether this node's MCP made it; nothing else may be touched."""
        return self.labels.get(MANAGED_BY) == MANAGER and self.labels.get(NODE) == node


@dataclass(frozen=True, slots=True)
class Observation:
    """The whole picture of one moment: every container on the node, by id."""

    containers: Mapping[str, ContainerObservation] = field(default_factory=dict)

    def __iter__(self) -> Iterator[ContainerObservation]:
        return iter(self.containers.values())

    def get(self, container_id: str) -> ContainerObservation | None:
        """The container of that id."""
        return self.containers.get(container_id)

    def named(self, name: str) -> ContainerObservation | None:
        """The container of that name, whoever made it."""
        return next((container for container in self if container.name == name), None)

    def owned(self, node: str, service: str) -> tuple[ContainerObservation, ...]:
        """What this node's MCP made for the service, in the order of their names."""
        ours = (container for container in self if container.service == service and container.owned_by(node))
        return tuple(sorted(ours, key=lambda container: (container.name, container.id)))

    def merged(self, found: "Observation", asked: frozenset[str] | None) -> "Observation":
        """This picture after a listing of only the ids in `asked`; of all where that is None."""
        if asked is None:
            return found
        kept = {key: value for key, value in self.containers.items() if key not in asked}
        return Observation(kept | dict(found.containers))
