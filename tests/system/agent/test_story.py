"""The lines of the demo: a definition becomes an answered request, drift is corrected, and all of it goes again."""

import signal

import pytest

from api.conditions import ConditionType, Reason
from api.gen.mc_proxy.v1 import admin_pb2
from api.service import Change
from stack import images, processes
from stack.host import ZONE
from tests.system.agent.rig import Rig, restarted

pytestmark = pytest.mark.system


async def test_a_definition_becomes_an_answer_over_verified_tls(rig: Rig) -> None:
    applied = await rig.apply(rig.spec())
    assert applied.change is Change.CREATED
    service = await rig.until_ready()
    assert rig.answers()
    assert {condition.type for condition in service.conditions} == set(ConditionType) - {ConditionType.FLAPPING}
    assert [claim.hostname for claim in service.claims] == [rig.hostname]
    assert rig.files() == [f"{rig.name}.key", f"{rig.name}.pem"]
    assert (rig.host.cert_dir / f"{rig.name}.key").stat().st_mode & 0o777 == 0o600


async def test_tls_passes_through_to_a_container_on_the_same_listener(rig: Rig) -> None:
    name = f"t{rig.name}"
    passthrough = rig.spec(name, image=images.TLS, routes=[rig.route(mode="l4", hostname=f"tls.{ZONE}")])
    await rig.apply(rig.spec())
    await rig.apply(passthrough)
    await rig.until_ready()
    service = await rig.until_ready(name)
    assert rig.answers("mcp-tls v1.0.0", f"tls.{ZONE}", images.tls_certificate(rig.podman))
    assert rig.answers()
    assert service.certificates == ()


async def test_a_killed_container_runs_again(rig: Rig) -> None:
    await rig.apply(rig.spec())
    before = await rig.until_ready()
    process = processes.identify(int(rig.inspect("{{.State.Pid}}")))
    assert process is not None
    processes.end(process, sig=signal.SIGKILL)
    after = await rig.until(restarted(before))
    assert after.components[0].container_id == before.components[0].container_id
    rig.until_it_answers()


async def test_a_removed_container_is_made_again(rig: Rig) -> None:
    await rig.apply(rig.spec())
    before = await rig.until_ready()
    rig.podman.run("rm", "--force", "--time", "0", rig.container)
    await rig.until(restarted(before))
    rig.until_it_answers()
    assert rig.containers() == [rig.container]


async def test_a_removed_route_is_programmed_again(rig: Rig) -> None:
    await rig.apply(rig.spec())
    await rig.until_ready()
    rig.table.remove(rig.listener, rig.hostname)
    rig.until_it_answers()
    assert [(event.kind, event.drift) for event in await rig.events()][-1] == ("programmed", True)


async def test_a_deleted_certificate_is_issued_again_and_served(rig: Rig) -> None:
    await rig.apply(rig.spec())
    before = await rig.until_ready()
    (rig.host.cert_dir / f"{rig.name}.pem").unlink()
    old = before.certificates[0].fingerprint
    new = (await rig.until(lambda s: s.certificates[0].fingerprint not in (old, ""))).certificates[0].fingerprint
    await rig.until(lambda s: s.claims[0].certificate == new)
    assert rig.answers()


async def test_a_proxy_that_lost_its_table_gets_it_back(rig: Rig) -> None:
    await rig.apply(rig.spec())
    await rig.until_ready()
    rig.host.stop_proxy()
    rig.host.forget_routes()
    rig.host.start_proxy()
    rig.until_it_answers()


async def test_when_all_containers_are_wiped_all_come_back(rig: Rig) -> None:
    names = [rig.name, f"b{rig.name}", f"c{rig.name}"]
    for name in names:
        await rig.apply(rig.spec(name))
    before = [await rig.until_ready(name) for name in names]
    rig.podman.run("rm", "--force", "--time", "0", *(f"{name}-web" for name in names))
    for service in before:
        await rig.until(restarted(service), service.name)
        rig.until_it_answers(hostname=f"{service.name}.svc.{ZONE}")
    assert rig.containers() == sorted(f"{name}-web" for name in names)


async def test_a_start_amid_a_forced_removal_leaves_no_process_and_no_port_behind(rig: Rig) -> None:
    await rig.apply(rig.spec())
    service = await rig.until_ready()
    ports = service.ports
    ids = []
    for _ in range(4):
        ids.append(service.components[0].container_id)
        rig.podman.run("rm", "--force", "--time", "0", rig.container)
        service = await rig.until(restarted(service))
        rig.until_it_answers()
    assert service.ports == ports
    rig.until_nothing_runs_of(ids)


async def test_a_changed_definition_rolls(rig: Rig) -> None:
    await rig.apply(rig.spec())
    before = await rig.until_ready()
    applied = await rig.apply(rig.spec(image=images.HELLO_NEXT))
    assert (applied.change, applied.service.generation) == (Change.CONFIGURED, 2)
    after = await rig.until_ready()
    rig.until_it_answers("mcp-hello v1.0.1")
    assert after.components[0].container_id != before.components[0].container_id
    assert after.components[0].generation == 2
    assert rig.containers() == [rig.container]


async def test_delete_leaves_no_trace_and_no_stranger_is_touched(rig: Rig) -> None:
    stranger, foreign = f"x{rig.name}", admin_pb2.Route(hostname="foreign.test", backend="127.0.0.1:9", mode="l4")
    await rig.apply(rig.spec())
    await rig.until_ready()
    rig.podman.run("run", "--detach", "--name", stranger, "--network", rig.host.network, images.HELLO)
    try:
        rig.table.add(rig.listener, foreign)
        there = rig.inspect("{{.Id}} {{.State.StartedAt}}", stranger)
        await rig.delete()
        gone = [event.actor for event in await rig.events() if event.kind in ("withdrew", "removed", "released")]
        assert gone == ["routes", "containers", "certs", "ports"]
        assert (rig.containers(), rig.files(), rig.table.hostnames()) == ([], [], ["foreign.test"])
        assert not (rig.host.layout.root / "srv" / rig.name).exists()
        assert rig.inspect("{{.Id}} {{.State.StartedAt}}", stranger) == there
        assert rig.host.network in rig.podman.run("network", "ls", "--quiet").split()
    finally:
        rig.podman.run("rm", "--force", "--time", "0", stranger)


async def test_a_strangers_container_stays_and_its_name_is_taken_over_once_it_goes(rig: Rig) -> None:
    rig.podman.run("run", "--detach", "--name", rig.container, images.HELLO)
    try:
        there = rig.inspect("{{.Id}} {{.State.StartedAt}}")
        await rig.apply(rig.spec())
        condition = await rig.until_reason(ConditionType.CONTAINERS_RUNNING, Reason.CONFLICT)
        assert there[:12] in condition.message
        assert rig.inspect("{{.Id}} {{.State.StartedAt}}") == there
    finally:
        rig.podman.run("rm", "--force", "--time", "0", rig.container)
    await rig.until_ready()
    assert rig.answers()


async def test_a_strangers_route_stays_and_its_name_is_taken_over_once_it_goes(rig: Rig) -> None:
    foreign = admin_pb2.Route(hostname=rig.hostname, backend="127.0.0.1:9", mode="l4")
    rig.table.add(rig.listener, foreign)
    await rig.apply(rig.spec())
    condition = await rig.until_reason(ConditionType.ROUTES_PROGRAMMED, Reason.CONFLICT)
    assert "127.0.0.1:9" in condition.message
    assert rig.table.routes() == [(rig.listener, foreign)]
    rig.table.remove(rig.listener, rig.hostname)
    await rig.until_ready()
    assert rig.answers()
