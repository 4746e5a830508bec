"""All that a plan for containers depends on beside the service, and what one component needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from api.conditions import Reason, Status
from reconcilers.base import Action, Outcome
from reconcilers.containers.model import ContainerObservation, Observation


@dataclass(frozen=True, slots=True)
class World:
    """One moment of the node."""

    node: str
    observation: Observation
    ready: frozenset[str]
    """The ids of the containers that are ready."""
    now: datetime
    last_words: Mapping[str, str] = field(default_factory=dict)
    """The end of the log of containers that ended or are not ready, by id."""
    unwell: Mapping[str, str] = field(default_factory=dict)
    """Containers whose health check failed so often that it counts, by id, with the last failure."""
    trouble: Mapping[str, str] = field(default_factory=dict)
    """The last failure of the health check of containers that are not ready, by id."""
    newest: Mapping[str, str] = field(default_factory=dict)
    """The id of the image that a reference stands for now, where it was asked for."""
    draining: Mapping[str, datetime] = field(default_factory=dict)
    """Since when containers that shall end get no new connections, by id."""
    busy: frozenset[str] = frozenset()
    """The ids of containers that may have to end and have open connections, or where that cannot be told."""
    unready: Mapping[str, str] = field(default_factory=dict)
    """The services that this one depends on and that are not ready, and why."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """The components whose new container the engine refused to create or start, and why."""
    failed: frozenset[str] = frozenset()
    """The components for which the last action failed: they come after the others, which they must not hold up."""

    def said(self, container: ContainerObservation) -> str:
        """The last words of a container, as the end of a sentence; empty where there are none."""
        words = " | ".join(self.last_words.get(container.id, "").split("\n")[-3:])
        return f"; it last said: {words}" if words else ""


@dataclass(frozen=True, slots=True)
class Step:
    """What one component needs, and how it then is."""

    actions: tuple[Action, ...]
    outcome: Outcome

    def after(self, *actions: Action) -> "Step":
        """The same, with something done before."""
        return Step((*actions, *self.actions), self.outcome)


def acts(action: Action) -> Step:
    """Something is done, and its effect awaited."""
    return Step((action,), Outcome(Status.FALSE, Reason.PROGRESSING, f"waits until {action.subject} is ready"))


def waits(reason: Reason, message: str, look_again: timedelta | None = None) -> Step:
    """Nothing can be done now."""
    return Step((), Outcome(Status.FALSE, reason, message, look_again))
