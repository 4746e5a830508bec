"""What the containers reconciler can do, as values: `apply --dry-run` prints what `execute` carries out."""

from dataclasses import dataclass
from datetime import timedelta
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
    """Ends the old container, once the new image is present, and makes the new one under its name."""

    verb: ClassVar[str] = "replaced"
    request: ContainerRequest
    container_id: str
    """The old container."""
    leaves: tuple[str, ...]
    """The old container's networks."""
    aside: str = ""
    """The name under which the old one is kept until the new one is ready; empty: it is removed at once."""

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
class Restart(Start):
    """Stops a container that runs and is not well, and starts it again."""

    verb: ClassVar[str] = "restarted"

    def describe(self) -> str:
        """Says what is wrong with it."""
        return _because(f"restart {self.name}", self.cause)


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
class Drain(ContainerAction):
    """Begins to watch the open connections of a container that shall end once it has none."""

    verb: ClassVar[str] = "draining"
    container_id: str
    patience: timedelta
    """The longest wait."""

    @property
    def follows(self) -> bool:
        """It ends nothing by itself."""
        return True

    def describe(self) -> str:
        """Says for how long."""
        return _because(f"drain {self.name} for up to {self.patience.total_seconds():g} s", self.cause)


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
    folder: str = ""
    outlived: bool = False
    """Another one took its place already."""

    @property
    def follows(self) -> bool:
        """Whether an update is over with it."""
        return self.outlived

    def describe(self) -> str:
        """Says why it is not wanted."""
        return _because(f"remove {self.name}", self.cause)


@dataclass(frozen=True, slots=True)
class Promote(ContainerAction):
    """Gives a container the name of its component."""

    verb: ClassVar[str] = "replaced"
    container_id: str

    @property
    def follows(self) -> bool:
        """It serves already."""
        return True

    def describe(self) -> str:
        """Says what changed."""
        return _because(f"replace {self.name}", self.cause)


@dataclass(frozen=True, slots=True)
class GiveUp(ContainerAction):
    """Notes that a new container failed, and removes it: what it was to replace goes on, or comes back."""

    verb: ClassVar[str] = "gave up"
    container_id: str
    """Empty where it could not even be created."""
    networks: tuple[str, ...]
    generation: int
    request: str
    """What is not tried again; see Component.failed_request."""

    @property
    def follows(self) -> bool:
        """Nothing moved away from what was wanted: it never was there."""
        return True

    def describe(self) -> str:
        """Says why it failed."""
        return _because(f"give up {self.name}", self.cause.removeprefix(f"{self.name} "))


@dataclass(frozen=True, slots=True)
class Restore(ContainerAction):
    """Has the container before the one that failed come back under its name, and starts it."""

    verb: ClassVar[str] = "restored"
    container_id: str
    ports: tuple[ServedPort, ...]

    @property
    def follows(self) -> bool:
        """It ends an update that failed."""
        return True

    def describe(self) -> str:
        """Says what happened."""
        return _because(f"restore {self.name}", self.cause)


def _because(what: str, cause: str) -> str:
    return f"{what}: {cause}" if cause else what
