"""What is wanted and what was found, kept in SQLite or PostgreSQL; SQLAlchemy is known in here alone."""

from controller.registry.records import (
    Adoption,
    ChangeKind,
    ConditionUpdate,
    EventDraft,
    RegistryChange,
    Report,
    utc_now,
)
from controller.registry.registry import Registry
from controller.registry.subscription import Subscription

__all__ = [
    "Adoption",
    "ChangeKind",
    "ConditionUpdate",
    "EventDraft",
    "Registry",
    "RegistryChange",
    "Report",
    "Subscription",
    "utc_now",
]
