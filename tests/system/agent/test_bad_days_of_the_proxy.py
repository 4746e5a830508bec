"""mc-proxy missing, dying and hanging: containers never mind, and routes are right again within one interval."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from api.conditions import ConditionType, Reason, Status
from api.service import Change
from stack import images, processes
from tests.system.agent.rig import Rig

pytestmark = pytest.mark.system

ROUTES = ConditionType.ROUTES_PROGRAMMED


async def test_a_proxy_that_is_not_there_yet_holds_up_no_container(stopped: Rig) -> None:
    rig = stopped
    rig.host.stop_proxy()
    rig.start_agent()
    await rig.apply(rig.spec())
    condition = await rig.until_reason(ROUTES, Reason.PROXY_UNREACHABLE)
    assert condition.status is Status.UNKNOWN
    await rig.until_reason(ConditionType.CONTAINERS_RUNNING, Reason.CONVERGED)
    rig.host.start_proxy()
    await rig.until_ready()
    assert rig.answers()


async def test_a_proxy_that_dies_holds_up_no_change_of_a_container(rig: Rig) -> None:
    await rig.apply(rig.spec())
    await rig.until_ready()
    rig.host.stop_proxy(signal.SIGKILL)
    await rig.until_reason(ROUTES, Reason.PROXY_UNREACHABLE)
    assert (await rig.apply(rig.spec(image=images.HELLO_NEXT))).change is Change.CONFIGURED
    await rig.until_reason(ConditionType.CONTAINERS_RUNNING, Reason.CONVERGED)
    rig.host.start_proxy()
    await rig.until_ready()
    rig.until_it_answers("mcp-hello v1.0.1")


async def test_a_proxy_that_hangs_is_unknown_and_right_again_when_it_goes_on(stopped: Rig) -> None:
    rig = stopped
    rig.start_agent(MCP_MCPROXY_TIMEOUT_SECONDS="2")
    await rig.apply(rig.spec())
    before = await rig.until_ready()
    with frozen(rig, "mcproxyd"):
        await rig.until_reason(ROUTES, Reason.PROXY_UNREACHABLE)
        assert rig.answers()
        assert (await rig.get()).components == before.components
    await rig.until_ready()
    assert rig.answers()


async def test_a_deletion_waits_for_a_proxy_that_is_away(rig: Rig) -> None:
    """Its container goes only once nothing leads to it any more."""
    await rig.apply(rig.spec())
    await rig.until_ready()
    rig.host.stop_proxy()
    async with rig.client() as client:
        await client.delete(rig.name)
    await rig.until_reason(ROUTES, Reason.PROXY_UNREACHABLE)
    assert rig.containers() == [rig.container]
    rig.host.start_proxy()
    await rig.until_gone()
    assert (rig.containers(), rig.files(), rig.table.hostnames()) == ([], [], [])


async def test_a_listener_that_the_proxy_lacks_is_named(rig: Rig) -> None:
    await rig.apply(rig.spec(routes=[rig.route(port=1)]))
    condition = await rig.until_reason(ROUTES, Reason.LISTENER_MISSING)
    assert condition.message.endswith(f"mc-proxy has no listener :1; it has {rig.listener}")


@contextmanager
def frozen(rig: Rig, name: str) -> Iterator[None]:
    """A program of the host that is there, but does nothing."""
    process = processes.running(rig.host.layout, name)
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)
