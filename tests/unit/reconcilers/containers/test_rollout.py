"""How the containers of one component take turns, case by case."""

from dataclasses import replace
from datetime import timedelta

import pytest

from api.conditions import Reason, Status
from api.service import ContainerState, Service
from api.spec import ComponentSpec, HealthSpec, RestartPolicy
from reconcilers.base import Plan
from reconcilers.containers import model
from reconcilers.containers.actions import Create, Drain, GiveUp, Promote, Remove, Replace, Restart, Restore, Start
from reconcilers.containers.model import ContainerObservation
from reconcilers.containers.rollout import SETTLES
from reconcilers.containers.world import World
from tests.unit.reconcilers.containers.worlds import (
    NOW,
    container,
    decide,
    noted,
    requests,
    routed,
    shop,
    task,
    web,
    with_ports,
    world,
)

OLD_IMAGE, NEW_IMAGE = "i:1", "i:2"
LATER = NOW + timedelta(hours=1)


def service(strategy: str, image: str, **fields: object) -> Service:
    component = web(image=image, update={"strategy": strategy, "deadline": "1m", "drain": "30s"}, **fields)
    return with_ports(shop(component, generation=2), 0, 1)


def before(strategy: str) -> ContainerObservation:
    """The container of the generation before, ready for a long time."""
    return container(requests(service(strategy, OLD_IMAGE).model_copy(update={"generation": 1}))["web"], id="old")


def newcomer(
    strategy: str, state: ContainerState = ContainerState.RUNNING, *, age: timedelta = timedelta(), **fields: object
) -> ContainerObservation:
    """The new container, beside the old one or in its place, `age` after its start."""
    slot = 1 if strategy == "blue-green" else 0
    request = requests(service(strategy, NEW_IMAGE), slot)["web"]
    called = request.named(request.name + model.NEXT) if slot else request
    times: dict[str, object] = {"created_at": NOW - age, "started_at": NOW - age}
    return container(called, state, id="new", **{**times, **fields})


def aside(found: ContainerObservation) -> ContainerObservation:
    """The old container, stopped and out of the way."""
    return replace(found, name=found.name + model.OLD, state=ContainerState.EXITED, pid=0, exit_code=0)


def seen(*containers: ContainerObservation, ready: tuple[str, ...] = ()) -> World:
    return replace(world(*containers), ready=frozenset(ready))


def kinds(plan: Plan) -> list[type]:
    return [type(action) for action in plan.actions]


@pytest.mark.parametrize(
    ("strategy", "kind", "sentence"),
    [
        ("blue-green", Create, "create shop-web.next from i:2: image i:1 -> i:2"),
        ("recreate", Replace, "replace shop-web: image i:1 -> i:2"),
    ],
)
def test_a_change_makes_a_new_container_and_keeps_the_old_one(strategy: str, kind: type, sentence: str) -> None:
    old = before(strategy)
    plan = decide(service(strategy, NEW_IMAGE), seen(old, ready=("old",)))
    assert [(type(action), action.describe()) for action in plan.actions] == [(kind, sentence)]
    if isinstance(plan.actions[0], Replace):
        assert plan.actions[0].aside == "shop-web.old"
    else:
        assert isinstance(plan.actions[0], Create)
        assert (plan.actions[0].request.slot, plan.actions[0].request.called) == (1, "shop-web.next")


@pytest.mark.parametrize("strategy", ["blue-green", "recreate"])
def test_what_was_not_ready_is_nothing_to_go_back_to(strategy: str) -> None:
    plan = decide(service(strategy, NEW_IMAGE), seen(before(strategy)))
    assert [getattr(action, "aside", None) for action in plan.actions] == [""]


def test_beside_the_old_one_the_new_one_is_waited_for() -> None:
    plan = decide(service("blue-green", NEW_IMAGE), seen(before("blue-green"), newcomer("blue-green"), ready=("old",)))
    assert (plan.actions, plan.outcome.reason) == ((), Reason.PROGRESSING)
    assert plan.outcome.requeue_after == timedelta(minutes=1)


def test_an_old_one_that_ends_meanwhile_is_started_again() -> None:
    old = replace(before("blue-green"), state=ContainerState.EXITED, exit_code=1, pid=0)
    plan = decide(service("blue-green", NEW_IMAGE), seen(old, newcomer("blue-green")))
    assert kinds(plan) == [Start]


