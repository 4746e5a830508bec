"""Listings shared by all, and wakes for those whom a change concerns: against a server that can misbehave."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message

from api.conditions import Reason
from api.gen.mc_proxy.v1 import admin_pb2 as pb
from api.resolve import Defaults
from api.spec import ComponentSpec, RouteMode, RouteSpec, ServiceSpec
from reconcilers.base import Terminal, Transient
from reconcilers.routes.mcproxy import McProxy
from reconcilers.routes.model import ProxyRoute
from reconcilers.routes.picture import Picture
from reconcilers.routes.reconciler import Routes
from tests.unit.reconcilers.memory import MemoryRegistry, newborn

A = (":443", "a.test")
B = (":443", "b.test")


Context: TypeAlias = "grpc.aio.ServicerContext[Message, Message]"


def _handler(method: Callable[..., Any], parse: Callable[[bytes], Message]) -> "grpc.RpcMethodHandler[Any, Any]":
    return grpc.unary_unary_rpc_method_handler(method, parse, lambda message: message.SerializeToString())


class Server:
    """An admin API over a dictionary, which counts its listings and fails when told to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listeners = [":443"]
        self.routes: dict[tuple[str, str], pb.Route] = {}
        self.listings = 0
        self.listed = asyncio.Condition()
        self.failure: tuple[grpc.StatusCode, str] | None = None
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        handlers = {
            "GetStatus": _handler(self.status, pb.GetStatusRequest.FromString),
            "ListRoutes": _handler(self.list, pb.ListRoutesRequest.FromString),
            "AddRoute": _handler(self.add, pb.AddRouteRequest.FromString),
            "RemoveRoute": _handler(self.remove, pb.RemoveRouteRequest.FromString),
        }
        service = pb.DESCRIPTOR.services_by_name["ProxyAdminService"].full_name
        self._server = grpc.aio.server()
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self._server.add_insecure_port(f"unix://{self.path}")
        await self._server.start()

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)

    async def status(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        async with self.listed:
            self.listings += 1
            self.listed.notify_all()
        await self._fail(context)
        return pb.GetStatusResponse(listeners=[pb.ListenerStatus(addr=addr) for addr in self.listeners])

    async def list(self, request: pb.ListRoutesRequest, context: Context) -> pb.ListRoutesResponse:
        routes = [route for (listener, _), route in self.routes.items() if listener == request.listener_addr]
        return pb.ListRoutesResponse(routes=routes)

    async def add(self, request: pb.AddRouteRequest, context: Context) -> pb.AddRouteResponse:
        await self._fail(context)
        self.routes[request.listener_addr, request.route.hostname] = request.route
        return pb.AddRouteResponse()

    async def remove(self, request: pb.RemoveRouteRequest, context: Context) -> pb.RemoveRouteResponse:
        if self.routes.pop((request.listener_addr, request.hostname), None) is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such route")
        return pb.RemoveRouteResponse()

    async def _fail(self, context: Context) -> None:
        if self.failure:
            await context.abort(*self.failure)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(tmp_path / "s")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[McProxy]:
    proxy = McProxy(str(server.path), timeout=timedelta(seconds=2))
    yield proxy
    await proxy.close()


@pytest.fixture
def picture(proxy: McProxy) -> Picture:
    return Picture(proxy, timedelta(milliseconds=20))


def route(hostname: str = "a.test", backend: str = "127.0.0.1:1") -> ProxyRoute:
    return ProxyRoute(":443", hostname, backend, RouteMode.L4)


def message(hostname: str = "a.test", backend: str = "127.0.0.1:1", mode: str = "l4") -> pb.Route:
    return pb.Route(hostname=hostname, backend=backend, mode=mode)


class Woken:
    """Who was woken so far."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._changed = asyncio.Event()

    def wake(self, name: str) -> None:
        self.names.append(name)
        self._changed.set()

    async def any(self) -> list[str]:
        """The names since last asked, at least one."""
        async with asyncio.timeout(5):
            await self._changed.wait()
        self._changed.clear()
        names, self.names = self.names, []
        return names


@asynccontextmanager
async def watched(picture: Picture | Routes, server: Server) -> AsyncIterator[Woken]:
    """The background task, after its first look."""
    woken = Woken()
    task = asyncio.create_task(picture.watch(woken.wake))
    try:
        await rounds(server, 1)
        yield woken
    finally:
        task.cancel()
        await asyncio.wait([task])


async def rounds(server: Server, count: int) -> None:
    """Returns once the table was looked at so many times more."""
    until = server.listings + count + 1
    async with asyncio.timeout(5):
        async with server.listed:
            await server.listed.wait_for(lambda: server.listings >= until)


async def test_all_who_ask_at_once_share_two_listings(picture: Picture, server: Server) -> None:
    """One that was under way when they asked may be too old for them; they share the next."""
    await asyncio.gather(*(picture.look(f"s{index}", [A]) for index in range(100)))
    assert server.listings <= 2


async def test_a_listing_is_never_older_than_the_question(picture: Picture, server: Server) -> None:
    early = asyncio.create_task(picture.look("early", [A]))
    await asyncio.sleep(0)
    server.routes[A] = message()
    assert A in (await picture.look("late", [A])).routes
    await early


async def test_all_who_wait_hear_of_one_failure(picture: Picture, server: Server) -> None:
    server.failure = (grpc.StatusCode.UNAVAILABLE, "haproxy is down")
    results = await asyncio.gather(*(picture.look(f"s{i}", [A]) for i in range(20)), return_exceptions=True)
    assert all(isinstance(result, Transient) for result in results)
    assert server.listings <= 2


async def test_only_those_are_woken_whom_a_change_concerns(picture: Picture, server: Server) -> None:
    server.routes = {A: message(), B: message("b.test")}
    await picture.look("a", [A])
    await picture.look("b", [B])
    async with watched(picture, server) as woken:
        server.routes[A] = message(backend="127.0.0.1:2")
        assert await woken.any() == ["a"]
        del server.routes[B]
        assert await woken.any() == ["b"]
        await rounds(server, 2)
        assert woken.names == []


async def test_who_waits_for_a_stranger_to_go_is_woken_when_it_does(picture: Picture, server: Server) -> None:
    server.routes[A] = message()
    await picture.look("waiting", [A])
    async with watched(picture, server) as woken:
        del server.routes[A]
        assert await woken.any() == ["waiting"]


async def test_what_a_service_does_itself_wakes_nobody(picture: Picture, server: Server) -> None:
    await picture.look("a", [A])
    async with watched(picture, server) as woken:
        await picture.add("a", route())
        await rounds(server, 2)
        await picture.remove("a", A)
        await rounds(server, 2)
        # A look that was under way meanwhile may have seen what was there before.
        await picture.look("a", [A])
        woken.names.clear()
        await rounds(server, 2)
        assert woken.names == []


async def test_who_was_forgotten_is_woken_no_more(picture: Picture, server: Server) -> None:
    await picture.look("a", [A])
    picture.forget("a")
    async with watched(picture, server) as woken:
        server.routes[A] = message()
        await rounds(server, 2)
        assert woken.names == []


async def test_a_new_listener_wakes_all(picture: Picture, server: Server) -> None:
    await picture.look("a", [A])
    async with watched(picture, server) as woken:
        server.listeners.append(":8443")
        assert await woken.any() == ["a"]


async def test_a_proxy_that_goes_wakes_each_once_and_again_when_it_is_back(picture: Picture, server: Server) -> None:
    await picture.look("a", [A])
    async with watched(picture, server) as woken:
        await server.stop()
        assert await woken.any() == ["a"]
        with pytest.raises(Transient):
            await picture.look("a", [A])
        with pytest.raises(Transient):
            await picture.look("new", [B])
        await server.start()
        assert sorted(await woken.any()) == ["a", "new"]
        await rounds(server, 2)
        assert woken.names == []


async def test_who_is_only_thought_of_is_woken_by_nothing_and_nobody_sees_less_for_it(
    proxy: McProxy, server: Server
) -> None:
    component = ComponentSpec(name="web", image="i:1", routes=(RouteSpec(port=443, hostname="a.test"),))
    kept = newborn(ServiceSpec(name="shop", components=(component,)))
    bare = kept.spec.model_copy(update={"components": (component.model_copy(update={"routes": ()}),)})
    routes = Routes(MemoryRegistry(kept), proxy, Defaults(), timedelta(milliseconds=20))
    await routes.plan(kept)
    async with watched(routes, server) as woken:
        await routes.plan(kept.model_copy(update={"spec": bare}), attend=False)
        await routes.plan(kept.model_copy(update={"name": "thought"}), attend=False)
        server.routes[A] = message()
        assert await woken.any() == ["shop"]


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, Transient, Reason.PROXY_UNREACHABLE),
        (grpc.StatusCode.INVALID_ARGUMENT, Terminal, Reason.ROUTE_REFUSED),
        (grpc.StatusCode.FAILED_PRECONDITION, Terminal, Reason.ROUTE_REFUSED),
        (grpc.StatusCode.NOT_FOUND, Terminal, Reason.LISTENER_MISSING),
        (grpc.StatusCode.INTERNAL, Transient, Reason.PROXY_ERROR),
        (grpc.StatusCode.UNIMPLEMENTED, Transient, Reason.PROXY_ERROR),
    ],
)
async def test_each_status_code_has_one_meaning(
    proxy: McProxy, server: Server, code: grpc.StatusCode, kind: type[Transient | Terminal], reason: Reason
) -> None:
    server.failure = (code, "because")
    with pytest.raises(kind, match="because") as caught:
        await proxy.add(route())
    assert isinstance(caught.value, Transient | Terminal)
    assert caught.value.reason is reason


async def test_a_listing_reads_any_stranger_s_route(proxy: McProxy, server: Server) -> None:
    server.routes = {A: message("A.TEST", mode=""), B: message("b.test", mode="of the future")}
    server.routes[B].l7_policies.add(type="require_header", value="X")
    listing = await proxy.listing()
    assert listing.routes[A].mode is RouteMode.L4
    assert listing.routes[B].policies == (("require_header", "X"),)
