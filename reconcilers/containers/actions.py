"""What the containers reconciler can do, as values: `apply --dry-run` prints what `execute` carries out."""

from dataclasses import dataclass
from typing import ClassVar

from api.service import ServedPort
from reconcilers.base import Action
from reconcilers.containers.request import ContainerRequest


@dataclass(frozen=True, slots=True)
class ContainerAction(Action):
    """Something done to one container of one component."""

    component: str
    name: str
    """The container's name."""
    cause: str

    @property
    def subject(self) -> str:
        """The container's name."""
        return self.name


@dataclass(frozen=True, slots=True)
class Create(ContainerAction):
    """Makes the container, and what it needs, and starts it."""

    verb: ClassVar[str] = "created"
    request: ContainerRequest

    def describe(self) -> str:
        """Names the image, and why where there is more to say than that it is new."""
        return _because(f"create {self.name} from {self.request.image}", self.cause)


@dataclass(frozen=True, slots=True)
class Replace(ContainerAction):
    """Takes the old container away, once the new image is present, and makes the new one under its name."""

    verb: ClassVar[str] = "replaced"
    request: ContainerRequest
    container_id: str
    """The old container."""
    leaves: tuple[str, ...]
    """The old container's networks."""

    def describe(self) -> str:
        """Says what changed."""
        return _because(f"replace {self.name}", self.cause)


@dataclass(frozen=True, slots=True)
class Start(ContainerAction):
    """Starts a container that exists."""

    verb: ClassVar[str] = "started"
    container_id: str
    ports: tuple[ServedPort, ...]
    restarts: int
    """How many starts after an end this one makes it."""

    def describe(self) -> str:
        """Says why it does not run."""
        return _because(f"start {self.name}", self.cause)


@dataclass(frozen=True, slots=True)
class Unpause(ContainerAction):
    """Lets a paused container go on."""

    verb: ClassVar[str] = "unpaused"
    container_id: str
    ports: tuple[ServedPort, ...]

    def describe(self) -> str:
        """Says what is the case."""
        return _because(f"unpause {self.name}", self.cause)


@dataclass(frozen=True, slots=True)
class Stop(ContainerAction):
    """Stops a container and keeps it."""

    verb: ClassVar[str] = "stopped"
    container_id: str

    def describe(self) -> str:
        """Says who wants it."""
        return _because(f"stop {self.name}", self.cause)


@dataclass(frozen=True, slots=True)
class Remove(ContainerAction):
    """Removes a container, and the network and the empty folder that were made for it where nobody needs them."""

    verb: ClassVar[str] = "removed"
    container_id: str
    networks: tuple[str, ...]
    folder: str

    def describe(self) -> str:
        """Says why it is not wanted."""
        return _because(f"remove {self.name}", self.cause)


def _because(what: str, cause: str) -> str:
    return f"{what}: {cause}" if cause else what
