"""What the registry takes and tells beyond the contract: the values of its interface, free of SQLAlchemy."""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from api.conditions import ConditionType, Reason, Status
from api.model import Model
from api.service import Event
from api.spec import ServiceSpec


def utc_now() -> datetime:
    """The time of day, in UTC."""
    return datetime.now(UTC)


class Revision(Model):
    """What a service was defined as in one generation."""

    generation: int
    spec: ServiceSpec
    actor: str
    at: datetime


@dataclass(frozen=True, slots=True)
class ConditionUpdate:
    """What a reconciler says of a service; when the status changed is the registry's to know."""

    type: ConditionType
    status: Status
    reason: Reason
    message: str
    observed_generation: int


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


class ChangeKind(StrEnum):
    """What about a service changed, so that only those who care look again."""

    SPEC = "spec"
    """Its desired state: applied, or deletion requested."""
    PORTS = "ports"
    CERTIFICATE = "certificate"
    COMPONENT = "component"
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