def test_a_ready_one_waits_for_its_routes_then_settles_then_drains_the_old_one_then_takes_its_name() -> None:
    old, new = before("blue-green"), newcomer("blue-green")
    here = seen(old, new, ready=("old", "new"))
    unrouted = routed(noted(service("blue-green", OLD_IMAGE), seen(old, ready=("old",))))
    told = noted(service("blue-green", NEW_IMAGE), here)

    waiting = decide(told.model_copy(update={"claims": unrouted.claims}), here)
    assert (waiting.actions, waiting.outcome.reason) == ((), Reason.PROGRESSING)
    assert "waits until its routes lead to it" in waiting.outcome.message

    led = routed(told)
    settling = decide(led, here)
    assert (settling.actions, settling.outcome.requeue_after) == ((), SETTLES)

    later = replace(here, now=NOW + SETTLES, busy=frozenset({"old"}))
    draining = decide(led, later)
    assert kinds(draining) == [Drain]

    busy = replace(later, draining={"old": NOW})
    patient = decide(led, busy)
    assert (patient.actions, patient.outcome.requeue_after) == ((), timedelta(seconds=27))

    for idle in (replace(busy, busy=frozenset()), replace(busy, now=NOW + timedelta(seconds=30))):
        done = decide(led, idle)
        assert [(type(a), a.subject) for a in done.actions] == [(Remove, "shop-web"), (Promote, "shop-web")]
        assert done.actions[1].describe() == "replace shop-web: image i:1 -> i:2"
        assert done.outcome.status is Status.TRUE
        assert all(action.follows for action in done.actions)


def test_an_agent_that_died_before_the_name_was_given_gives_it() -> None:
    plan = decide(service("blue-green", NEW_IMAGE), seen(newcomer("blue-green"), ready=("new",)))
    assert kinds(plan) == [Promote]


@pytest.mark.parametrize("strategy", ["blue-green", "recreate"])
@pytest.mark.parametrize(
    ("state", "age", "failure"),
    [
        (ContainerState.EXITED, timedelta(seconds=1), "exited with 3; it last said: no such table"),
        (ContainerState.RUNNING, timedelta(minutes=1), "is not ready 1 min after its start: waits until it listens on"),
    ],
)
def test_a_new_one_that_fails_is_given_up_and_what_was_before_goes_on(
    strategy: str, state: ContainerState, age: timedelta, failure: str
) -> None:
    new = newcomer(strategy, state, age=age)
    old = before(strategy) if strategy == "blue-green" else aside(before(strategy))
    here = replace(seen(old, new, ready=("old",)), last_words={"new": "no such table"})
    plan = decide(service(strategy, NEW_IMAGE), here)
    assert kinds(plan) == [GiveUp]
    assert failure in plan.actions[0].describe()
    assert plan.outcome.reason is Reason.ROLLOUT_FAILED
    given_up = plan.actions[0]
    assert isinstance(given_up, GiveUp)

    told = after_giving_up(noted(service(strategy, NEW_IMAGE), here), given_up)
    then = decide(told, seen(old, ready=("old",)))
    assert kinds(then) == ([] if strategy == "blue-green" else [Restore])
    assert (then.outcome.status, then.outcome.reason) == (Status.FALSE, Reason.ROLLOUT_FAILED)
    assert failure in then.outcome.message

    serving = decide(told, seen(before(strategy), ready=("old",)))
    assert (serving.actions, serving.outcome.reason) == ((), Reason.ROLLOUT_FAILED)


def after_giving_up(told: Service, action: GiveUp) -> Service:
    (component,) = told.components
    failed = {
        "failed_generation": action.generation,
        "failed_request": action.request,
        "failure": action.cause,
    }
    return told.model_copy(update={"components": (component.model_copy(update=failed),)})


def test_the_next_generation_starts_fresh() -> None:
    old, new = before("blue-green"), newcomer("blue-green", ContainerState.EXITED)
    here = seen(old, new, ready=("old",))
    given_up = decide(service("blue-green", NEW_IMAGE), here).actions[0]
    assert isinstance(given_up, GiveUp)
    told = after_giving_up(noted(service("blue-green", NEW_IMAGE), here), given_up)
    assert decide(told, seen(old, ready=("old",))).actions == ()
    again = told.model_copy(update={"generation": 3})
    assert kinds(decide(again, seen(old, ready=("old",)))) == [Create]


def test_a_recreation_ends_once_the_new_one_has_settled() -> None:
    here = seen(aside(before("recreate")), newcomer("recreate"), ready=("new",))
    young = decide(service("recreate", NEW_IMAGE), here)
    assert (young.actions, young.outcome.status, young.outcome.requeue_after) == ((), Status.TRUE, SETTLES)
    settled = decide(service("recreate", NEW_IMAGE), replace(here, now=NOW + SETTLES))
    assert [(type(action), action.subject) for action in settled.actions] == [(Remove, "shop-web.old")]


def test_what_the_engine_refuses_to_make_is_given_up_too() -> None:
    here = replace(seen(aside(before("recreate"))), refused={"web": "no such secret"})
    plan = decide(service("recreate", NEW_IMAGE), here)
    assert [(type(a), a.describe()) for a in plan.actions] == [(GiveUp, "give up shop-web: no such secret")]


def test_a_definition_taken_back_in_the_middle_brings_the_old_one_back() -> None:
    plan = decide(service("recreate", OLD_IMAGE), seen(aside(before("recreate"))))
    assert kinds(plan) == [Restore]


def test_a_first_container_that_does_not_become_ready_in_time_needs_a_person_and_stays() -> None:
    new = newcomer("recreate", age=timedelta(minutes=1))
    plan = decide(service("recreate", NEW_IMAGE), seen(new))
    assert (plan.actions, plan.outcome.reason) == ((), Reason.ROLLOUT_FAILED)


