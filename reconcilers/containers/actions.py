"""What the containers reconciler can do, as values: `apply --dry-run` prints what `execute` carries out."""

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from api.service import ServedPort
from reconcilers.base import Action
from reconcilers.containers.engine.request import ContainerRequest


@dataclass(frozen=True, slots=True)
class ContainerAction(Action):
    """Something done to one container of one component."""

    order: ClassVar[str]
    """The verb in the imperative."""
    ends_update: ClassVar[bool] = False
    """Whether it only follows from an update of ours: then nothing had moved away from what was wanted."""
    component: str
    name: str
    """The container's name."""
    cause: str

    @property
    def subject(self) -> str:
        """The container's name."""
        return self.name

    @property
    def follows(self) -> bool:
        """Whether it ends an update."""
        return self.ends_update

    def describe(self) -> str:
        """What is done to which container, and why where there is a cause."""
        return _because(f"{self.order} {self.name}", self.cause)


@dataclass(frozen=True, slots=True)
class Create(ContainerAction):
    """Makes the container, and what it needs, and starts it."""

    verb: ClassVar[str] = "created"
    order: ClassVar[str] = "create"
    request: ContainerRequest

    def describe(self) -> str:
        """Names the image, and why where there is more to say than that it is new."""
        return _because(f"{self.order} {self.name} from {self.request.image}", self.cause)


@dataclass(frozen=True, slots=True)
class Replace(ContainerAction):
    """Ends the old container, once the new image is present, and makes the new one under its name."""

    verb: ClassVar[str] = "replaced"
    order: ClassVar[str] = "replace"
    request: ContainerRequest
    container_id: str
    """The old container."""
    leaves: tuple[str, ...]
    """The old container's networks."""
    aside: str = ""
    """The name under which the old one is kept until the new one is ready; empty: it is removed at once."""


@dataclass(frozen=True, slots=True)
class Start(ContainerAction):
    """Starts a container that exists."""

    verb: ClassVar[str] = "started"
    order: ClassVar[str] = "start"
    container_id: str
    ports: tuple[ServedPort, ...]
    restarts: int
    """How many starts after an end this one makes it."""


@dataclass(frozen=True, slots=True)
class Restart(Start):
    """Stops a container that runs and is not well, and starts it again."""

    verb: ClassVar[str] = "restarted"
    order: ClassVar[str] = "restart"


@dataclass(frozen=True, slots=True)
class Unpause(ContainerAction):
    """Lets a paused container go on."""

    verb: ClassVar[str] = "unpaused"
    order: ClassVar[str] = "unpause"
    container_id: str
    ports: tuple[ServedPort, ...]


@dataclass(frozen=True, slots=True)
class Drain(ContainerAction):
    """Begins to watch the open connections of a container that shall end once it has none."""

    verb: ClassVar[str] = "draining"
    order: ClassVar[str] = "drain"
    ends_update: ClassVar[bool] = True
    container_id: str
    patience: timedelta
    """The longest wait."""

    def describe(self) -> str:
        """Says for how long."""
        return _because(f"{self.order} {self.name} for up to {self.patience.total_seconds():g} s", self.cause)


@dataclass(frozen=True, slots=True)
class Stop(ContainerAction):
    """Stops a container and keeps it."""

    verb: ClassVar[str] = "stopped"
    order: ClassVar[str] = "stop"
    container_id: str


@dataclass(frozen=True, slots=True)
class Remove(ContainerAction):
    """Removes a container, and the network and the empty folder that were made for it where nobody needs them."""

    verb: ClassVar[str] = "removed"
    order: ClassVar[str] = "remove"
    container_id: str
    networks: tuple[str, ...]
    folder: str = ""
    outlived: bool = False
    """Another one took its place already."""

    @property
    def follows(self) -> bool:
        """Whether an update is over with it."""
        return self.outlived


@dataclass(frozen=True, slots=True)
class Promote(ContainerAction):
    """Gives a container, which serves already, the name of its component."""

    verb: ClassVar[str] = "replaced"
    order: ClassVar[str] = "replace"
    ends_update: ClassVar[bool] = True
    container_id: str


@dataclass(frozen=True, slots=True)
class GiveUp(ContainerAction):
    """Notes that a new container failed, and removes it: what it was to replace goes on, or comes back."""

    verb: ClassVar[str] = "gave up"
    order: ClassVar[str] = "give up"
    ends_update: ClassVar[bool] = True
    container_id: str
    """Empty where it could not even be created."""
    networks: tuple[str, ...]
    generation: int
    request: str
    """What is not tried again; see Component.failed_request."""

    def describe(self) -> str:
        """Says why it failed, and its name once."""
        return _because(f"{self.order} {self.name}", self.cause.removeprefix(f"{self.name} "))


@dataclass(frozen=True, slots=True)
class Restore(ContainerAction):
    """Has the container before the one that failed come back under its name, and starts it."""

    verb: ClassVar[str] = "restored"
    order: ClassVar[str] = "restore"
    ends_update: ClassVar[bool] = True
    container_id: str
    ports: tuple[ServedPort, ...]


def _because(what: str, cause: str) -> str:
    return f"{what}: {cause}" if cause else what
