"""What stands between a plan and the engine, with real links."""

from pathlib import Path

import pytest

from api.conditions import Reason, Status
from reconcilers.base import CONVERGED, Plan, Terminal
from reconcilers.containers.actions import Create, Stop
from reconcilers.containers.engine.request import ContainerRequest
from reconcilers.containers.guard import Guard, real_path
from reconcilers.containers.policy import Ground, Policy
from tests.unit.reconcilers.containers.worlds import requests, shop, task, web

GUARD = Guard(Policy(), Ground("/srv"))


def create(request: ContainerRequest) -> Create:
    return Create(component=request.component, name=request.name, cause="", request=request)


def test_what_is_forbidden_leaves_the_plan_and_the_rest_stays() -> None:
    asked = requests(shop(web(), task(privileged=True)))
    stop = Stop(component="old", name="shop-old", cause="", container_id="id")
    plan = GUARD.admitted(Plan((create(asked["web"]), create(asked["task"]), stop), CONVERGED))
    assert [action.subject for action in plan.actions] == ["shop-web", "shop-old"]
    assert (plan.outcome.status, plan.outcome.reason) == (Status.FALSE, Reason.FORBIDDEN)
    assert plan.outcome.message.startswith("shop-task: privileged: not for service shop, unless policy.privileged")
    assert plan.outcome.requeue_after is not None


def test_a_plan_with_nothing_forbidden_stays_as_it_is() -> None:
    plan = Plan((create(requests(shop())["web"]),), CONVERGED)
    assert GUARD.admitted(plan) is plan


def test_a_forbidden_request_is_refused_with_the_containers_name() -> None:
    with pytest.raises(Terminal, match=r"^shop-task: privileged: ") as refused:
        GUARD.check(requests(shop(task(privileged=True)))["task"])
    assert refused.value.reason is Reason.FORBIDDEN
    GUARD.check(requests(shop())["web"])


def test_a_link_that_was_moved_is_seen(tmp_path: Path) -> None:
    guard = Guard(Policy(), Ground(str(tmp_path)))
    (tmp_path / "inside").mkdir()
    link = tmp_path / "link"
    link.symlink_to("inside")
    guard.check_mounts("shop", "shop-web", (str(link),))
    link.unlink()
    link.symlink_to("/usr")
    with pytest.raises(Terminal, match=r"link \(which is /usr\) may not be mounted"):
        guard.check_mounts("shop", "shop-web", (str(link),))


def test_links_are_followed_also_to_what_does_not_exist_and_a_loop_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("/nowhere/at/all")
    (tmp_path / "loop").symlink_to("loop")
    assert real_path(str(tmp_path / "dangling" / "below")) == "/nowhere/at/all/below"
    assert real_path(str(tmp_path / "loop")) == ""
    assert real_path(str(tmp_path / "new" / "folder")) == str(tmp_path.resolve() / "new" / "folder")
