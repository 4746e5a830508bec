"""When containers are asked, and what their answers make of them, on a virtual clock."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.conditions import Reason
from api.resolve import ResolvedHealth
from api.service import Component, ContainerState
from reconcilers.base import Transient
from reconcilers.containers.model import COMPONENT as COMPONENT_LABEL
from reconcilers.containers.model import MANAGED_BY, MANAGER, NODE, ROUTES, SERVICE, ContainerObservation, Observation
from reconcilers.containers.watching.health import Unwell
from reconcilers.containers.watching.probe import Expectation, Prober, ProbeSettings
from tests.unit.reconcilers.containers.conftest import Starter

pytestmark = pytest.mark.looptime

REFUSED = Unwell("connection refused")
CHECK = ResolvedHealth(
    http="/healthz",
    status=None,
    tls=False,
    exec=(),
    route="default",
    hostname="shop.svc.example.test",
    host="",
    port=0,
    interval=10.0,
    timeout=3.0,
    retries=3,
    start_period=0.0,
    liveness=True,
)


def health(**fields: object) -> ResolvedHealth:
    return CHECK.model_copy(update=fields)


def running(name: str = "a", pid: int = 1 << 30, **fields: object) -> ContainerObservation:
    """A container of the service `shop`; its process is nobody's that lives here, unless said."""
    labels = {MANAGED_BY: MANAGER, NODE: "rift", SERVICE: "shop", COMPONENT_LABEL: name, ROUTES: "default=10001"}
    container = ContainerObservation(
        id=name, name=f"shop-{name}", image="i:1", state=ContainerState.RUNNING, pid=pid, labels=labels
    )
    return replace(container, **fields)  # type: ignore[arg-type]


class Scene:
    """A prober, what it is told, what it is answered, and what it tells."""

    def __init__(self) -> None:
        self.prober = Prober("rift", self, ProbeSettings())
        self.answers: dict[str, Exception | float | None] = {}
        """By container: a failure, the seconds that an answer takes, or None for a container that is well."""
        self.asked: dict[str, list[float]] = {}
        self.at_once = 0
        self.most_at_once: dict[str, int] = {}
        self.told: list[float] = []
        self.closed = False
        self._answered = asyncio.Event()
        self._now: Callable[[], float] = asyncio.get_running_loop().time
        self._busy: dict[str, int] = {}
        self._observation: Observation | None = None
        self.prober.listen(lambda _: self.told.append(self._now()))

    async def ask(self, container: ContainerObservation, health: ResolvedHealth) -> None:
        self.asked.setdefault(container.id, []).append(self._now())
        self._busy[container.id] = self._busy.get(container.id, 0) + 1
        self.most_at_once[container.id] = max(self.most_at_once.get(container.id, 0), self._busy[container.id])
        try:
            answer = self.answers.get(container.id)
            if isinstance(answer, Exception):
                raise answer
            if answer is not None:
                await asyncio.sleep(min(answer, health.timeout))
                if answer > health.timeout:
                    raise Unwell(f"no answer within {health.timeout:g} s")
        finally:
            self._busy[container.id] -= 1
            # After the prober has heard it, which asked first.
            asyncio.get_running_loop().call_soon(self._answered.set)

    async def listens(self, container: ContainerObservation) -> bool:
        self.asked.setdefault(container.id, []).append(self._now())
        return self.answers.get(container.id) is None

    async def close(self) -> None:
        self.closed = True

    def show(self, *containers: ContainerObservation) -> None:
        """Makes these all that there is."""
        before, self._observation = self._observation, Observation({c.id: c for c in containers})
        self.prober.follow(before, self._observation)

    def expect(self, **checks: ResolvedHealth | None) -> None:
        self.prober.expect("shop", Expectation(checks))

    async def answer(self, name: str, answer: Exception | None) -> None:
        """Returns once the only container that is asked has given this answer, once."""
        self.answers[name] = answer
        self._answered.clear()
        await self._answered.wait()

    def times(self, name: str = "a", since: float = 0.0) -> int:
        """How often a container was asked since then."""
        return len([moment for moment in self.asked.get(name, ()) if moment >= since])


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    async with played() as scene:
        yield scene


@asynccontextmanager
async def played() -> AsyncIterator[Scene]:
    scene = Scene()
    task = asyncio.create_task(scene.prober.run())
    yield scene
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert scene.closed


async def test_a_container_without_a_check_is_ready_once_it_listens_and_is_then_left_alone(scene: Scene) -> None:
    scene.answers["a"] = REFUSED
    scene.expect(a=None)
    scene.show(running())
    await asyncio.sleep(5)
    assert not scene.prober.ready
    assert not scene.prober.trouble
    scene.answers["a"] = None
    await asyncio.sleep(0.3)
    assert scene.prober.ready == {"a"}
    assert len(scene.told) == 1
    asked = scene.times()
    await asyncio.sleep(100)
    assert scene.times() == asked


