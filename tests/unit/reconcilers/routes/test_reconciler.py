"""What the routes reconciler does where there is no proxy; with one, see the system tests."""

import pytest

from api.conditions import Reason
from api.resolve import Defaults
from api.service import RouteClaim, Service
from api.spec import ComponentSpec, RouteMode, RouteSpec, ServiceSpec
from reconcilers.base import Terminal
from reconcilers.routes.model import Withdraw
from reconcilers.routes.reconciler import Routes
from tests.unit.reconcilers.memory import MemoryRegistry, newborn

CLAIM = RouteClaim(listener=":443", hostname="shop.test", component="web", route="default", mode=RouteMode.L4)
ROUTE = RouteSpec(port=443, hostname="shop.test")


def service(*routes: RouteSpec, active: bool = True, image: str = "i:1", **changes: object) -> Service:
    component = ComponentSpec(name="web", image=image, routes=routes)
    return newborn(ServiceSpec(name="shop", active=active, components=(component,)), **changes)


async def reason_of(wanted: Service) -> Reason:
    return (await Routes(MemoryRegistry(wanted), None, Defaults()).plan(wanted)).outcome.reason


@pytest.mark.parametrize("wanted", [service(ROUTE), service(claims=(CLAIM,))])
async def test_routes_without_a_proxy_are_the_operator_s_to_solve(wanted: Service) -> None:
    with pytest.raises(Terminal, match=r"mcproxy\.socket") as caught:
        await reason_of(wanted)
    assert caught.value.reason is Reason.PROXY_NOT_CONFIGURED


async def test_a_service_without_routes_needs_no_proxy() -> None:
    assert await reason_of(service()) is Reason.NOT_NEEDED
    assert await reason_of(service(ROUTE, active=False)) is Reason.STOPPED
    assert await reason_of(service(ROUTE, deletion_requested_at=service().created_at)) is Reason.NOT_NEEDED


async def test_a_claim_is_never_let_go_without_having_told_the_proxy() -> None:
    held = service(claims=(CLAIM,), deletion_requested_at=service().created_at)
    registry = MemoryRegistry(held)
    routes = Routes(registry, None, Defaults())
    (action,) = (await routes.plan(held)).actions
    assert isinstance(action, Withdraw)
    with pytest.raises(Terminal):
        await routes.execute(held, action)
    assert registry["shop"].claims == (CLAIM,)


async def test_a_definition_that_this_node_cannot_resolve_is_the_operator_s_to_mend() -> None:
    with pytest.raises(Terminal) as caught:
        await reason_of(service(ROUTE, image="i:latest"))
    assert caught.value.reason is Reason.INVALID_SPEC
