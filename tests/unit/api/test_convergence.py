"""When a service counts as ready, failed, or on its way."""

from datetime import UTC, datetime

import pytest

from api.conditions import Condition, ConditionType, Reason, Status, summarize
from api.service import Convergence, Service, convergence
from api.spec import ComponentSpec, ServiceSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PARTS = [kind for kind in ConditionType if kind is not ConditionType.READY]


def condition(kind: ConditionType, status: Status, reason: Reason, generation: int = 2) -> Condition:
    return Condition(
        type=kind, status=status, reason=reason, message="m", observed_generation=generation, last_transition=NOW
    )


def conditions(**changed: tuple[Status, Reason, int]) -> tuple[Condition, ...]:
    return tuple(condition(kind, *changed.get(kind.name, (Status.TRUE, Reason.CONVERGED, 2))) for kind in PARTS)


def service(*parts: Condition) -> Service:
    status, reason, message = summarize(parts, 2)
    ready = Condition(
        type=ConditionType.READY,
        status=status,
        reason=reason,
        message=message,
        observed_generation=2,
        last_transition=NOW,
    )
    spec = ServiceSpec(name="a", components=(ComponentSpec(name="b"),))
    return Service(
        uid="u", name="a", node="n", generation=2, spec=spec, created_at=NOW, updated_at=NOW, conditions=(*parts, ready)
    )


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (conditions(), Convergence.DONE),
        (conditions(CONTAINERS_RUNNING=(Status.FALSE, Reason.STOPPED, 2)), Convergence.DONE),
        (conditions(ROUTES_PROGRAMMED=(Status.TRUE, Reason.CONVERGED, 1)), Convergence.WAITING),
        (conditions(CONTAINERS_RUNNING=(Status.FALSE, Reason.PROGRESSING, 2)), Convergence.WAITING),
        (conditions(ROUTES_PROGRAMMED=(Status.UNKNOWN, Reason.PROXY_UNREACHABLE, 2)), Convergence.WAITING),
        (conditions(CONTAINERS_RUNNING=(Status.FALSE, Reason.IMAGE_PULL_FAILED, 2)), Convergence.FAILED),
        (conditions(CONTAINERS_RUNNING=(Status.FALSE, Reason.IMAGE_PULL_FAILED, 1)), Convergence.WAITING),
    ],
)
def test_convergence_of_the_generation_asked_for(parts: tuple[Condition, ...], expected: Convergence) -> None:
    assert convergence(service(*parts), 2)[0] is expected


def test_a_failure_anywhere_is_told_before_anything_that_is_only_awaited() -> None:
    parts = conditions(
        PORTS_ALLOCATED=(Status.FALSE, Reason.PROGRESSING, 2), ROUTES_PROGRAMMED=(Status.FALSE, Reason.CONFLICT, 2)
    )
    assert convergence(service(*parts), 2) == (Convergence.FAILED, "RoutesProgrammed: Conflict: m")


def test_a_later_generation_waits_for_the_reconcilers() -> None:
    assert convergence(service(*conditions()), 3)[0] is Convergence.WAITING


def test_the_summary_names_the_first_part_that_is_not_as_it_should_be() -> None:
    parts = conditions(CERTIFICATES_READY=(Status.FALSE, Reason.CERTIFICATE_FAILED, 2))
    assert summarize(parts, 2) == (Status.FALSE, Reason.CERTIFICATE_FAILED, "m")
    assert summarize(parts[1:], 2)[1] is Reason.PENDING
