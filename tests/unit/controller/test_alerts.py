"""Somebody is told of what needs a person: by a real command, of the right things, and not too often."""

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from api.conditions import Reason
from api.inspection import FindingState
from api.service import Event
from api.timeline import NodeEvent
from controller import checks
from controller.alerts.alerts import MAX_WAITING, Alerts
from controller.alerts.command import Attempt, Command, Outcome
from controller.alerts.discretion import AlertKind, Discretion
from controller.kinds import failure
from controller.registry import ChangeKind, EventDraft, Registry, RegistryChange, Report
from controller.registry.subscription import Hub
from stack.web import wait_for
from tests.unit.controller.registry.samples import NOON, spec

DEFAULT: tuple[AlertKind, ...] = ("failed", "recovered", "flapping", "calmed")
QUIET = 3600.0
REFUSED = failure(Reason.CONTAINER_REFUSED, "no such user")
AWAY = failure(Reason.ENGINE_UNREACHABLE, "podman is away")


def event(kind: str, message: str = "", number: int = 1, **of: object) -> Event:
    known = {"service": "shop", "generation": 1, "actor": "containers", "id": number, "at": NOON}
    return Event.model_validate({**known, "kind": kind, "message": message, **of})


FAILED, RECOVERED = event("failed", REFUSED), event("recovered", actor="mcp-agent")
FLAPPING, CALMED = event("flapping", actor="mcp-agent"), event("calmed", actor="mcp-agent")


def discretion(*kinds: AlertKind) -> Discretion:
    return Discretion(kinds or DEFAULT, QUIET)


# What is told, and when.


@pytest.mark.parametrize(
    ("happened", "kind"),
    [
        (FAILED, "failed"),
        (event("failed", AWAY), "retrying"),
        (event("failed", "OfAnotherAgent: words"), "retrying"),
        (RECOVERED, "recovered"),
        (FLAPPING, "flapping"),
        (CALMED, "calmed"),
        (event("ready"), "ready"),
        (event("postponed"), "postponed"),
        (event("left alone", failure(Reason.SUSPENDED, "due")), "left alone"),
        (event("created", drift=True), "drift"),
    ],
)
def test_each_kind_is_told_where_it_is_asked_for(happened: Event, kind: AlertKind) -> None:
    assert discretion(kind).hear(happened, 0)
    assert discretion().hear(happened, 0) == (kind in DEFAULT)
    assert not Discretion((), QUIET).hear(happened, 0)


def test_what_mcp_does_for_a_wish_is_told_to_nobody() -> None:
    assert not discretion().hear(event("created"), 0)


def test_the_same_is_told_once_and_then_again_if_it_lasts() -> None:
    decides = discretion()
    assert decides.hear(FAILED, 0)
    newer = event("failed", REFUSED, number=7)
    assert not decides.hear(event("failed", REFUSED, number=5), 60)
    assert not decides.hear(newer, 120)
    assert (decides.next_due(), decides.due(QUIET - 1)) == (QUIET, ())
    assert decides.due(QUIET) == (newer,)
    assert (decides.next_due(), decides.due(QUIET * 9)) == (None, ())


def test_of_trouble_that_comes_and_goes_the_last_word_is_the_truth() -> None:
    decides = discretion()
    assert [decides.hear(one, at) for at, one in enumerate((FAILED, RECOVERED))] == [True, True]
    # A second time within the hour: neither is told ...
    assert [decides.hear(one, at) for at, one in enumerate((FAILED, RECOVERED), 10)] == [False, False]
    assert decides.next_due() is None
    # ... and a third time it stays.
    assert not decides.hear(FAILED, 20)
    assert decides.due(QUIET) == (FAILED,)
    assert decides.hear(RECOVERED, QUIET + 1)


@pytest.mark.parametrize(
    "other", [{"service": "forum"}, {"generation": 2}, {"actor": "certs"}], ids=lambda other: next(iter(other))
)
def test_other_trouble_is_not_held_back(other: dict[str, object]) -> None:
    decides = discretion()
    assert decides.hear(FAILED, 0)
    assert decides.hear(FAILED.model_copy(update=other), 1)


