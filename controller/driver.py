"""Drives one reconciler: takes a name, has it planned and carried out, and says what came of it.

What is the same for every resource is here and nowhere else: the retries, the
conditions, the timeline, the finalizers, the metrics. A failing service waits
longer each time and holds up nobody; a defect in a reconciler never ends the
loop.
"""

import asyncio
import logging
import time
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final, Protocol

import structlog

from api.conditions import Reason, Status
from api.errors import RegistryUnavailable
from api.service import Finalizer, Service, Suspension
from controller.flapping import Flapping
from controller.kinds import FAILED, LEFT_ALONE, failure
from controller.metrics import ReconcilerMetrics
from controller.queue import Backoff, Item, ShutDown, WorkQueue
from controller.registry import ConditionUpdate, EventDraft, Report
from reconcilers.base import Action, Clock, Outcome, Plan, Reconciler, Terminal, Transient

log = structlog.get_logger("driver")

_WORTH_TELLING: Final = 1.0
"""Seconds. Of a look that is nearer than that nobody reads in time."""
_WORTH_WRITING: Final = 60.0
"""Seconds. Where nothing is new but the next look of those that come more often, nothing is written."""


@dataclass(frozen=True, slots=True)
class DriverSettings:
    """How hard to try."""

    workers: int = 4
    """Services looked at side by side."""
    transient: Backoff = field(default_factory=Backoff)
    terminal: Backoff = field(default_factory=lambda: Backoff(first=10.0, most=300.0))
    """After a failure that waiting alone is not expected to mend."""


class DriverRegistry(Protocol):
    """What the driver reads and writes."""

    async def service(self, name: str) -> Service | None:
        """The service, or None."""
        ...

    async def report(self, service: str, report: Report) -> None:
        """Writes all that one run says, in one transaction."""
        ...

    async def remove_finalizer(self, service: str, finalizer: Finalizer) -> bool:
        """Notes that nothing of that kind is left; True when the service is gone."""
        ...


@dataclass(slots=True)
class _Run:
    """One look at one service."""

    service: Service
    drift: bool = False
    done: list[Action] = field(default_factory=list)
    outcome: Outcome = field(default_factory=lambda: Outcome(Status.UNKNOWN, Reason.PENDING))
    failure: Exception | None = None


