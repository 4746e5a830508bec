"""Reads: complete, sorted, of one node, and with few queries."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine, event

from api.fields import PortMapping
from api.service import Finalizer
from api.spec import ServiceSpec
from controller.registry import Registry, timeline
from reconcilers.base import FixedPort
from tests.unit.controller.registry.samples import certificate, claim, component, condition, happened, spec


async def test_services_are_sorted_by_name_and_say_what_each_holds(registry):
    for port, name in enumerate(["b", "a-c", "ab", "a"], 10001):
        await registry.apply(spec(name), actor="ann")
        await registry.allocate_port(name, "web", "default", port)
        await registry.record_certificate(name, certificate(f"{name}.example", f"/certs/{name}.pem"))
        await registry.record_component(name, component())
        await registry.claim_route(name, claim(f"{name}.example"))
        await registry.report(name, condition())
    services = await registry.services()
    assert [service.name for service in services] == ["a", "a-c", "ab", "b"]
    for service in services:
        assert service == await registry.service(service.name)
        assert [claim.hostname for claim in service.claims] == [f"{service.name}.example"]
        assert len(service.ports) == len(service.certificates) == len(service.components) == 1


async def test_no_service_is_none(registry):
    assert await registry.service("hello") is None
    assert await registry.revisions("hello") == ()
    await registry.ping()


@contextmanager
def counted() -> Iterator[list[str]]:
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def test_the_number_of_queries_does_not_grow_with_the_services(registry):
    counts = []
    for name in ["a", "b", "c"]:
        await registry.apply(spec(name), actor="ann")
        with counted() as statements:
            await registry.services()
        counts.append(len(statements))
    assert counts == [6, 6, 6]


async def test_of_many_services_only_those_are_read_again_that_changed(sqlite):
    registry = await Registry.open(sqlite, "rift")
    names = [f"s{number:02}" for number in range(20)]
    for name in names:
        await registry.apply(spec(name), actor="ann")
    await registry.services()
    with counted() as statements:
        assert [service.name for service in await registry.services()] == names
    assert statements == []
    await registry.report("s03", condition())
    await registry.apply(spec("new"), actor="ann")
    await registry.apply(spec("s19"), actor="ann")
    for finalizer in (await registry.request_deletion("s07", actor="ann")).finalizers:
        await registry.remove_finalizer("s07", finalizer)
    remembered = await registry.services()
    assert [service.name for service in remembered] == sorted({*names, "new"} - {"s07"})
    await registry.close()
    registry = await Registry.open(sqlite, "rift")
    assert await registry.services() == remembered
    await registry.close()


async def test_a_port_tells_who_names_it_and_who_has_it(registry):
    parts = [
        {"name": "web", "image": "x:1", "ports": ["8080:80", "127.0.0.1:8081:81/udp"], "env": ['A="ports":["8082"]']},
        {"name": "db", "image": "x:1", "ports": ["127.0.0.2:8080:5432", "9000"]},
    ]
    await registry.apply(ServiceSpec.model_validate({"name": "shop", "components": parts}), actor="ann")
    await registry.apply(spec(), actor="ann")
    await registry.allocate_port("hello", "web", "default", 10001)
    assert await registry.fixed_ports([]) == ()
    assert await registry.fixed_ports([8081, 80, 8082, 10001]) == (
        FixedPort("shop", "web", PortMapping(host="127.0.0.1", host_port=8081, container_port=81, protocol="udp")),
    )
    assert [port.component for port in await registry.fixed_ports({8080, 9000})] == ["web", "db", "db"]
    assert await registry.port_holders([8080, 10001]) == {10001: "hello"}
    assert await registry.port_holders([]) == {}


async def test_events_are_the_newest_oldest_first(registry):
    await registry.apply(spec(), actor="ann")
    await registry.apply(spec("other"), actor="ann")
    await registry.report("hello", happened("1", "2", "3"))
    assert [event.message for event in await registry.events(limit=2)] == ["2", "3"]
    events = await registry.events("hello")
    assert [event.message for event in events] == ["generation 1", "1", "2", "3"]
    assert [event.id for event in events] == sorted(event.id for event in events)
    assert [event.message for event in await registry.events(after_id=events[2].id)] == ["3"]
    assert [event.service for event in await registry.events("other")] == ["other"]


async def test_old_events_are_forgotten_by_service_and_by_node(registry, url, monkeypatch):
    monkeypatch.setattr(timeline, "KEPT", 60)
    monkeypatch.setattr(timeline, "KEPT_PER_SERVICE", 40)
    monkeypatch.setattr(timeline, "PRUNE_EVERY", 10)
    for name in ["a", "b"]:
        await registry.apply(spec(name), actor="ann")
        for number in range(59):
            await registry.report(name, happened(str(number)))
    assert [event.message for event in await registry.events("b", limit=1000)][-40:] == [str(n) for n in range(19, 59)]
    assert 40 <= len(await registry.events("b", limit=1000)) < 50
    assert 60 <= len(await registry.events(limit=1000)) < 70
    await registry.close()
    again = await Registry.open(url, "rift")
    assert len(await again.events("b", limit=1000)) == 40
    assert len(await again.events(limit=1000)) == 60
    await again.close()


async def test_nodes_that_share_a_database_do_not_see_each_other(postgres_url):
    here = await Registry.open(postgres_url, "here")
    there = await Registry.open(postgres_url, "there")
    for registry in (here, there):
        await registry.apply(spec(), actor="ann")
        await registry.allocate_port("hello", "web", "default", 10001)
        await registry.claim_route("hello", claim())
        await registry.record_certificate("hello", certificate())
    await there.apply(spec("other"), actor="ann")
    await there.request_deletion("hello", actor="ann")
    for finalizer in Finalizer:
        await there.remove_finalizer("hello", finalizer)
    assert [service.name for service in await here.services()] == ["hello"]
    assert await here.allocated_ports() == {10001}
    assert await here.claim_holder(":443", "hello.example") == "hello"
    assert await here.certificate_holder("/certs/hello.pem") == "hello"
    assert [event.kind for event in await here.events()] == ["created"]
    assert len((await here.service("hello")).ports) == 1
    assert [service.name for service in await there.services()] == ["other"]
    await here.close()
    await there.close()