def test_a_moved_tag_is_drift_only_where_it_was_asked_for() -> None:
    asked = shop(web(pull="newer"))
    old = replace(container(requests(asked)["web"]), image_id="a")
    here = world(old)
    assert decide(asked, here).actions == ()
    moved = replace(here, newest={"i:1": "b"})
    assert [action.describe() for action in decide(asked, moved).actions] == ["replace shop-web: the tag i:1 moved"]
    assert decide(asked, replace(here, newest={"i:1": "a"})).actions == ()


def checked(**fields: object) -> ComponentSpec:
    return web(health=HealthSpec(http="/", interval="10s", retries=3), **fields)


def test_who_is_unwell_is_restarted_with_growing_pauses() -> None:
    asked = shop(checked())
    running = replace(container(requests(asked)["web"]), started_at=NOW - timedelta(seconds=5))
    here = replace(seen(running), unwell={running.id: "health check failed 3 times: connection refused"})
    first = decide(noted(asked, here), here)
    assert [(type(action), action.describe()) for action in first.actions] == [
        (Restart, "restart shop-web: health check failed 3 times: connection refused")
    ]
    second = decide(noted(asked, here, {"web": 1}), here)
    assert (second.actions, second.outcome.reason) == ((), Reason.UNHEALTHY)
    assert second.outcome.requeue_after == timedelta(seconds=6)
    third = decide(noted(asked, here, {"web": 2}), here)
    assert third.outcome.reason is Reason.CONTAINER_FAILED
    assert "for the 3rd time" in third.outcome.message


def test_who_must_not_be_restarted_is_not() -> None:
    asked = shop(checked(restart=RestartPolicy.NO))
    running = container(requests(asked)["web"])
    plan = decide(asked, replace(seen(running), unwell={running.id: "x"}, trouble={running.id: "x"}))
    assert (plan.actions, plan.outcome.reason) == ((), Reason.UNHEALTHY)


def test_a_component_waits_for_those_that_it_depends_on() -> None:
    asked = shop(web(depends_on=("task",)), task())
    assert [action.subject for action in decide(asked, world()).actions] == ["shop-task"]
    assert decide(asked, world()).outcome.reason in (Reason.PROGRESSING, Reason.WAITING_FOR_DEPENDENCY)
    unready = seen(container(requests(asked)["task"]))
    plan = decide(asked, unready)
    assert plan.actions == ()
    ready = replace(unready, ready=frozenset({"id-shop-task"}))
    assert [action.subject for action in decide(asked, ready).actions] == ["shop-web"]


def test_a_task_that_ended_well_is_waited_for_no_more() -> None:
    asked = shop(web(depends_on=("task",)), task(restart="no"))
    done = container(requests(asked)["task"], ContainerState.EXITED, exit_code=0)
    assert [action.subject for action in decide(asked, seen(done)).actions] == ["shop-web"]


def test_after_a_reboot_what_ended_waits_as_well_and_what_runs_is_left_alone() -> None:
    asked = shop(web(depends_on=("task",)), task())
    made = requests(asked)
    ended = seen(*(container(request, ContainerState.EXITED) for request in made.values()))
    assert [action.subject for action in decide(asked, ended).actions] == ["shop-task"]
    web_runs = seen(container(made["web"]), container(made["task"], ContainerState.EXITED), ready=("id-shop-web",))
    assert [action.subject for action in decide(asked, web_runs).actions] == ["shop-task"]


def test_a_service_waits_for_other_services() -> None:
    plan = decide(shop(), replace(world(), unready={"mcias": "is not ready: mcias-api"}))
    assert (plan.actions, plan.outcome.reason) == ((), Reason.WAITING_FOR_DEPENDENCY)
    assert plan.outcome.message == "shop-web waits for service mcias, which is not ready: mcias-api"


@pytest.mark.parametrize("strategy", ["blue-green", "recreate"])
def test_a_stop_in_the_middle_of_an_update_leaves_one_container_that_does_not_run(strategy: str) -> None:
    new = newcomer(strategy)
    old = before(strategy) if strategy == "blue-green" else aside(before(strategy))
    stopped = service(strategy, NEW_IMAGE)
    stopped = stopped.model_copy(update={"spec": stopped.spec.model_copy(update={"active": False})})
    drained = replace(seen(old, new), draining={"old": NOW, "new": NOW})
    left = "shop-web.next" if strategy == "blue-green" else "shop-web.old"
    assert [(a.verb, a.subject) for a in decide(stopped, drained).actions] == [
        ("removed", left),
        ("stopped", "shop-web"),
    ]


@pytest.mark.parametrize("strategy", ["recreate", "blue-green"])
def test_a_restart_replaces_a_container_in_the_way_in_which_it_is_updated(strategy: str) -> None:
    same = service(strategy, OLD_IMAGE).model_copy(update={"generation": 1})
    seen = world(before(strategy))
    assert decide(noted(same, seen), seen).actions == ()
    asked = noted(same, seen).model_copy(update={"restarts": {"web": 1}, "generation": 2, "actor": "alice"})
    (action,) = decide(asked, seen).actions
    assert isinstance(action, Replace if strategy == "recreate" else Create)
    assert action.cause == "restart asked by alice"
