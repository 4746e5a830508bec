"""Routes of whole services on a real host: many of them, contested ones, and those that the registry forgot."""

import time

import pytest

from api.conditions import ConditionType, Reason, Status
from api.gen.mc_proxy.v1 import admin_pb2
from api.service import Service
from api.spec import ServiceSpec
from stack import images
from stack.host import ZONE
from tests.system.agent.rig import Rig
from tests.system.routes.relay import Relay

pytestmark = pytest.mark.system

ROUTES = ConditionType.ROUTES_PROGRAMMED
_INTERVAL = 0.5
_AT_ONCE = 4.0
"""Seconds in which whatever needs no waiting is over on a busy machine."""


def _hostname(rig: Rig, part: str) -> str:
    return f"{part}-{rig.name}.{ZONE}"


def _says(service: Service, reason: Reason, message: str) -> bool:
    condition = service.condition(ROUTES)
    return condition is not None and (condition.reason, condition.message) == (reason, message)


async def test_components_with_several_routes_share_one_listener(rig: Rig) -> None:
    """Two names by l7 to ports of one container, one by l4 to another container that ends TLS itself."""
    both = "httpd -p 0.0.0.0:$PORT_FIRST -h /www; exec httpd -f -p 0.0.0.0:$PORT_SECOND -h /www"
    names = {part: _hostname(rig, part) for part in ("first", "second", "tls")}
    web = {
        "cmd": ["sh", "-c", both],
        "routes": [rig.route(name=part, hostname=names[part]) for part in ("first", "second")],
    }
    (tls,) = rig.spec(image=images.TLS, routes=[rig.route(mode="l4", hostname=names["tls"])]).components
    spec = rig.spec(**web)
    components = (*spec.components, tls.model_copy(update={"name": "tls"}))
    await rig.apply(spec.model_copy(update={"components": components}))
    service = await rig.until_ready()
    assert len({claim.backend for claim in service.claims}) == 3
    for part in ("first", "second"):
        assert rig.answers(hostname=names[part])
    assert rig.answers("mcp-tls v1.0.0", names["tls"], images.tls_certificate(rig.podman))
    assert sorted(rig.table.hostnames()) == sorted(names.values())


async def test_a_name_is_kept_by_a_stopped_service_and_taken_over_from_one_that_leaves_it(rig: Rig) -> None:
    """The younger is ready first and answers by another name meanwhile."""
    older, younger, wanted = rig.name, f"y{rig.name}", _hostname(rig, "wanted")

    def spec(name: str, hostname: str, *, active: bool = True) -> ServiceSpec:
        image = images.HELLO if name == older else images.HELLO_NEXT
        made = rig.spec(name, image=image, routes=[rig.route(hostname=hostname)])
        return made.model_copy(update={"active": active})

    await rig.apply(spec(older, wanted))
    await rig.until_ready(older)
    own = rig.route(name="own", hostname=_hostname(rig, "own"))
    contested = rig.route(name="contested", hostname=wanted, mode="l4")
    two = {"cmd": ["sh", "-c", "httpd -p 0.0.0.0:$PORT_OWN -h /www; exec httpd -f -p 0.0.0.0:$PORT_CONTESTED -h /www"]}
    await rig.apply(rig.spec(younger, image=images.HELLO_NEXT, routes=[own, contested], **two))
    conflict = f'{wanted}{rig.listener} is held by service "{older}"'
    await rig.until(lambda service: _says(service, Reason.CONFLICT, conflict), younger)
    assert rig.answers("mcp-hello v1.0.1", _hostname(rig, "own"))

    await rig.apply(spec(older, wanted, active=False))
    await rig.until_reason(ConditionType.READY, Reason.STOPPED, older)
    await rig.until(lambda service: not any(claim.backend for claim in service.claims), older)
    assert rig.table.hostnames() == [_hostname(rig, "own")]
    assert _says(await rig.get(younger), Reason.CONFLICT, conflict)
    await rig.apply(spec(older, wanted))
    await rig.until_ready(older)
    assert rig.answers("mcp-hello v1.0.0", wanted)

    await rig.apply(spec(older, _hostname(rig, "other")))
    left = time.monotonic()
    await rig.until_ready(younger)
    assert time.monotonic() - left < _AT_ONCE
    await rig.until_ready(older)
    assert sorted(rig.table.hostnames()) == sorted([wanted, _hostname(rig, "own"), _hostname(rig, "other")])


async def test_routes_that_the_registry_forgot_are_known_again_and_a_stranger_s_is_not(rig: Rig) -> None:
    """The registry is gone for good; containers and routes are as they were, and the definitions are applied anew."""
    other, stranger = (
        f"o{rig.name}",
        admin_pb2.Route(hostname=_hostname(rig, "other"), backend="127.0.0.1:9", mode="l4"),
    )
    await rig.apply(rig.spec())
    before = await rig.until_ready()
    rig.kill_agent()
    for path in (rig.host.layout.root / "agent").glob("registry.db*"):
        path.unlink()
    rig.table.add(rig.listener, stranger)
    rig.start_agent()
    await rig.apply(rig.spec())
    await rig.apply(rig.spec(other, routes=[rig.route(mode="l4", hostname=stranger.hostname)]))
    seen: set[Reason] = set()

    def ready(service: Service) -> bool:
        routes = service.condition(ROUTES)
        seen.update([routes.reason] if routes else [])
        return routes is not None and routes.status is Status.TRUE

    after = await rig.until(ready)
    assert Reason.CONFLICT not in seen
    assert [claim.hostname for claim in after.claims] == [rig.hostname]
    await rig.until_ready()
    rig.until_it_answers()
    assert {claim.hostname for claim in before.claims} == {claim.hostname for claim in after.claims}
    await rig.until_reason(ROUTES, Reason.CONFLICT, other)
    assert (rig.listener, stranger) in rig.table.routes()


async def test_a_slow_or_deaf_proxy_touches_no_container_and_is_right_again_within_an_interval(
    stopped: Rig, relay: Relay
) -> None:
    """What it did without being heard, and what was done to it meanwhile, is seen and mended."""
    rig = stopped
    relay.delay = 0.15
    rig.start_agent()
    await rig.apply(rig.spec())
    await rig.until_ready()
    relay.delay = 0.0
    with relay.mute():
        await rig.until_reason(ROUTES, Reason.PROXY_UNREACHABLE)
        changed = time.monotonic()
        await rig.apply(rig.spec(image=images.HELLO_NEXT))
        await rig.until_reason(ConditionType.CONTAINERS_RUNNING, Reason.CONVERGED)
        assert time.monotonic() - changed < 5
        rig.table.remove(rig.listener, rig.hostname)
    heard = time.monotonic()
    rig.until_it_answers("mcp-hello v1.0.1", seconds=_INTERVAL + _AT_ONCE)
    await rig.until_ready()
    assert time.monotonic() - heard < _INTERVAL + _AT_ONCE
    for _ in range(3):
        relay.cut()
        rig.table.remove(rig.listener, rig.hostname)
        rig.until_it_answers("mcp-hello v1.0.1", seconds=_INTERVAL + _AT_ONCE)
    await rig.until_ready()
