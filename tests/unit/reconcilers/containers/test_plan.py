"""What is done next for a service's containers, case by case."""

from dataclasses import replace
from datetime import timedelta

import pytest

from api.conditions import Condition, ConditionType, Reason, Status
from api.service import ContainerState, Finalizer, Service
from api.spec import RestartPolicy
from reconcilers.containers.actions import Create, Drain, Remove, Replace, Start, Stop, Unpause
from reconcilers.containers.world import World
from tests.unit.reconcilers.containers.worlds import (
    NOW,
    carried_out,
    container,
    decide,
    noted,
    requests,
    routed,
    shop,
    stranger,
    task,
    web,
    world,
)
from tests.unit.reconcilers.memory import newborn


def told(service: Service, seen: World) -> list[str]:
    return [action.describe() for action in decide(service, seen).actions]


def test_nothing_is_made_before_the_routes_have_ports() -> None:
    plan = decide(newborn(shop().spec), world())
    assert plan.actions == ()
    assert (plan.outcome.reason, plan.outcome.message) == (
        Reason.WAITING_FOR_PORTS,
        "shop-web: no port yet for route default",
    )


def test_a_contested_port_is_none() -> None:
    service = shop()
    contested = tuple(port.model_copy(update={"contested": True}) for port in service.ports)
    plan = decide(service.model_copy(update={"ports": contested}), world())
    assert (plan.actions, plan.outcome.reason) == ((), Reason.WAITING_FOR_PORTS)


def test_what_is_missing_is_created() -> None:
    plan = decide(shop(), world())
    assert [type(action) for action in plan.actions] == [Create]
    assert plan.actions[0].describe() == "create shop-web from i:1"
    assert plan.outcome.reason is Reason.PROGRESSING


def test_what_was_there_before_is_known_to_be_gone() -> None:
    service = shop()
    seen = noted(service, world(container(requests(service)["web"])))
    assert told(seen, world()) == ["create shop-web from i:1: it is gone"]


def test_what_runs_and_is_ready_is_left_alone() -> None:
    service = shop()
    plan = decide(service, world(container(requests(service)["web"])))
    assert (plan.actions, plan.outcome.status, plan.outcome.reason) == ((), Status.TRUE, Reason.CONVERGED)


def test_what_runs_and_is_not_ready_is_waited_for() -> None:
    service = shop()
    plan = decide(service, world(container(requests(service)["web"]), ready=False))
    assert (plan.actions, plan.outcome.reason) == ((), Reason.PROGRESSING)
    assert plan.outcome.message == "shop-web runs; waits until it listens on 10000"


@pytest.mark.parametrize(
    ("state", "action", "sentence"),
    [
        (ContainerState.CREATED, Start, "start shop-web: it was created, but never started"),
        (ContainerState.EXITED, Start, "start shop-web: it exited with 3"),
        (ContainerState.PAUSED, Unpause, "unpause shop-web: it is paused"),
    ],
)
def test_what_does_not_run_is_made_to(state: ContainerState, action: type, sentence: str) -> None:
    service = shop()
    plan = decide(service, world(container(requests(service)["web"], state)))
    assert [(type(done), done.describe()) for done in plan.actions] == [(action, sentence)]


@pytest.mark.parametrize("state", [ContainerState.STOPPING, ContainerState.UNKNOWN])
def test_what_is_on_its_way_somewhere_is_waited_for(state: ContainerState) -> None:
    service = shop()
    plan = decide(service, world(container(requests(service)["web"], state)))
    assert (plan.actions, plan.outcome.reason) == ((), Reason.PROGRESSING)


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"image": "i:2"}, "image i:1 -> i:2"),
        ({"env": ("A=1",)}, "env changed"),
        ({"cmd": ("serve",), "user": "1:1"}, "command changed; user changed"),
        ({"volumes": ()}, "mounts changed"),
        ({"network": "other"}, "networks changed"),
        ({"network": "host"}, "netns changed; networks changed; portmappings changed"),
        ({"ports": ("8080:80",)}, "portmappings changed"),
    ],
)
def test_a_difference_in_the_request_replaces_and_says_which(fields: dict[str, object], cause: str) -> None:
    before = container(requests(shop())["web"])
    plan = decide(shop(web(**fields)), world(before))
    assert [(type(action), action.describe()) for action in plan.actions] == [(Replace, f"replace shop-web: {cause}")]


def test_another_generation_or_restart_policy_replaces_nothing() -> None:
    before = container(requests(shop())["web"])
    assert decide(shop(web(restart="always"), generation=7), world(before)).actions == ()


def test_a_container_without_our_field_hashes_is_replaced_all_the_same() -> None:
    before = container(requests(shop())["web"])
    labels = {name: value for name, value in before.labels.items() if "hash" not in name and "fields" not in name}
    (action,) = decide(shop(), world(container(requests(shop())["web"], labels=labels))).actions
    assert isinstance(action, Replace)


def test_what_the_engine_lost_track_of_is_replaced_as_nothing_else_helps() -> None:
    lost = container(requests(shop())["web"], ContainerState.UNKNOWN, forsaken=True)
    assert told(shop(), world(lost)) == ["replace shop-web: it ended, and the engine lost track of it"]