def test_what_is_held_back_of_an_earlier_generation_is_nobodys_concern() -> None:
    decides = discretion()
    decides.hear(FAILED, 0)
    decides.hear(FAILED, 1)
    decides.hear(event("configured", actor="ann", generation=2), 2)
    assert decides.next_due() is None


def test_what_is_over_after_the_quiet_is_news_when_it_comes_again() -> None:
    decides = discretion()
    decides.hear(FAILED, 0)
    assert decides.hear(FAILED, QUIET)


def test_nothing_is_held_twice_where_it_is_heard_anew_before_it_was_due() -> None:
    decides = discretion()
    decides.hear(FAILED, 0)
    decides.hear(FAILED, 1)
    assert decides.hear(event("failed", REFUSED, number=9), QUIET)
    assert decides.next_due() is None


def test_that_a_generation_is_ready_ends_the_failure_that_was_told() -> None:
    decides, ready = discretion(), event("ready", actor="mcp-agent", generation=2)
    assert not decides.hear(ready, 0)
    assert decides.hear(FAILED, 1)
    assert decides.hear(ready, 2)
    assert not decides.hear(ready, 3)


def test_the_end_of_what_an_earlier_agent_told_is_told() -> None:
    assert discretion().hear(CALMED, 0)


def test_a_service_that_is_gone_has_nothing_wrong_with_it() -> None:
    decides = discretion()
    for _ in range(2):
        decides.hear(FLAPPING, 0)
        decides.hear(event("flapping", actor="mcp-agent", service="forum"), 0)
    decides.forget("shop")
    assert [one.service for one in decides.due(QUIET)] == ["forum"]


# The command.


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a command of a few lines of shell that knows its folder as $0's."""

    def make(body: str) -> Path:
        path = tmp_path / "notify"
        path.write_text(f"#!/bin/sh\ncd {tmp_path}\n{body}\n")
        path.chmod(0o700)
        return path

    return make


def at_rift(happened: Event) -> NodeEvent:
    return NodeEvent(node="rift", **dict(happened))


async def tell(path: Path, *words: str, seconds: float = 10.0) -> Attempt:
    return await Command((str(path), *words), seconds).tell(at_rift(FAILED))


