"""Whatever is done in whatever order, what the registry says hangs together."""

import asyncio
import tempfile
from contextlib import suppress
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from api.conditions import ConditionType, Reason, Status, summarize
from api.errors import NotFound, Refused
from api.service import Finalizer, Service
from api.spec import ServiceSpec
from controller.registry import Registry, Report
from reconcilers.base import Claimed, PortTaken
from tests.unit.controller.registry.samples import WORK, claim, condition, spec

NAMES = st.sampled_from(["a", "b"])


@dataclass(frozen=True)
class Apply:
    spec: ServiceSpec

    async def run(self, registry: Registry) -> None:
        await registry.apply(self.spec, actor="ann")


@dataclass(frozen=True)
class Say:
    name: str
    report: Report

    async def run(self, registry: Registry) -> None:
        await registry.report(self.name, self.report)


@dataclass(frozen=True)
class Delete:
    name: str

    async def run(self, registry: Registry) -> None:
        await registry.request_deletion(self.name, actor="ann")


@dataclass(frozen=True)
class Finalize:
    name: str
    finalizer: Finalizer

    async def run(self, registry: Registry) -> None:
        await registry.remove_finalizer(self.name, self.finalizer)


@dataclass(frozen=True)
class Take:
    name: str
    port: int

    async def run(self, registry: Registry) -> None:
        await registry.allocate_port(self.name, "web", "default", self.port)
        await registry.claim_route(self.name, claim(f"{self.port}.example"))


def _report(kind: ConditionType, status: Status, reason: Reason, generation: int) -> Report:
    return condition(kind, status, reason, str(reason), generation)


STEPS = st.one_of(
    st.builds(Apply, st.builds(spec, NAMES, st.sampled_from(["v1", "v2"]))),
    st.builds(
        Say,
        NAMES,
        st.builds(
            _report,
            st.sampled_from(WORK),
            st.sampled_from(Status),
            st.sampled_from([Reason.CONVERGED, Reason.STOPPED, Reason.PENDING]),
            st.integers(1, 4),
        ),
    ),
    st.builds(Delete, NAMES),
    st.builds(Finalize, NAMES, st.sampled_from(Finalizer)),
    st.builds(Take, NAMES, st.integers(1, 2)),
)


def check(service: Service, before: Service | None) -> None:
    ready = service.condition(ConditionType.READY)
    others = tuple(known for known in service.conditions if known is not ready)
    assert ready is not None
    assert (ready.status, ready.reason, ready.message) == summarize(others, service.generation)
    assert ready.observed_generation == service.generation
    assert all(known.observed_generation <= service.generation for known in others)
    assert service.finalizers
    assert service.deleting or service.finalizers == tuple(Finalizer)
    if before is None or before.uid != service.uid:
        return
    assert service.generation - before.generation == (service.spec != before.spec)
    assert set(service.finalizers) <= set(before.finalizers)
    assert service.deleting or not before.deleting
    for known in service.conditions:
        earlier = before.condition(known.type)
        if earlier is not None:
            assert known.observed_generation >= earlier.observed_generation
            assert (known.last_transition == earlier.last_transition) == (known.status is earlier.status)


async def follow(steps: list[Apply | Say | Delete | Finalize | Take], folder: str) -> None:
    registry = await Registry.open(f"sqlite:///{folder}/registry.db", "rift")
    before: dict[str, Service] = {}
    last_event = 0
    for step in steps:
        with suppress(NotFound, Refused, PortTaken, Claimed):
            await step.run(registry)
        services = await registry.services()
        for service in services:
            check(service, before.get(service.name))
            assert [kept.generation for kept in await registry.revisions(service.name)] == list(
                range(1, service.generation + 1)
            )
        ports = [port.port for service in services for port in service.ports]
        names = [claim.hostname for service in services for claim in service.claims]
        assert len(set(ports)) == len(ports)
        assert len(set(names)) == len(names)
        assert await registry.allocated_ports() == set(ports)
        newest = await registry.events(after_id=last_event)
        last_event = newest[-1].id if newest else last_event
        before = {service.name: service for service in services}
    await registry.close()


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, max_size=30))
def test_any_sequence_keeps_what_must_always_hold(steps):
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(follow(steps, folder))