def test_a_stranger_under_our_name_is_a_conflict() -> None:
    plan = decide(shop(), world(stranger("shop-web")))
    assert (plan.actions, plan.outcome.reason) == ((), Reason.CONFLICT)
    assert plan.outcome.message == (
        "a stranger holds the container name shop-web (container id-stranger), which stays untouched"
    )


def test_another_nodes_and_another_services_containers_are_strangers_too() -> None:
    ours = container(requests(shop())["web"])
    elsewhere = {**ours.labels, "net.metacircular.mcp.node": "orion"}
    other = {**ours.labels, "net.metacircular.mcp.service": "shop-web"}
    for labels in (elsewhere, other):
        plan = decide(shop(), world(container(requests(shop())["web"], labels=labels)))
        assert (plan.actions, plan.outcome.reason) == ((), Reason.CONFLICT)


def test_a_dropped_component_is_removed_by_id_and_a_stranger_is_not() -> None:
    both = requests(shop(web(), task()))
    seen = world(container(both["web"]), container(both["task"], id="old-task"), stranger("shop-other"))
    (action,) = decide(shop(web()), seen).actions
    assert isinstance(action, Remove)
    assert (action.container_id, action.folder) == ("old-task", "")
    assert action.describe() == "remove shop-task: the definition has no such component any more"


def test_components_are_done_in_the_order_of_the_definition_and_the_worst_is_told() -> None:
    service = shop(task(), web())
    plan = decide(service, world(stranger("shop-task")))
    assert [action.subject for action in plan.actions] == ["shop-web"]
    assert plan.outcome.reason is Reason.CONFLICT


def test_a_component_that_failed_holds_up_no_other() -> None:
    seen = replace(world(), failed=frozenset({"web"}))
    plan = decide(shop(web(), task(), task(name="more")), seen)
    assert [action.subject for action in plan.actions] == ["shop-task", "shop-more", "shop-web"]


def test_inactive_stops_what_runs_keeps_it_and_creates_nothing() -> None:
    service = shop(web(), task(), active=False)
    plan = decide(service, world(container(requests(service)["web"])))
    assert [(type(action), action.subject) for action in plan.actions] == [(Stop, "shop-web")]
    assert (plan.outcome.status, plan.outcome.reason) == (Status.FALSE, Reason.STOPPED)


def test_a_stop_waits_for_the_route_and_for_open_connections_but_not_for_ever() -> None:
    service = shop(active=False)
    seen = world(container(requests(service)["web"]))
    led_to = routed(noted(shop(), seen)).model_copy(update={"spec": service.spec})
    for waiting, here in ((led_to, seen), (service, replace(seen, busy=frozenset({"id-shop-web"})))):
        plan = decide(waiting, here)
        assert [(type(action), action.subject) for action in plan.actions] == [(Drain, "shop-web")]
        draining = carried_out(here, plan.actions)
        plan = decide(waiting, draining)
        assert (plan.actions, plan.outcome.requeue_after) == ((), timedelta(seconds=30))
        plan = decide(waiting, replace(draining, now=NOW + timedelta(seconds=30)))
        assert [(type(action), action.subject) for action in plan.actions] == [(Stop, "shop-web")]


def stopped(service: Service) -> Service:
    condition = Condition(
        type=ConditionType.CONTAINERS_RUNNING,
        status=Status.FALSE,
        reason=Reason.STOPPED,
        observed_generation=1,
        last_transition=NOW,
    )
    return service.model_copy(update={"conditions": (condition,)})


@pytest.mark.parametrize("policy", RestartPolicy)
def test_active_again_starts_what_was_stopped_whatever_its_policy(policy: RestartPolicy) -> None:
    service = stopped(shop(web(restart=policy)))
    (action,) = decide(service, world(container(requests(service)["web"], ContainerState.EXITED))).actions
    assert isinstance(action, Start)
    assert (action.restarts, action.cause) == (0, "the definition says active = true again")


def test_one_component_is_stopped_while_the_others_run() -> None:
    service = shop(web(active=False), task())
    made = requests(service)
    plan = decide(service, world(container(made["web"]), container(made["task"])))
    assert [(type(action), action.subject) for action in plan.actions] == [(Stop, "shop-web")]
    ended = world(container(made["web"], ContainerState.EXITED), container(made["task"]))
    plan = decide(noted(service, ended), ended)
    assert (plan.actions, plan.outcome.status) == ((), Status.TRUE)


@pytest.mark.parametrize("policy", RestartPolicy)
def test_a_component_that_was_stopped_alone_starts_again_whatever_its_policy(policy: RestartPolicy) -> None:
    service = shop(web(restart=policy, active=False))
    ended = world(container(requests(service)["web"], ContainerState.EXITED, exit_code=0))
    known = noted(service, ended)
    again = noted(known.model_copy(update={"spec": shop(web(restart=policy)).spec}), ended)
    (action,) = decide(again, ended).actions
    assert isinstance(action, Start)
    assert (action.restarts, action.cause) == (0, "the definition says active = true again")


