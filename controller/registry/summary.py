"""Turns what reconcilers say into conditions, and conditions into the summary. Pure."""

from datetime import datetime

from api.conditions import Condition, ConditionType, Reason, Status, summarize
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
        next_look_at=update.next_look_at,
    )
    return tuple(by_type[kind] for kind in ConditionType if kind in by_type)


def asked_again(conditions: Conditions, now: datetime) -> Conditions:
    """With what needs a person said to be unknown until somebody looks again."""
    for condition in conditions:
        if condition.status is not Status.TRUE and condition.reason.needs_a_person:
            message = f"looked at again; before: {condition.reason}: {condition.message}"
            generation = condition.observed_generation
            again = ConditionUpdate(condition.type, Status.UNKNOWN, Reason.PENDING, message, generation)
            conditions = updated(conditions, again, now)
    return conditions


def summarized(conditions: Conditions, generation: int, now: datetime) -> Conditions:
    """With Ready as it follows from the others."""
    others = tuple(condition for condition in conditions if condition.type is not ConditionType.READY)
    status, reason, message = summarize(others, generation)
    return updated(conditions, ConditionUpdate(ConditionType.READY, status, reason, message, generation), now)
