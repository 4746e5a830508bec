"""The kinds of events by which one part of an agent knows what another one told, written and read in one place."""

from typing import Final

from api.conditions import Reason
from api.service import Event

FAILED: Final = "failed"
"""A reconciler cannot go on; why is in the message."""
LEFT_ALONE: Final = "left alone"
"""Something is due, and somebody suspended the service."""
READY: Final = "ready"
"""A generation became what it asks for."""
RECOVERED: Final = "recovered"
"""A service that needed a person is as defined again, in the generation that failed."""
FLAPPING: Final = "flapping"
CALMED: Final = "calmed"
"""It does not flap any more."""
POSTPONED: Final = "postponed"
"""An issuer gives no certificate yet."""


def failure(reason: Reason, message: str) -> str:
    """What an event says that tells of a failure."""
    return f"{reason}: {message}"


def needs_a_person(event: Event) -> bool:
    """Whether it tells of a failure that waiting alone cannot be expected to mend."""
    if event.kind != FAILED:
        return False
    try:
        return Reason(event.message.partition(":")[0]).needs_a_person
    except ValueError:  # written by an agent that knew other reasons
        return False
