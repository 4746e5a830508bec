"""How the agent's parts are, and what keeps the agent from its work."""

import asyncio
import threading
from collections.abc import Collection

import pytest

from api.conditions import Reason
from api.errors import RegistryUnavailable
from api.service import PartStatus, Service, SnapshotStatus, UndefinedService
from controller import inspect
from controller.inspect import Inspector
from controller.registry import Registry, utc_now
from reconcilers.base import Terminal, Transient
from tests.unit.controller.registry.samples import WORK, condition, spec

NOW = utc_now()


def nothing(_: Collection[Service]) -> tuple[UndefinedService, ...]:
    return ()


async def well() -> str:
    return "version 4.3.1"


async def gone() -> str:
    raise Transient(Reason.ENGINE_UNREACHABLE, "podman cannot be asked: gone")


async def refuses() -> str:
    raise Terminal(Reason.ROUTE_REFUSED, "mc-proxy refuses: no")


async def hangs() -> str:
    await asyncio.Event().wait()
    return ""


async def test_status_counts_services_and_names_each_part(lite: Registry) -> None:
    await lite.apply(spec("one"), actor="ann")
    await lite.apply(spec("two"), actor="ann")
    for kind in WORK:
        await lite.report("two", condition(kind))
    status = await Inspector(
        "rift", lite, {"podman": well, "mc-proxy": refuses}, nothing, SnapshotStatus, lambda: NOW
    ).status()
    assert (status.node, status.started_at, status.services, status.ready) == ("rift", NOW, 2, 1)
    assert status.parts == (
        PartStatus(name="registry", reachable=True, detail="answers"),
        PartStatus(name="podman", reachable=True, detail="version 4.3.1"),
        PartStatus(name="mc-proxy", reachable=False, detail="mc-proxy refuses: no"),
    )


async def test_nothing_is_in_the_way_when_all_answer(lite: Registry) -> None:
    assert await Inspector("rift", lite, {"podman": well}, nothing, SnapshotStatus, lambda: NOW).problem() is None


async def test_the_first_part_that_does_not_answer_is_named(lite: Registry) -> None:
    problem = await Inspector(
        "rift", lite, {"podman": gone, "mc-proxy": refuses}, nothing, SnapshotStatus, lambda: NOW
    ).problem()
    assert problem == "podman: podman cannot be asked: gone"


async def test_a_part_that_hangs_is_not_waited_for(lite: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect, "_PATIENCE", 0.05)
    problem = await Inspector("rift", lite, {"podman": hangs}, nothing, SnapshotStatus, lambda: NOW).problem()
    assert problem == "podman: does not answer within 0.05 s"


async def test_a_folder_of_snapshots_that_hangs_is_not_waited_for(
    lite: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect, "_PATIENCE", 0.05)
    answer, looks = threading.Event(), []

    def look() -> SnapshotStatus:
        looks.append(1)
        answer.wait()
        return SnapshotStatus(taken_at=NOW)

    inspector = Inspector("rift", lite, {}, nothing, look, lambda: NOW)
    for _ in range(3):
        problem = (await inspector.status()).snapshots.problem
        assert problem == "the folder of snapshots does not answer within 0.05 s"
    assert len(looks) == 1, "one look at a time"
    answer.set()
    monkeypatch.setattr(inspect, "_PATIENCE", 5)
    assert (await inspector.status()).snapshots == SnapshotStatus(taken_at=NOW)


async def test_a_registry_that_is_away_is_in_the_way(lite: Registry) -> None:
    await lite.close()
    inspector = Inspector("rift", lite, {"podman": well}, nothing, SnapshotStatus, lambda: NOW)
    problem = await inspector.problem()
    assert problem is not None
    assert problem.startswith("registry: ")
    with pytest.raises(RegistryUnavailable):
        await inspector.status()


async def test_status_counts_what_is_suspended_and_offers_what_nobody_defines(lite: Registry) -> None:
    await lite.apply(spec("one"), actor="ann")
    await lite.suspend("one", actor="ann")
    lost = UndefinedService(name="lost", containers=2)

    def undefined(services: Collection[Service]) -> tuple[UndefinedService, ...]:
        assert [service.name for service in services] == ["one"]
        return (lost,)

    status = await Inspector("rift", lite, {}, undefined, SnapshotStatus, lambda: NOW).status()
    assert (status.suspended, status.undefined) == (1, (lost,))