async def test_a_container_without_routes_or_check_is_ready_as_it_runs(scene: Scene) -> None:
    scene.expect(a=None)
    scene.show(running(labels={**running().labels, ROUTES: ""}))
    assert scene.prober.ready == {"a"}
    assert not scene.told


async def test_a_container_is_ready_within_milliseconds_of_its_first_success_and_then_asked_at_its_interval(
    scene: Scene,
) -> None:
    scene.answers["a"] = REFUSED
    scene.expect(a=health())
    scene.show(running())
    await asyncio.sleep(0.1)
    scene.answers["a"] = None
    await asyncio.sleep(0.03)
    assert scene.prober.ready == {"a"}
    since = scene.asked["a"][-1] + 0.001
    await asyncio.sleep(100)
    assert 9 <= scene.times(since=since) <= 10
    assert len(scene.told) == 1


async def test_a_starting_container_is_asked_at_least_every_second_but_a_command_less_often(scene: Scene) -> None:
    scene.answers = {"a": REFUSED, "b": REFUSED, "c": REFUSED}
    scene.expect(a=health(), b=health(exec=("true",)), c=health(interval=0.2))
    scene.show(*(running(name) for name in "abc"))
    await asyncio.sleep(9)
    assert [scene.times(name, since=5) for name in "ab"] == [4, 2]
    assert scene.times("c", since=5) in (19, 20)


@pytest.mark.parametrize(("start_period", "seconds"), [(0.0, 30), (25.0, 50), (30.0, 50)])
async def test_a_container_that_is_never_well_is_unwell_after_its_retries(
    scene: Scene, start_period: float, seconds: float
) -> None:
    scene.answers["a"] = REFUSED
    scene.expect(a=health(start_period=start_period))
    scene.show(running())
    await asyncio.sleep(seconds - 0.5)
    assert not scene.prober.unwell
    assert scene.prober.trouble == {"a": "connection refused"}
    await asyncio.sleep(3)
    assert scene.prober.unwell == {"a": "health check failed 3 times: connection refused"}
    assert scene.prober.ready == frozenset()


async def test_so_many_failures_in_a_row_make_a_ready_container_unready_and_one_success_mends_it(scene: Scene) -> None:
    scene.expect(a=health(interval=10.0, retries=2))
    scene.show(running())
    await asyncio.sleep(1)
    for _ in range(3):
        await scene.answer("a", REFUSED)
        assert scene.prober.ready == {"a"}
        await scene.answer("a", None)
    assert len(scene.told) == 1
    await scene.answer("a", REFUSED)
    await scene.answer("a", Unwell("GET /healthz answered 503"))
    assert scene.prober.ready == frozenset()
    assert scene.prober.unwell == {"a": "health check failed 2 times: GET /healthz answered 503"}
    await scene.answer("a", None)
    assert scene.prober.ready == {"a"}
    assert not scene.prober.unwell
    assert not scene.prober.trouble
    assert len(scene.told) == 3


async def test_without_liveness_a_failing_container_is_unready_and_nothing_more(scene: Scene) -> None:
    scene.expect(a=health(liveness=False, retries=1))
    scene.show(running())
    await asyncio.sleep(1)
    scene.answers["a"] = REFUSED
    await asyncio.sleep(12)
    assert scene.prober.ready == frozenset()
    assert not scene.prober.unwell
    assert scene.prober.trouble == {"a": "connection refused"}


async def test_a_hung_container_is_never_asked_twice_at_once_and_holds_up_nobody(scene: Scene) -> None:
    scene.answers["a"] = 1000.0
    scene.expect(a=health(interval=1.0), b=health(interval=1.0))
    scene.show(running("a"), running("b"))
    await asyncio.sleep(0.01)
    assert scene.prober.ready == {"b"}
    await asyncio.sleep(30)
    assert scene.prober.unwell == {"a": "health check failed 3 times: no answer within 3 s"}
    assert scene.most_at_once == {"a": 1, "b": 1}
    assert scene.times("b") >= 28


async def test_what_nobody_can_say_changes_nothing(scene: Scene) -> None:
    scene.expect(a=health(retries=1))
    scene.show(running())
    await asyncio.sleep(1)
    for answer in (Transient(Reason.ENGINE_UNREACHABLE, "podman is away"), ZeroDivisionError()):
        scene.answers["a"] = answer
        await asyncio.sleep(30)
        assert scene.prober.ready == {"a"}
    scene.answers["a"] = REFUSED
    await asyncio.sleep(12)
    assert scene.prober.ready == frozenset()


async def test_a_paused_or_ended_container_is_not_asked_and_a_new_process_begins_anew(scene: Scene) -> None:
    scene.expect(a=health(retries=1))
    scene.show(running())
    await asyncio.sleep(1)
    scene.show(running(state=ContainerState.PAUSED))
    assert scene.prober.ready == frozenset()
    asked = scene.times()
    await asyncio.sleep(100)
    assert scene.times() == asked
    scene.answers["a"] = REFUSED
    scene.show(running(pid=(1 << 30) + 1))
    await asyncio.sleep(5)
    assert not scene.prober.unwell
    scene.prober.follow(None, None)
    await asyncio.sleep(6)
    assert scene.prober.unwell


