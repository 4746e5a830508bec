"""Turns what reconcilers say into conditions, and conditions into the summary. Pure."""

from datetime import datetime

from api.conditions import Condition, ConditionType, summarize
from controller.registry.records import ConditionUpdate, printable

Conditions = tuple[Condition, ...]


def updated(conditions: Conditions, update: ConditionUpdate, now: datetime) -> Conditions:
    """With `update` in place of what was said of that type before; in the order of ConditionType."""
    by_type = {condition.type: condition for condition in conditions}
    before = by_type.get(update.type)
    unmoved = before is not None and before.status is update.status
    by_type[update.type] = Condition(
        type=update.type,
        status=update.status,
        reason=update.reason,
        message=printable(update.message),
        observed_generation=update.observed_generation,
        last_transition=before.last_transition if before is not None and unmoved else now,
    )
    return tuple(by_type[kind] for kind in ConditionType if kind in by_type)


def summarized(conditions: Conditions, generation: int, now: datetime) -> Conditions:
    """With Ready as it follows from the others."""
    others = tuple(condition for condition in conditions if condition.type is not ConditionType.READY)
    status, reason, message = summarize(others, generation)
    return updated(conditions, ConditionUpdate(ConditionType.READY, status, reason, message, generation), now)
