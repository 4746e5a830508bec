"""What depends on something else comes after it: at the first start, after a reboot, and from an empty engine."""

from collections.abc import Mapping
from datetime import datetime
from functools import partial

import pytest

from api.conditions import ConditionType, Reason
from api.errors import McpError
from api.service import Service
from api.spec import ServiceSpec
from stack import images
from tests.system.agent.rig import Rig, is_ready

pytestmark = pytest.mark.system

RUNNING = ConditionType.CONTAINERS_RUNNING
TIERS: Mapping[str, tuple[str, ...]] = {
    "identity": (),
    "ca": ("identity",),
    "mail": ("identity", "ca"),
    "shop": ("mail",),
}


def tiered(rig: Rig) -> list[ServiceSpec]:
    """The services of a host in which each needs others, in an order that helps nobody."""
    return [
        rig.spec(name, routes=[rig.route(hostname=f"{name}.test")]).model_copy(update={"depends_on": needs})
        for name, needs in reversed(TIERS.items())
    ]


def started(rig: Rig, name: str) -> datetime:
    """When it was last started, as its engine says."""
    day, time, *_ = rig.inspect("{{.State.StartedAt}}", f"{name}-web").split()
    return datetime.fromisoformat(f"{day} {time[:15]}")


def started_in_order(rig: Rig) -> None:
    when = {name: started(rig, name) for name in TIERS}
    for name, needs in TIERS.items():
        assert all(when[need] < when[name] for need in needs), when


async def test_services_start_after_those_that_they_depend_on_whatever_is_applied_first(rig: Rig) -> None:
    for spec in tiered(rig):
        await rig.apply(spec)
    waiting = await rig.until_reason(RUNNING, Reason.CONVERGED, "identity")
    assert waiting.observed_generation == 1
    for name in TIERS:
        await rig.until_ready(name)
    started_in_order(rig)


@pytest.mark.parametrize("emptied", [False, True], ids=["everything stopped", "podman empty"])
async def test_after_a_reboot_everything_comes_back_in_order_and_what_was_stopped_stays_so(
    rig: Rig, emptied: bool
) -> None:
    stopped = rig.spec("stopped", routes=[])
    await rig.apply(stopped)
    for spec in tiered(rig):
        await rig.apply(spec)
    for name in ("stopped", *TIERS):
        await rig.until_ready(name)
    await rig.apply(stopped.model_copy(update={"active": False}))
    await rig.until_reason(RUNNING, Reason.STOPPED, "stopped")
    before = {name: started(rig, name) for name in TIERS}
    rig.host.stop_agent()
    names = rig.containers()
    rig.podman.run("rm" if emptied else "stop", *(["--force"] if emptied else []), "--time", "0", *names)
    rig.start_agent()
    for name in TIERS:
        await rig.until(partial(is_ready_anew, rig, before[name]), name)
    started_in_order(rig)
    rig.until_it_answers(hostname="shop.test")
    assert "stopped-web" not in rig.containers("status=running")


def is_ready_anew(rig: Rig, before: datetime, service: Service) -> bool:
    """Whether it is ready in a container that was started since."""
    shown = rig.containers(f"name=^{service.name}-web$", "status=running")
    return is_ready(service) and shown != [] and started(rig, service.name) > before


async def test_components_start_after_those_that_they_depend_on(rig: Rig) -> None:
    """A task that ends well is waited for as well."""
    parts = [
        {"name": "web", "image": images.HELLO, "routes": [rig.route()], "depends_on": ["db", "migrate"]},
        {"name": "migrate", "image": images.EXIT, "env": ["CODE=0"], "restart": "no", "depends_on": ["db"]},
        {"name": "db", "image": images.HELLO, "health": {"exec": ["/bin/ls", "/www"]}},
    ]
    await rig.apply(ServiceSpec.model_validate({"name": rig.name, "components": parts}))
    await rig.until_ready()
    created = [
        event.message.split()[0] for event in await rig.events() if event.kind == "created" and "-" in event.message
    ]
    assert created == [f"{rig.name}-db", f"{rig.name}-migrate", f"{rig.name}-web"]


async def test_who_waits_says_for_whom(rig: Rig) -> None:
    await rig.apply(rig.spec().model_copy(update={"depends_on": ("nobody",)}))
    condition = await rig.until_reason(RUNNING, Reason.WAITING_FOR_DEPENDENCY)
    assert condition.message == f"{rig.container} waits for service nobody, which does not exist"
    await rig.apply(rig.spec("nobody", routes=[], cmd=["/bin/sleep", "1000"], stop_timeout="1s"))
    await rig.until_ready()


async def test_a_circle_is_refused(rig: Rig) -> None:
    await rig.apply(rig.spec("one", routes=[]).model_copy(update={"depends_on": ("two",)}))
    with pytest.raises(McpError, match="one"):
        await rig.apply(rig.spec("two", routes=[]).model_copy(update={"depends_on": ("one",)}))
