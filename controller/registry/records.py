"""What the registry takes and tells beyond the contract: the values of its interface, free of SQLAlchemy."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum

from api.conditions import ConditionType, Reason, Status
from api.service import Event, PortAllocation, Service
from api.spec import ServiceSpec


def utc_now() -> datetime:
    """The time of day, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class ConditionUpdate:
    """What a reconciler says of a service; when the status changed is the registry's to know."""

    type: ConditionType
    status: Status
    reason: Reason
    message: str
    observed_generation: int
    next_look_at: datetime | None = None

    def is_known_of(self, service: Service) -> bool:
        """Whether the service has this very condition already."""
        known = service.condition(self.type)
        return known is not None and all(getattr(known, f.name) == getattr(self, f.name) for f in fields(self))


@dataclass(frozen=True, slots=True)
class EventDraft:
    """An event that has no number and no time yet."""

    kind: str
    message: str
    actor: str
    generation: int
    drift: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """All that one reconcile run says."""

    condition: ConditionUpdate | None = None
    events: tuple[EventDraft, ...] = ()

    def says_more_than(self, service: Service) -> bool:
        """Whether anything in it is not known of the service yet."""
        return bool(self.events) or (self.condition is not None and not self.condition.is_known_of(service))


@dataclass(frozen=True, slots=True)
class Adoption:
    """A new service for containers that run already."""

    spec: ServiceSpec
    ports: tuple[PortAllocation, ...] = ()
    """Those that the containers serve their routes at."""
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By a container's id, the labels that it would have, had MCP made it; without those that have them."""


class ChangeKind(StrEnum):
    """What about a service changed, so that only those who care look again."""

    SPEC = "spec"
    """Its desired state: applied, or deletion requested."""
    SUSPENSION = "suspension"
    """It is left alone from now on, or not any more."""
    PORTS = "ports"
    """A port was given or taken back."""
    CONTESTED = "contested"
    """A port turned out to be somebody else's."""
    CERTIFICATE = "certificate"
    PATH_RELEASED = "path-released"
    """The place of a certificate is free for whoever waits for it."""
    FILES = "files"
    """A file was pushed."""
    FILE_LAID = "file-laid"
    """A file was laid down, or is not known any more."""
    COMPONENT = "component"
    """Something about a container that matters to people only."""
    BACKEND = "backend"
    """What routes lead to: a container is ready, is not any more, or serves other ports."""
    CLAIM = "claim"
    """A name was claimed, or what is known of it changed."""
    CLAIM_RELEASED = "claim-released"
    """A name is free for whoever waits for it."""
    CONDITION = "condition"
    FINALIZER = "finalizer"
    GONE = "gone"
    EVENT = "event"


@dataclass(frozen=True, slots=True)
class RegistryChange:
    """Something that was committed. It says where to look, not what is there now."""

    service: str
    """Empty where events of any service may have been missed."""
    kind: ChangeKind
    event: Event | None = None
    """Of kind EVENT only; None there means that events were missed: read them again."""


def printable(text: str) -> str:
    """`text` without what no database keeps, NUL and lone surrogates: an engine's message may hold anything."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
