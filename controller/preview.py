"""What the reconcilers would do: their own plans, chained, with nothing carried out."""

from collections.abc import Sequence

from api.conditions import Reason
from api.service import Finalizer, PlannedAction, Service
from reconcilers.base import Action, Compares, Reconciler, Terminal, Transient


class Preview:
    """Plans for a service that may not exist yet. `reconcilers` are in the order in which they come to do something."""

    def __init__(self, reconcilers: Sequence[Reconciler]) -> None:
        self._creation = tuple(reconcilers)
        order = list(Finalizer)
        self._teardown = tuple(sorted(reconcilers, key=lambda reconciler: order.index(reconciler.finalizer)))

    async def apply(self, service: Service) -> tuple[PlannedAction, ...]:
        """What would be done for `service` as it is given, each step assuming that those before it worked."""
        planned: list[PlannedAction] = []
        for reconciler in self._creation:
            actions, shown = await _plan(reconciler, service)
            planned += shown
            service = reconciler.assume(service, actions)
        return tuple(planned)

    async def delete(self, service: Service) -> tuple[PlannedAction, ...]:
        """What would be done to take `service`, marked for deletion, away."""
        planned: list[PlannedAction] = []
        for reconciler in self._teardown:
            actions, shown = await _plan(reconciler, service)
            planned += shown
            left = tuple(finalizer for finalizer in service.finalizers if finalizer is not reconciler.finalizer)
            service = reconciler.assume(service, actions).model_copy(update={"finalizers": left})
        return tuple(planned)


async def _plan(reconciler: Reconciler, service: Service) -> tuple[tuple[Action, ...], tuple[PlannedAction, ...]]:
    try:
        plan = await reconciler.plan(service, attend=False)
    except (Transient, Terminal) as failure:
        # What cannot be planned now is part of the answer, not the end of it.
        return (), (_unknown(reconciler, failure.message),)
    shown = [await _shown(reconciler, action) for action in plan.actions]
    if plan.outcome.reason is Reason.FORBIDDEN:
        # What would be done is left out of the plan for a reason that has to be told.
        shown.append(_unknown(reconciler, plan.outcome.message))
    return plan.actions, tuple(shown)


def _unknown(reconciler: Reconciler, message: str) -> PlannedAction:
    return PlannedAction(resource=reconciler.name, verb="unknown", subject="", description=message)


async def _shown(reconciler: Reconciler, action: Action) -> PlannedAction:
    if isinstance(reconciler, Compares):
        fields = await reconciler.differences(action)
    else:
        fields = action.differences()
    return PlannedAction(
        resource=reconciler.name,
        verb=action.verb,
        subject=action.subject,
        description=action.describe(),
        fields=fields,
    )