def test_who_depends_on_what_is_stopped_waits_and_says_so() -> None:
    service = shop(web(active=False), task(depends_on=("web",)))
    assert decide(service, world()).outcome.message.endswith("waits for component web, which is stopped")


@pytest.mark.parametrize(
    ("policy", "code", "acts", "reason"),
    [
        (RestartPolicy.NO, 0, False, Reason.CONVERGED),
        (RestartPolicy.NO, 1, False, Reason.CONTAINER_FAILED),
        (RestartPolicy.ON_FAILURE, 0, False, Reason.CONVERGED),
        (RestartPolicy.ON_FAILURE, 137, True, Reason.PROGRESSING),
        (RestartPolicy.ALWAYS, 0, True, Reason.PROGRESSING),
        (RestartPolicy.UNLESS_STOPPED, 0, True, Reason.PROGRESSING),
        (RestartPolicy.UNLESS_STOPPED, 1, True, Reason.PROGRESSING),
    ],
)
def test_the_policy_says_whether_an_ended_container_starts_again(
    policy: RestartPolicy, code: int, acts: bool, reason: Reason
) -> None:
    service = shop(task(restart=policy))
    plan = decide(service, world(container(requests(service)["task"], ContainerState.EXITED, exit_code=code)))
    assert (bool(plan.actions), plan.outcome.reason) == (acts, reason)


@pytest.mark.parametrize(
    ("restarts", "seconds", "reason"),
    [
        (1, 11, Reason.BACKING_OFF),
        (2, 21, Reason.CONTAINER_FAILED),
        (3, 41, Reason.CONTAINER_FAILED),
        (6, 301, Reason.CONTAINER_FAILED),
        (60, 301, Reason.CONTAINER_FAILED),
    ],
)
def test_the_pause_since_the_last_start_doubles_up_to_five_minutes(restarts: int, seconds: int, reason: Reason) -> None:
    service = shop(task())
    ended = container(requests(service)["task"], ContainerState.EXITED, started_at=NOW)
    service = noted(service, world(ended), {"task": restarts})
    plan = decide(service, world(ended))
    assert (plan.actions, plan.outcome.reason) == ((), reason)
    assert plan.outcome.requeue_after == timedelta(seconds=seconds)
    assert plan.outcome.message.startswith(f"shop-task exited with 3, {restarts + 1} times in a row; it is started")
    (action,) = decide(service, world(ended, now=NOW + timedelta(seconds=seconds))).actions
    assert isinstance(action, Start)
    assert action.restarts == restarts + 1


def test_the_last_words_of_what_failed_are_told() -> None:
    service = shop(task(restart="no"))
    ended = container(requests(service)["task"], ContainerState.EXITED)
    seen = world(ended)
    plan = decide(service, World(seen.node, seen.observation, seen.ready, seen.now, {ended.id: "no space"}))
    assert plan.outcome.message == "shop-task exited with 3, and its restart policy is no; it last said: no space"


def test_restarts_are_forgotten_after_a_quiet_time() -> None:
    service = shop(task())
    calm = container(requests(service)["task"], ContainerState.EXITED, started_at=NOW - timedelta(minutes=10))
    (action,) = decide(noted(service, world(calm), {"task": 5}), world(calm)).actions
    assert isinstance(action, Start)
    assert action.restarts == 1


def test_a_new_container_does_not_inherit_restarts() -> None:
    service = shop(task())
    old = container(requests(service)["task"], ContainerState.EXITED)
    service = noted(service, world(old), {"task": 5})
    (action,) = decide(service, world(container(requests(service)["task"], ContainerState.EXITED, id="new"))).actions
    assert isinstance(action, Start)
    assert action.restarts == 1


def test_a_running_container_is_looked_at_when_its_restarts_are_to_be_forgotten() -> None:
    service = shop(task())
    running = container(requests(service)["task"], started_at=NOW - timedelta(minutes=4))
    plan = decide(noted(service, world(running), {"task": 2}), world(running))
    assert (plan.actions, plan.outcome.requeue_after) == ((), timedelta(minutes=6))


def deleting(service: Service, *finalizers: Finalizer) -> Service:
    return service.model_copy(update={"deletion_requested_at": NOW, "finalizers": finalizers})


def test_a_deletion_waits_for_the_routes() -> None:
    service = deleting(shop(), *Finalizer)
    plan = decide(service, world(container(requests(service)["web"])))
    assert (plan.actions, plan.outcome.reason) == ((), Reason.TERMINATING)


def test_a_deletion_removes_all_of_ours_and_the_folder_with_the_last_of_them() -> None:
    service = deleting(shop(web(), task(), task(name="other", volumes=())), Finalizer.CONTAINERS)
    made = [container(request) for request in requests(service).values()]
    seen = world(*made, stranger("shop-more"))
    plan = decide(service, seen)
    removals = [(action.subject, action.folder) for action in plan.actions if isinstance(action, Remove)]
    assert removals == [("shop-other", ""), ("shop-task", ""), ("shop-web", "/srv/shop")]
    assert decide(service, world(stranger("shop-more"))).actions == ()
    assert decide(service, world(stranger("shop-more"))).outcome.reason is not Reason.TERMINATING