def _control_group(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text().splitlines()[-1]


async def test_a_process_that_ended_is_not_unwell(scene: Scene, start: Starter) -> None:
    process = start()
    group = _control_group(process.pid)
    scene.prober.expect("shop", Expectation({"a": health(retries=1, interval=1.0)}))
    scene.show(running(id=group, pid=process.pid))
    await asyncio.sleep(2)
    scene.answers[group] = REFUSED
    process.kill()
    process.wait()
    await asyncio.sleep(10)
    assert scene.prober.ready == {group}
    assert not scene.prober.unwell


async def test_a_changed_check_holds_for_what_runs_and_what_is_known_already_costs_nothing(scene: Scene) -> None:
    scene.expect(a=health(), b=health())
    scene.show(running("a"), running("b"))
    await asyncio.sleep(5)
    scene.answers = {"a": REFUSED, "b": REFUSED}
    scene.expect(a=health(), b=health())
    await asyncio.sleep(0.1)
    assert (scene.times("a"), scene.times("b")) == (1, 1)
    scene.expect(a=health(interval=1.0, retries=2), b=health())
    assert scene.prober.ready == {"a", "b"}
    await asyncio.sleep(3)
    assert scene.prober.ready == {"b"}
    scene.expect(a=None, b=health())
    assert not scene.prober.unwell
    scene.answers = {}
    await asyncio.sleep(0.1)
    assert scene.prober.ready == {"a", "b"}


async def test_what_was_ready_before_the_agent_started_stays_so_until_it_really_fails(scene: Scene) -> None:
    began = datetime.now(UTC) - timedelta(hours=1)
    known = Component(name="a", container_name="shop-a", container_id="a", ready=True, started_at=began)
    restarted = known.model_copy(update={"container_id": "b", "started_at": began - timedelta(minutes=1)})
    scene.answers = dict.fromkeys("abc", REFUSED)
    scene.show(*(running(name, started_at=began) for name in "abc"))
    assert scene.prober.ready == frozenset()
    scene.prober.recall((known, restarted, known.model_copy(update={"container_id": "c", "ready": False})))
    assert scene.prober.ready == {"a"}
    await asyncio.sleep(100)
    assert not scene.asked
    scene.expect(**{name: health() for name in "abc"})
    assert scene.prober.ready == {"a"}
    await asyncio.sleep(18)
    assert scene.prober.ready == {"a"}
    await asyncio.sleep(14)
    assert set(scene.prober.unwell) == {"a", "b", "c"}


async def test_many_containers_found_running_are_not_asked_at_the_same_time(scene: Scene) -> None:
    names = [f"c{n}" for n in range(100)]
    scene.show(*(running(name) for name in names))
    scene.prober.recall([Component(name=n, container_name=n, container_id=n, ready=True) for n in names])
    scene.expect(**{name: health() for name in names})
    await asyncio.sleep(200)
    seconds = Counter(int(moment) for asked in scene.asked.values() for moment in asked if moment >= 100)
    assert 900 < seconds.total() < 1100
    assert max(seconds.values()) < 30


async def test_a_failure_in_ever_other_words_is_told_once_a_second_at_most(scene: Scene) -> None:
    scene.expect(a=health(liveness=False))
    scene.show(running())
    for n in range(200):
        scene.answers["a"] = Unwell(f"try {n}")
        await asyncio.sleep(0.05)
    assert 8 <= len(scene.told) <= 11


async def test_who_was_made_for_an_earlier_wish_is_asked_as_before(scene: Scene) -> None:
    """A wrong check in a new definition must not take down what goes on serving."""
    scene.show(running("a"))
    scene.expect(a=health(interval=1.0))
    await scene.answer("a", None)
    scene.prober.expect("shop", Expectation({"a": health(interval=100.0)}, frozenset({"a"})))
    await asyncio.sleep(10)
    assert scene.times() > 8
    scene.prober.expect("shop", Expectation({"a": health(interval=100.0)}))
    await asyncio.sleep(1)
    asked = scene.times()
    await asyncio.sleep(50)
    assert scene.times() == asked


async def test_who_was_made_for_an_earlier_wish_and_never_asked_only_has_to_listen(scene: Scene) -> None:
    scene.prober.expect("shop", Expectation({"a": health(retries=1, interval=1.0)}, frozenset({"a"})))
    scene.answers["a"] = None
    scene.show(running("a"))
    await asyncio.sleep(1)
    assert scene.prober.ready == {"a"}
    scene.answers["a"] = REFUSED
    await asyncio.sleep(10)
    assert (scene.prober.ready, scene.prober.unwell) == ({"a"}, {})