class Driver:
    """Runs a reconciler over a queue until the queue is shut down."""

    def __init__(
        self,
        reconciler: Reconciler,
        registry: DriverRegistry,
        queue: WorkQueue,
        metrics: ReconcilerMetrics,
        settings: DriverSettings,
        flapping: Flapping,
        clock: Clock,
    ) -> None:
        self.reconciler = reconciler
        self.queue = queue
        self._registry = registry
        self._metrics = metrics
        self._settings = settings
        self._flapping = flapping
        self._clock = clock
        self._last_converged: dict[str, int] = {}
        self._departed: dict[str, float] = {}
        self._drifting: set[str] = set()
        self._acted: dict[str, tuple[int, set[str]]] = {}
        """On which subjects, in which generation."""
        self._log = log.bind(reconciler=reconciler.name)

    async def run(self) -> None:
        """Works until the queue is shut down and all that was begun is done."""
        async with asyncio.TaskGroup() as workers:
            for number in range(self._settings.workers):
                workers.create_task(self._work(), name=f"{self.reconciler.name}-{number}")

    async def _work(self) -> None:
        while True:
            try:
                item = await self.queue.get()
            except ShutDown:
                return
            started = time.perf_counter()
            result = "error"
            self._metrics.active.inc()
            try:
                result = await self._reconcile(item)
            except Exception as error:  # the loop outlives whatever happens to one service
                wait = self.queue.retry(item.key, self._settings.transient)
                known = isinstance(error, RegistryUnavailable)
                self._log.error(
                    "reconcile_failed",
                    service=item.key,
                    error=str(error),
                    retry_in_seconds=round(wait, 3),
                    exc_info=None if known else error,
                )
            finally:
                self.queue.done(item.key)
                self._metrics.active.dec()
                self._metrics.results[result].inc()
                self._metrics.duration.observe(time.perf_counter() - started)

    async def _reconcile(self, item: Item) -> str:
        service = await self._registry.service(item.key)
        if service is None or (service.deleting and self.reconciler.finalizer not in service.finalizers):
            self._forget(item.key)
            return "success"
        run = _Run(service)
        await self._attempt(run, item)
        if run.done and run.drift:
            self._flapping.corrected(service, self.reconciler.name, f"{run.done[-1].verb} {run.done[-1].told()}")
        wait = self._retry(run) if run.failure is not None else self._requeue(run)
        report = self._report(run, wait)
        if report.says_more_than(service):
            await self._registry.report(service.name, report)
        if flaps := self._flapping.report(service):
            await self._registry.report(service.name, flaps)
        self._track_drift(run)
        if run.failure is not None:
            return "requeue" if _is_soon(run.failure) else "error"
        self.queue.forget(item.key)
        if service.deleting and service.suspended is None:
            return await self._finish_deletion(run)
        return "success" if wait is None else "requeue_after"

    async def _attempt(self, run: _Run, item: Item) -> None:
        try:
            plan = await self.reconciler.plan(run.service)
            if run.service.suspended is not None:
                run.outcome = _left_alone(plan, run.service.suspended)
                return
            self._notice_drift(run, plan, item)
            if run.drift and (pause := self._flapping.pause(run.service, self.reconciler.name)):
                run.outcome = _slowed(plan, pause)
                return
            for action in plan.actions:
                await self.reconciler.execute(run.service, action)
                run.done.append(action)
                self._metrics.actions.inc()
                self._log.info(
                    action.verb,
                    service=run.service.name,
                    subject=action.subject,
                    cause=action.describe(),
                    drift=run.drift,
                )
            run.outcome = plan.outcome
        except Transient as failure:
            run.failure = failure
            run.outcome = Outcome(failure.status, failure.reason, failure.message, failure.delay)
        except Terminal as failure:
            run.failure = failure
            run.outcome = Outcome(Status.FALSE, failure.reason, failure.message)
        except RegistryUnavailable:
            raise
        except Exception as failure:  # a defect of one reconciler is one service's condition
            run.failure = failure
            run.outcome = Outcome(
                Status.UNKNOWN, Reason.INTERNAL_ERROR, f"{type(failure).__name__}: {failure}; the agent's log says more"
            )
            self._log.error("defect", service=run.service.name, exc_info=failure)

    def _report(self, run: _Run, wait: float | None) -> Report:
        events = [
            EventDraft(
                kind=action.verb,
                message=self._told(run, action),
                actor=self.reconciler.name,
                generation=run.service.generation,
                drift=run.drift and not action.follows,
            )
            for action in run.done
        ]
        if self._newly_failed(run):
            events.append(
                EventDraft(
                    kind=LEFT_ALONE if run.outcome.reason is Reason.SUSPENDED else FAILED,
                    message=failure(run.outcome.reason, run.outcome.message),
                    actor=self.reconciler.name,
                    generation=run.service.generation,
                    drift=False,
                )
            )
        return Report(condition=self._condition(run, wait), events=tuple(events))

    def _condition(self, run: _Run, wait: float | None) -> ConditionUpdate:
        look = None if wait is None or wait < _WORTH_TELLING else self._clock() + timedelta(seconds=wait)
        condition = ConditionUpdate(
            type=self.reconciler.condition,
            status=run.outcome.status,
            reason=run.outcome.reason,
            message=run.outcome.message,
            observed_generation=run.service.generation,
            next_look_at=look,
        )
        known = run.service.condition(condition.type)
        if look is None or wait is None or known is None or known.next_look_at is None:
            return condition
        as_it_was = replace(condition, next_look_at=known.next_look_at)
        # Of what is two months away nobody asks for the minute.
        same = abs((look - known.next_look_at).total_seconds()) < max(_WORTH_TELLING, wait / 100)
        periodic = run.failure is None and wait < _WORTH_WRITING
        return as_it_was if (same or periodic) and as_it_was.is_known_of(run.service) else condition

    def _told(self, run: _Run, action: Action) -> str:
        """What was done and why: where it follows from a wish, whose."""
        service = run.service
        generation, subjects = self._acted.get(service.name, (0, set()))
        if generation != service.generation:
            generation, subjects = service.generation, set()
        # The first thing done to a subject is due to the wish, what is done to it later is due to the world.
        wished = not (run.drift or service.deleting or action.follows or action.subject in subjects)
        self._acted[service.name] = (generation, subjects | {action.subject})
        by = f" by {service.actor}" if service.actor else ""
        return f"{action.told()}, generation {service.generation}{by}" if wished else action.told()

    def _newly_failed(self, run: _Run) -> bool:
        progressing = run.failure is None or run.outcome.reason is Reason.PROGRESSING
        if progressing and not run.outcome.reason.needs_a_person:
            return False
        before = run.service.condition(self.reconciler.condition)
        current = (run.outcome.reason, run.service.generation)
        return before is None or (before.reason, before.observed_generation) != current

    def _requeue(self, run: _Run) -> float | None:
        """Seconds until a service that was looked at without a failure is looked at again; None: when it is woken."""
        if run.service.deleting and (run.done or run.outcome.reason is not Reason.TERMINATING):
            return None
        after = None if run.outcome.requeue_after is None else run.outcome.requeue_after.total_seconds()
        # Once it was quiet for long enough, somebody has to say so.
        waits = [wait for wait in (after, self._flapping.quiet_in(run.service)) if wait is not None]
        if waits:
            self.queue.add_after(run.service.name, min(waits))
        return after

    def _retry(self, run: _Run) -> float:
        """Seconds until a service whose look failed is looked at again."""
        wait = self.queue.retry(run.service.name, self._backoff(run.failure))
        self._log.log(
            logging.INFO if _is_soon(run.failure) else logging.WARNING,
            "retrying",
            service=run.service.name,
            reason=run.outcome.reason,
            message=run.outcome.message,
            retry_in_seconds=round(wait, 3),
        )
        return wait

    def _backoff(self, failure: Exception | None) -> Backoff:
        if isinstance(failure, Terminal):
            return self._settings.terminal
        if isinstance(failure, Transient) and failure.delay is not None:
            # What was expected to last a moment may last: it must not be asked twenty times a second for ever.
            first = failure.delay.total_seconds()
            return Backoff(first, max(first, self._settings.transient.most))
        return self._settings.transient

    async def _finish_deletion(self, run: _Run) -> str:
        if run.done:
            # Only a plan made after the actions can say that nothing is left.
            self.queue.add(run.service.name)
            return "requeue"
        if run.outcome.reason is Reason.TERMINATING:
            return "success"
        await self._registry.remove_finalizer(run.service.name, self.reconciler.finalizer)
        self._forget(run.service.name)
        return "success"

    def _notice_drift(self, run: _Run, plan: Plan, item: Item) -> None:
        """Actions for a generation that had converged already: the world moved, not the wish."""
        key, generation = run.service.name, run.service.generation
        if run.service.deleting or self._converged(run.service) != generation:
            return
        mends = any(not action.follows for action in plan.actions)
        if plan.outcome.status is not Status.TRUE or mends:
            # It may take several looks from the first sign to the first thing that can be done.
            self._departed.setdefault(key, item.since)
        run.drift = mends
        if run.drift and key not in self._drifting:
            self._drifting.add(key)
            self._metrics.drift_found.inc()

    def _converged(self, service: Service) -> int | None:
        """The generation that was last seen converged, by this agent or an earlier one."""
        condition = service.condition(self.reconciler.condition)
        if condition is not None and condition.status is Status.TRUE:
            self._last_converged[service.name] = condition.observed_generation
        return self._last_converged.get(service.name)

    def _track_drift(self, run: _Run) -> None:
        if run.outcome.status is not Status.TRUE:
            return
        departed = self._departed.pop(run.service.name, None)
        if run.service.name in self._drifting and departed is not None:
            self._drifting.discard(run.service.name)
            self._metrics.drift_corrected.inc()
            self._metrics.drift_seconds.observe(asyncio.get_running_loop().time() - departed)

    def _forget(self, key: str) -> None:
        self.queue.forget(key)
        self._drifting.discard(key)
        self._departed.pop(key, None)
        self._last_converged.pop(key, None)
        self._acted.pop(key, None)
        self._flapping.forget(key)


def _is_soon(failure: Exception | None) -> bool:
    """Whether it was expected to last a moment."""
    return isinstance(failure, Transient) and failure.delay is not None


def _left_alone(plan: Plan, suspended: Suspension) -> Outcome:
    """What is the case where nothing may be done: as found, or what is due."""
    if not plan.actions:
        return plan.outcome
    due = "; ".join(action.describe() for action in plan.actions)
    why = f" ({suspended.reason})" if suspended.reason else ""
    message = f"suspended by {suspended.actor}{why}; once resumed: {due}"
    return Outcome(Status.FALSE, Reason.SUSPENDED, message, plan.outcome.requeue_after)


def _slowed(plan: Plan, pause: float) -> Outcome:
    mending = next(action for action in plan.actions if not action.follows)
    message = f"had to be mended too often lately; waits before it does this again: {mending.describe()}"
    return Outcome(Status.FALSE, Reason.FLAPPING, message, timedelta(seconds=pause))