async def test_the_command_gets_the_event_and_nothing_of_the_agents_secrets(
    script: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_REGISTRY_URL", "postgresql://mcp:hunter2@db/mcp")
    attempt = await tell(script('cat >got; env >env; echo "$2" >word'), "--to", "the ops; $HOME")
    assert attempt == Attempt(at_rift(FAILED), Outcome.TOLD)
    assert NodeEvent.model_validate_json((tmp_path / "got").read_text()) == at_rift(FAILED)
    assert list(json.loads((tmp_path / "got").read_text()))[-1] == "node"
    assert (tmp_path / "word").read_text() == "the ops; $HOME\n"
    environment = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert environment["PATH"] == os.environ["PATH"]
    of_ours = {name: value for name, value in environment.items() if name.startswith("MCP_")}
    assert of_ours == {"MCP_SERVICE": "shop", "MCP_KIND": "failed", "MCP_NODE": "rift"}
    assert environment.keys() <= of_ours.keys() | {"PATH", "HOME", "LANG", "TZ", "PWD", "OLDPWD", "SHLVL", "_"}


async def test_what_it_says_of_a_failure_stands_in_the_agents_log(
    script: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    attempt = await tell(script("echo out; echo nobody there >&2; exit 22"))
    assert (attempt.outcome, attempt.detail) == (Outcome.FAILED, "ended with status 22")
    assert capfd.readouterr() == ("", "out\nnobody there\n")
    attempt = await tell(script("kill -TERM $$"))
    assert (attempt.outcome, attempt.detail) == (Outcome.FAILED, "was ended by SIGTERM")
    attempt = await tell(script("kill -40 $$"))
    assert (attempt.outcome, attempt.detail) == (Outcome.FAILED, "was ended by signal 40")


async def test_one_that_reads_nothing_may_do_so(script: Callable[[str], Path]) -> None:
    path = script("exec true")
    long = at_rift(event("failed", "x" * (1 << 20)))
    assert (await Command((str(path),), 10.0).tell(long)).outcome is Outcome.TOLD


async def test_one_that_hangs_is_killed_with_all_that_it_started(script: Callable[[str], Path], tmp_path: Path) -> None:
    attempt = await tell(script("sleep 60 & echo $! >pid; trap '' TERM; wait; wait"), seconds=0.5)
    assert (attempt.outcome, attempt.detail) == (Outcome.TIMEOUT, "did not end within 0.5 s")
    await until_gone(int((tmp_path / "pid").read_text()))


async def test_one_that_runs_as_the_agent_ends_is_killed(script: Callable[[str], Path], tmp_path: Path) -> None:
    telling = asyncio.create_task(tell(script("sleep 60 & echo $! >part; mv part pid; wait"), seconds=60))
    await asyncio.to_thread(wait_for, (tmp_path / "pid").exists, seconds=10, what="the command")
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    await until_gone(int((tmp_path / "pid").read_text()))


async def test_one_that_is_only_just_started_as_the_agent_ends_is_killed(
    script: Callable[[str], Path], tmp_path: Path
) -> None:
    telling = asyncio.create_task(tell(script("sleep 60 & echo $! >part; mv part pid; wait")))
    for _ in range(2):  # the telling begins, and then the command
        await asyncio.sleep(0)
    # The loop stands still meanwhile: it does not know yet that the command runs.
    wait_for((tmp_path / "pid").exists, seconds=10, what="the command")
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    await until_gone(int((tmp_path / "pid").read_text()))


async def until_gone(pid: int) -> None:
    def lives() -> bool:
        # Whoever reaps it may be slow.
        status = Path(f"/proc/{pid}/stat")
        return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"

    await asyncio.to_thread(wait_for, lambda: not lives(), seconds=5, what="its end")


async def test_one_that_is_not_there_or_cannot_be_run_is_said(script: Callable[[str], Path], tmp_path: Path) -> None:
    missing = await tell(tmp_path / "nothing")
    assert (missing.outcome, missing.detail) == (Outcome.FAILED, "cannot be run: No such file or directory")
    path = script("true")
    path.chmod(0o600)
    assert (await tell(path)).detail == "cannot be run: Permission denied"
    path.chmod(0o700)
    path.write_text("no program")
    assert (await tell(path)).detail == "cannot be run: Exec format error"


def test_the_doctor_looks_at_the_command_and_at_how_the_last_run_went(
    script: Callable[[str], Path], tmp_path: Path
) -> None:
    def state(path: Path, last: Attempt | None = None) -> tuple[FindingState, str]:
        finding = checks.alerts([str(path)], last)
        assert bool(finding.advice) == (finding.state is not FindingState.OK)
        return finding.state, finding.found.removeprefix(f"{path}: ")

    path = script("true")
    assert checks.alerts([], None).state is FindingState.OK
    assert state(path) == (FindingState.OK, "there was nothing to tell yet")
    assert state(path, Attempt(at_rift(FAILED), Outcome.TOLD)) == (
        FindingState.OK,
        "the last one was told, of shop (failed)",
    )
    failed = Attempt(at_rift(FAILED), Outcome.FAILED, "ended with status 22")
    assert state(path, failed) == (
        FindingState.WARNING,
        "the last one, of shop (failed), failed: it ended with status 22",
    )
    assert state(tmp_path / "nothing")[0] is FindingState.PROBLEM
    path.chmod(0o600)
    if os.getuid():
        assert state(path)[0] is FindingState.PROBLEM


# Both together.


class Told:
    """Stands where the command does, takes so long, and remembers."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.ids: list[int] = []
        self.counted: Counter[Outcome] = Counter()
        self.breaks = False

    async def tell(self, happened: NodeEvent) -> Attempt:
        await asyncio.sleep(self.seconds)
        self.ids.append(happened.id)
        if self.breaks:
            raise RuntimeError("a defect")
        return Attempt(happened, Outcome.TOLD)

    def count(self, outcome: Outcome) -> None:
        self.counted[outcome] += 1


@asynccontextmanager
async def listening(tell: Callable[[NodeEvent], Awaitable[Attempt]], told: Told) -> AsyncIterator[tuple[Hub, Alerts]]:
    hub, alerts = Hub(), Alerts("rift", discretion(), tell, told.count)
    running = asyncio.create_task(alerts.run(hub.subscribe))
    await asyncio.sleep(0)
    yield hub, alerts
    hub.close()
    await running


def happens(hub: Hub, *events: Event) -> None:
    hub.publish(RegistryChange(one.service, ChangeKind.EVENT, one) for one in events)


def of(service: str, number: int) -> Event:
    return event("failed", REFUSED, number=number, service=service)


@pytest.mark.looptime
async def test_what_lasts_is_told_again_when_the_quiet_is_over() -> None:
    told = Told()
    async with listening(told.tell, told) as (hub, _):
        happens(hub, of("shop", 1))
        await asyncio.sleep(60)
        happens(hub, of("shop", 2), of("forum", 3))
        await asyncio.sleep(1)
        assert told.ids == [1, 3]
        await asyncio.sleep(QUIET - 62)
        assert told.ids == [1, 3]
        await asyncio.sleep(2)
        assert told.ids == [1, 3, 2]
    assert told.counted == {Outcome.TOLD: 3}


@pytest.mark.looptime
async def test_one_at_a_time_and_the_newest_of_too_many() -> None:
    told = Told(seconds=1.0)
    async with listening(told.tell, told) as (hub, _):
        happens(hub, of("first", 0))
        await asyncio.sleep(0.5)
        happens(hub, *(of(f"s{number}", number) for number in range(1, MAX_WAITING + 11)))
        await asyncio.sleep(1)
        assert told.ids == [0]
        await asyncio.sleep(MAX_WAITING)
        assert told.ids == [0, *range(11, MAX_WAITING + 11)]
    assert told.counted == {Outcome.TOLD: MAX_WAITING + 1, Outcome.DROPPED: 10}


@pytest.mark.looptime
async def test_a_defect_in_telling_costs_one_alert() -> None:
    told = Told()
    told.breaks = True
    async with listening(told.tell, told) as (hub, alerts):
        happens(hub, of("a", 1))
        await asyncio.sleep(1)
        told.breaks = False
        happens(hub, of("b", 2))
        await asyncio.sleep(1)
        assert alerts.last is not None
        assert alerts.last.event.service == "b"


@pytest.mark.looptime
async def test_a_service_that_goes_takes_along_what_was_held_back() -> None:
    told = Told()
    async with listening(told.tell, told) as (hub, _):
        happens(hub, of("shop", 1), of("shop", 2))
        await asyncio.sleep(1)
        hub.publish([RegistryChange("shop", ChangeKind.GONE), RegistryChange("", ChangeKind.EVENT)])
        await asyncio.sleep(2 * QUIET)
    assert told.ids == [1]


async def test_only_what_happens_from_now_on_is_told(lite: Registry) -> None:
    told, done = Told(), asyncio.Event()

    async def tell(happened: NodeEvent) -> Attempt:
        done.set()
        return await told.tell(happened)

    alerts = Alerts("rift", discretion(), tell, told.count)
    await lite.apply(spec("shop"), actor="ann")
    await lite.report("shop", Report(events=(EventDraft("failed", REFUSED, "containers", 1),)))
    running = asyncio.create_task(alerts.run(lite.subscribe))
    await asyncio.sleep(0)
    await lite.report("shop", Report(events=(EventDraft("flapping", "words", "mcp-agent", 1),)))
    async with asyncio.timeout(5):
        await done.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [one.kind for one in await lite.events("shop") if one.id in told.ids] == ["flapping"]
