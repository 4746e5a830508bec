"""The one loop that drives every reconciler, on a virtual clock."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

import pytest

from api.conditions import Condition, ConditionType, Reason, Status
from api.errors import RegistryUnavailable
from api.service import Finalizer, Service, Suspension
from controller.driver import Driver, DriverSettings
from controller.flapping import Flapping, FlappingSettings
from controller.metrics import Metrics
from controller.queue import Backoff, WorkQueue
from controller.registry import EventDraft, Report
from reconcilers.base import CONVERGED, NOT_NEEDED, Action, Outcome, Plan, Terminal, Transient
from tests.unit.api.test_wire import NOW, full_service

pytestmark = pytest.mark.looptime

ONE_SECOND = timedelta(seconds=1)


def make_service(name: str = "hello", **changes: object) -> Service:
    fresh = {
        "name": name,
        "conditions": (),
        "deletion_requested_at": None,
        "generation": 1,
        "actor": "ann",
        "suspended": None,
    }
    return full_service().model_copy(update=fresh | changes)


@dataclass(frozen=True, slots=True)
class Touch(Action):
    thing: str
    verb: ClassVar[str] = "touched"

    @property
    def follows(self) -> bool:
        return self.thing.startswith("tidy")

    @property
    def subject(self) -> str:
        return self.thing

    def describe(self) -> str:
        return f"touch {self.thing}"


class MemoryRegistry:
    """Services in a dictionary; conditions are kept as the real one keeps them."""

    def __init__(self, *services: Service) -> None:
        self.rows = {service.name: service for service in services}
        self.events: list[EventDraft] = []
        self.reports = 0
        self.failures: list[Exception] = []

    async def service(self, name: str) -> Service | None:
        if self.failures:
            raise self.failures.pop(0)
        return self.rows.get(name)

    async def report(self, service: str, report: Report) -> None:
        self.reports += 1
        self.events += report.events
        update = report.condition
        if update is None or service not in self.rows:
            return
        condition = Condition(
            type=update.type,
            status=update.status,
            reason=update.reason,
            message=update.message,
            observed_generation=update.observed_generation,
            last_transition=NOW,
            next_look_at=update.next_look_at,
        )
        row = self.rows[service]
        others = tuple(known for known in row.conditions if known.type is not update.type)
        self.rows[service] = row.model_copy(update={"conditions": (*others, condition)})

    async def remove_finalizer(self, service: str, finalizer: Finalizer) -> bool:
        row = self.rows[service]
        left = tuple(known for known in row.finalizers if known is not finalizer)
        self.rows[service] = row.model_copy(update={"finalizers": left})
        return not left


class ScriptedReconciler:
    """Wants a set of things touched; raises what it is told to."""

    name: ClassVar[str] = "ports"
    condition: ClassVar[ConditionType] = ConditionType.PORTS_ALLOCATED
    finalizer: ClassVar[Finalizer] = Finalizer.PORTS

    def __init__(self, *wanted: str) -> None:
        self.wanted = wanted
        self.touched: set[str] = set()
        self.failures: list[Exception] = []
        self.outcome = CONVERGED
        self.looks: list[tuple[str, float]] = []
        self.busy: set[str] = set()
        self.slow: dict[str, float] = {}

    async def plan(self, service: Service, *, attend: bool = True) -> Plan:
        self.looks.append((service.name, asyncio.get_running_loop().time()))
        assert service.name not in self.busy, "looked at twice at once"
        self.busy.add(service.name)
        try:
            await asyncio.sleep(self.slow.get(service.name, 0))
            if self.failures:
                raise self.failures.pop(0)
        finally:
            self.busy.discard(service.name)
        if service.deleting:
            return Plan(tuple(Touch(f"away {thing}") for thing in sorted(self.touched)), self.outcome)
        return Plan(tuple(Touch(thing) for thing in self.wanted if thing not in self.touched), self.outcome)

    async def execute(self, service: Service, action: Action) -> None:
        assert isinstance(action, Touch)
        if service.deleting:
            self.touched.discard(action.thing.removeprefix("away "))
        else:
            self.touched.add(action.thing)

    def assume(self, service: Service, actions: Sequence[Action]) -> Service:
        return service


class Rig:
    """A driver with all its parts in reach."""

    def __init__(self, reconciler: ScriptedReconciler, registry: MemoryRegistry) -> None:
        self.reconciler, self.registry = reconciler, registry
        self.metrics = Metrics(["ports"])
        self.series = self.metrics.reconciler("ports")
        self.queue = WorkQueue(self.series.queue)
        settings = DriverSettings(workers=2, transient=Backoff(1, 60), terminal=Backoff(10, 300))
        loop = asyncio.get_running_loop()

        def clock() -> datetime:
            return NOW + timedelta(seconds=loop.time())

        often = FlappingSettings(changes=3, window=600)
        self.flapping = Flapping(often, self.metrics.flapping.inc, clock)
        self.driver = Driver(reconciler, registry, self.queue, self.series, settings, self.flapping, clock)

    def value(self, metric: str, **labels: str) -> float:
        value = self.metrics.registry.get_sample_value(metric, {"reconciler": "ports", **labels})
        assert value is not None
        return value

    def condition(self, name: str = "hello") -> Condition:
        condition = self.registry.rows[name].condition(ConditionType.PORTS_ALLOCATED)
        assert condition is not None
        return condition


@asynccontextmanager
async def running(reconciler: ScriptedReconciler, *services: Service) -> AsyncIterator[Rig]:
    rig = Rig(reconciler, MemoryRegistry(*services))
    task = asyncio.create_task(rig.driver.run())
    yield rig
    rig.queue.shut_down()
    await task


async def test_a_plan_is_carried_out_told_and_reported() -> None:
    async with running(ScriptedReconciler("a", "b"), make_service()) as rig:
        rig.queue.add("hello")
        await asyncio.sleep(1)
        assert rig.reconciler.touched == {"a", "b"}
        assert [(event.kind, event.message, event.actor, event.drift) for event in rig.registry.events] == [
            ("touched", "a, generation 1 by ann", "ports", False),
            ("touched", "b, generation 1 by ann", "ports", False),
        ]
        assert (rig.condition().status, rig.condition().observed_generation) == (Status.TRUE, 1)
        assert rig.value("mcp_reconcile_total", result="success") == 1
        assert rig.value("mcp_actions_total") == 2


async def test_what_the_registry_knows_already_is_not_written_again() -> None:
    async with running(ScriptedReconciler("a"), make_service()) as rig:
        for _ in range(3):
            rig.queue.add("hello")
            await asyncio.sleep(1)
        assert (len(rig.reconciler.looks), rig.registry.reports) == (3, 1)
        rig.reconciler.outcome = NOT_NEEDED
        rig.queue.add("hello")
        await asyncio.sleep(1)
        assert rig.registry.reports == 2
        assert rig.condition().reason is Reason.NOT_NEEDED


async def test_actions_for_a_converged_generation_are_drift_and_its_correction_is_timed() -> None:
    async with running(ScriptedReconciler("a"), make_service()) as rig:
        rig.queue.add("hello")
        await asyncio.sleep(1)
        rig.reconciler.touched.clear()
        rig.reconciler.slow["hello"] = 3
        rig.queue.add("hello")
        await asyncio.sleep(10)
        assert rig.registry.events[-1].drift
        assert rig.value("mcp_drift_found_total") == rig.value("mcp_drift_corrected_total") == 1
        assert rig.value("mcp_drift_correction_seconds_sum") == pytest.approx(3)


async def test_drift_that_shows_before_anything_can_be_done_is_timed_from_its_first_sign() -> None:
    async with running(ScriptedReconciler("a"), make_service()) as rig:
        rig.queue.add("hello")
        await asyncio.sleep(1)
        rig.reconciler.outcome = Outcome(Status.FALSE, Reason.PROGRESSING)
        rig.queue.add("hello")
        await asyncio.sleep(5)
        assert rig.value("mcp_drift_found_total") == 0
        rig.reconciler.touched.clear()
        rig.reconciler.outcome = CONVERGED
        rig.queue.add("hello")
        await asyncio.sleep(1)
        assert rig.registry.events[-1].drift
        assert rig.value("mcp_drift_correction_seconds_sum") == pytest.approx(5)


async def test_actions_for_a_new_generation_are_not_drift() -> None:
    async with running(ScriptedReconciler("a"), make_service()) as rig:
        rig.queue.add("hello")
        await asyncio.sleep(1)
        rig.registry.rows["hello"] = rig.registry.rows["hello"].model_copy(update={"generation": 2})
        rig.reconciler.touched.clear()
        rig.queue.add("hello")
        await asyncio.sleep(1)
        assert not rig.registry.events[-1].drift
        assert rig.value("mcp_drift_found_total") == 0


async def test_transient_failures_are_retried_with_growing_pauses_then_forgotten() -> None:
    reconciler = ScriptedReconciler("a")
    reconciler.failures = [Transient(Reason.ENGINE_UNREACHABLE, "podman is away") for _ in range(3)]
    async with running(reconciler, make_service()) as rig:
        rig.queue.add("hello")
        await asyncio.sleep(0.5)
        assert (rig.condition().status, rig.condition().message) == (Status.UNKNOWN, "podman is away")
        await asyncio.sleep(20)
        times = [at for _, at in reconciler.looks]
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert all(least <= pause <= least * 1.1 for pause, least in zip(pauses, (1, 2, 4), strict=True))
        assert rig.condition().status is Status.TRUE
        assert rig.value("mcp_workqueue_retries_total") == 3


async def test_a_failure_that_names_its_delay_is_retried_after_it_and_then_ever_more_slowly() -> None:
    reconciler = ScriptedReconciler("a")
    reconciler.failures = [Transient(Reason.PORT_IN_USE, "x", delay=timedelta(seconds=5)) for _ in range(3)]
    async with running(reconciler, make_service()) as rig:
        rig.queue.add("hello")
        await asyncio.sleep(60)
        times = [at for _, at in reconciler.looks]
        pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert all(least <= pause <= least * 1.1 for pause, least in zip(pauses, (5, 10, 20), strict=True))
        assert rig.value("mcp_reconcile_total", result="requeue") == 3


async def test_a_terminal_failure_is_false_told_once_and_retried_slowly() -> None:
    reconciler = ScriptedReconciler("a")
    reconciler.failures = [Terminal(Reason.PORTS_EXHAUSTED, "no port is free") for _ in range(2)]
    async with running(reconciler, make_service()) as rig:
        rig.queue.add("hello")
        await asyncio.sleep(9)
        assert len(reconciler.looks) == 1
        assert rig.condition().status is Status.FALSE
        await asyncio.sleep(5)
        assert len(reconciler.looks) == 2
        assert [event.kind for event in rig.registry.events] == ["failed"]


async def test_a_defect_of_a_reconciler_is_one_services_condition_and_never_ends_the_loop() -> None:
    reconciler = ScriptedReconciler("a")
    reconciler.failures = [ZeroDivisionError("oops")]
    async with running(reconciler, make_service(), make_service("other")) as rig:
        rig.queue.add("hello")
        await asyncio.sleep(0.1)
        assert rig.condition().reason is Reason.INTERNAL_ERROR
        rig.queue.add("other")
        await asyncio.sleep(0.1)
        assert rig.condition("other").status is Status.TRUE


async def test_an_unreachable_registry_is_waited_for() -> None:
    async with running(ScriptedReconciler("a"), make_service()) as rig:
        rig.registry.failures = [RegistryUnavailable("the disk is full") for _ in range(3)]
        rig.queue.add("hello")
        await asyncio.sleep(20)
        assert rig.condition().status is Status.TRUE
        assert rig.value("mcp_reconcile_total", result="error") == 3


async def test_a_plan_may_ask_to_be_looked_at_again() -> None:
    reconciler = ScriptedReconciler()
    reconciler.outcome = Outcome(Status.TRUE, Reason.CONVERGED, requeue_after=timedelta(hours=1))
    async with running(reconciler, make_service()) as rig:
        rig.queue.add("hello")
        await asyncio.sleep(7201)
        assert [at for _, at in reconciler.looks] == [0, 3600, 7200]


async def test_one_slow_service_does_not_hold_up_another() -> None:
    reconciler = ScriptedReconciler("a")
    reconciler.slow["hello"] = 100
    async with running(reconciler, make_service(), make_service("other")) as rig:
        rig.queue.add("hello")
        rig.queue.add("other")
        await asyncio.sleep(1)
        assert rig.condition("other").status is Status.TRUE


async def test_deletion_drops_the_finalizer_only_after_a_plan_with_nothing_left() -> None:
    reconciler = ScriptedReconciler("a")
    reconciler.touched = {"a"}
    reconciler.outcome = NOT_NEEDED
    async with running(reconciler, make_service(deletion_requested_at=NOW)) as rig:
        rig.queue.add("hello")
        await asyncio.sleep(1)
        assert len(reconciler.looks) == 2
        assert reconciler.touched == set()
        assert Finalizer.PORTS not in rig.registry.rows["hello"].finalizers


async def test_a_deletion_that_waits_for_others_keeps_its_finalizer() -> None:
    reconciler = ScriptedReconciler()
    reconciler.outcome = Outcome(Status.FALSE, Reason.TERMINATING, "waits for routes")
    async with running(reconciler, make_service(deletion_requested_at=NOW)) as rig:
        rig.queue.add("hello")
        await asyncio.sleep(1)
        assert Finalizer.PORTS in rig.registry.rows["hello"].finalizers


async def test_nobody_looks_at_a_service_that_is_gone_or_done_with() -> None:
    done = make_service(deletion_requested_at=NOW, finalizers=(Finalizer.ROUTES,))
    async with running(ScriptedReconciler("a"), done) as rig:
        rig.queue.add("nobody")
        rig.queue.add("hello")
        await asyncio.sleep(1)
        assert rig.reconciler.looks == []


async def test_shutting_down_finishes_what_was_begun() -> None:
    reconciler = ScriptedReconciler("a")
    reconciler.slow["hello"] = 5
    async with running(reconciler, make_service(), make_service("other")) as rig:
        rig.queue.add("hello")
        await asyncio.sleep(1)
        rig.queue.shut_down()
        rig.queue.add("other")
    assert reconciler.touched == {"a"}
    assert [name for name, _ in reconciler.looks] == ["hello"]


async def test_an_event_names_the_wish_that_it_follows_from_and_no_wish_for_what_the_world_did() -> None:
    reconciler = ScriptedReconciler("a")
    reconciler.outcome = Outcome(Status.FALSE, Reason.PROGRESSING)
    async with running(reconciler, make_service(generation=4)) as rig:
        for _ in range(2):
            rig.queue.add("hello")
            await asyncio.sleep(1)
            reconciler.touched.clear()
        rig.registry.rows["hello"] = rig.registry.rows["hello"].model_copy(update={"generation": 5, "actor": ""})
        rig.queue.add("hello")
        await asyncio.sleep(1)
        rig.registry.rows["hello"] = rig.registry.rows["hello"].model_copy(update={"deletion_requested_at": NOW})
        rig.queue.add("hello")
        await asyncio.sleep(1)
    assert [event.message for event in rig.registry.events] == [
        "a, generation 4 by ann",
        "a",
        "a, generation 5",
        "away a",
    ]


def next_look(rig: Rig) -> float | None:
    """In seconds from the beginning."""
    moment = rig.condition().next_look_at
    return None if moment is None else (moment - NOW).total_seconds()


async def test_a_condition_says_when_it_is_looked_at_again() -> None:
    reconciler = ScriptedReconciler("a")
    reconciler.failures = [Transient(Reason.ENGINE_UNREACHABLE, "podman is away") for _ in range(2)]
    async with running(reconciler, make_service()) as rig:
        rig.queue.add("hello")
        await asyncio.sleep(0.5)
        assert next_look(rig) == pytest.approx(1, abs=0.11)
        await asyncio.sleep(1)
        assert next_look(rig) == pytest.approx(3, abs=0.35)
        await asyncio.sleep(5)
        assert next_look(rig) is None


async def test_the_next_look_alone_is_no_news_unless_it_is_another_one() -> None:
    reconciler = ScriptedReconciler()
    async with running(reconciler, make_service()) as rig:
        for wait, looks, reports in ((timedelta(seconds=5), 4, 1), (timedelta(hours=1), 2, 2)):
            reconciler.outcome = Outcome(Status.TRUE, Reason.CONVERGED, str(wait), requeue_after=wait)
            before, written = len(reconciler.looks), rig.registry.reports
            rig.queue.add("hello")
            await asyncio.sleep(wait.total_seconds() * (looks - 0.5))
            assert (len(reconciler.looks) - before, rig.registry.reports - written) == (looks, reports)


async def test_a_moment_that_stays_the_same_is_told_once_however_often_it_is_looked_at() -> None:
    reconciler = ScriptedReconciler()
    async with running(reconciler, make_service()) as rig:
        for at in range(0, 300, 100):
            reconciler.outcome = Outcome(Status.TRUE, Reason.CONVERGED, requeue_after=timedelta(seconds=1000 - at))
            rig.queue.add("hello")
            await asyncio.sleep(100)
        assert (rig.registry.reports, next_look(rig)) == (1, 1000)


async def test_a_failing_registry_does_not_make_the_driver_busy() -> None:
    class Full(MemoryRegistry):
        async def report(self, service: str, report: Report) -> None:
            self.reports += 1
            raise RegistryUnavailable("the disk is full")

    rig = Rig(ScriptedReconciler("a"), Full(make_service()))
    task = asyncio.create_task(rig.driver.run())
    rig.queue.add("hello")
    await asyncio.sleep(60)
    rig.queue.shut_down()
    await task
    assert rig.registry.reports < 8


async def test_what_only_follows_is_neither_drift_nor_due_to_a_wish_and_does_not_count() -> None:
    async with running(ScriptedReconciler("a", "tidy b"), make_service()) as rig:
        rig.queue.add("hello")
        await asyncio.sleep(1)
        rig.reconciler.touched.clear()
        rig.queue.add("hello")
        await asyncio.sleep(1)
        for _ in range(5):
            rig.reconciler.touched.discard("tidy b")
            rig.queue.add("hello")
            await asyncio.sleep(1)
    told = [(event.message, event.drift) for event in rig.registry.events]
    assert told[:4] == [("a, generation 1 by ann", False), ("tidy b", False), ("a", True), ("tidy b", False)]
    assert told[4:] == [("tidy b", False)] * 5
    assert rig.registry.rows["hello"].condition(ConditionType.FLAPPING) is None


SUSPENDED = Suspension(actor="bob", at=NOW, reason="the disk")


async def test_a_suspended_service_is_looked_at_and_left_alone_until_it_is_resumed() -> None:
    async with running(ScriptedReconciler("a", "b"), make_service(suspended=SUSPENDED)) as rig:
        for _ in range(2):
            rig.queue.add("hello")
            await asyncio.sleep(1)
        assert rig.reconciler.touched == set()
        assert (rig.condition().status, rig.condition().reason) == (Status.FALSE, Reason.SUSPENDED)
        assert rig.condition().message == "suspended by bob (the disk); once resumed: touch a; touch b"
        assert [event.kind for event in rig.registry.events] == ["left alone"]
        assert rig.value("mcp_drift_found_total") == 0
        rig.registry.rows["hello"] = rig.registry.rows["hello"].model_copy(update={"suspended": None})
        rig.queue.add("hello")
        await asyncio.sleep(1)
        assert rig.reconciler.touched == {"a", "b"}
        assert rig.condition().status is Status.TRUE


async def test_a_suspended_service_with_nothing_to_do_is_as_good_as_it_is() -> None:
    async with running(ScriptedReconciler(), make_service(suspended=SUSPENDED)) as rig:
        rig.queue.add("hello")
        await asyncio.sleep(1)
        assert rig.condition().status is Status.TRUE
        rig.reconciler.failures = [Transient(Reason.ENGINE_UNREACHABLE, "podman is away")]
        rig.queue.add("hello")
        await asyncio.sleep(0.5)
        assert rig.condition().reason is Reason.ENGINE_UNREACHABLE


async def test_nothing_is_taken_away_of_a_service_whose_deletion_was_suspended_with_it() -> None:
    reconciler = ScriptedReconciler()
    reconciler.touched = {"a"}
    reconciler.outcome = NOT_NEEDED
    async with running(reconciler, make_service(deletion_requested_at=NOW, suspended=SUSPENDED)) as rig:
        for _ in range(2):
            rig.queue.add("hello")
            await asyncio.sleep(1)
            assert Finalizer.PORTS in rig.registry.rows["hello"].finalizers
            reconciler.touched = set()
