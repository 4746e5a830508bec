"""The routes reconciler against a real proxy: what is asserted is its table, and the traffic."""

import asyncio
import hashlib
import http.server
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from api.conditions import Reason, Status
from api.gen.mc_proxy.v1 import admin_pb2
from api.resolve import Defaults
from api.service import Component, Finalizer, PortAllocation, ServedPort, Service
from api.spec import ComponentSpec, RouteMode, RouteSpec, ServiceSpec
from reconcilers.base import Outcome, Terminal, Transient
from reconcilers.certs.ca import EmbeddedCa
from reconcilers.certs.reconciler import Certs, CertSettings
from reconcilers.routes.mcproxy import McProxy
from reconcilers.routes.model import ProxyRoute
from reconcilers.routes.reconciler import Routes
from stack import web
from tests.system.routes.conftest import Proxyd
from tests.unit.reconcilers.memory import MemoryRegistry, newborn

pytestmark = pytest.mark.system

HOSTNAME = "shop.test"


@contextmanager
def serving(text: str) -> Iterator[int]:
    """The port of a web server that answers so."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *args: object) -> None:
            """Says nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def backend() -> Iterator[int]:
    """The port of a web server that answers "hello"."""
    with serving("hello") as port:
        yield port


def spec(listener: str, *, mode: RouteMode = RouteMode.L7, name: str = "shop", hostname: str = HOSTNAME) -> ServiceSpec:
    route = RouteSpec(port=int(listener[1:]), mode=mode, hostname=hostname)
    return ServiceSpec(name=name, components=(ComponentSpec(name="web", image="i:1", routes=(route,)),))


def running(spec: ServiceSpec, port: int) -> Service:
    """The service once ports and containers are done."""
    component = Component(name="web", container_name="x", ready=True, ports=(ServedPort(route="default", port=port),))
    allocation = PortAllocation(component="web", route="default", port=port)
    return newborn(spec, components=(component,), ports=(allocation,))


async def converge(
    reconciler: Routes | Certs, registry: MemoryRegistry, name: str = "shop"
) -> tuple[list[str], Outcome]:
    """Carries out what is planned until nothing is; returns what was done."""
    done: list[str] = []
    for _ in range(5):
        plan = await reconciler.plan(registry[name])
        if not plan.actions:
            return done, plan.outcome
        for action in plan.actions:
            await reconciler.execute(registry[name], action)
            done.append(action.describe())
    raise AssertionError(done)


class World:
    """A service with its certificate, in front of a real proxy."""

    def __init__(self, folder: Path, proxyd: Proxyd, proxy: McProxy, port: int) -> None:
        self.folder = folder
        self.later = timedelta()
        self.registry = MemoryRegistry(running(spec(proxyd.listeners[0]), port))
        ca = EmbeddedCa.open(folder / "ca", "rift", self.now)
        settings = CertSettings(folder / "certs", lifetime=timedelta(days=3))
        self.certs = Certs(self.registry, ca, settings, Defaults(), self.now)
        self.routes = Routes(self.registry, proxy, Defaults(), interval=timedelta(milliseconds=100))
        self.later = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.later

    async def converge(self) -> tuple[list[str], Outcome]:
        await converge(self.certs, self.registry)
        return await converge(self.routes, self.registry)


@asynccontextmanager
async def watched(routes: Routes) -> AsyncIterator[asyncio.Queue[str]]:
    """The names that the background task wakes."""
    woken: asyncio.Queue[str] = asyncio.Queue()
    task = asyncio.create_task(routes.watch(woken.put_nowait))
    try:
        yield woken
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
async def world(tmp_path: Path, proxyd: Proxyd, proxy: McProxy, backend: int) -> World:
    return World(tmp_path, proxyd, proxy, backend)


async def test_a_ready_service_is_answered_by_its_hostname_over_verified_tls(world: World, proxyd: Proxyd) -> None:
    done, outcome = await world.converge()
    assert len(done) == 2
    assert outcome.status is Status.TRUE
    body = await asyncio.to_thread(web.fetch, proxyd.addresses[0], HOSTNAME, world.folder / "ca/ca.pem")
    assert body == "hello"


async def test_nothing_is_sent_when_nothing_changed(world: World) -> None:
    await world.converge()
    assert (await world.converge())[0] == []


async def test_a_route_removed_behind_our_back_wakes_its_service_and_comes_back(world: World, proxyd: Proxyd) -> None:
    await world.converge()
    async with watched(world.routes) as woken:
        proxyd.table.remove(proxyd.listeners[0], HOSTNAME)
        assert await asyncio.wait_for(woken.get(), 5) == "shop"
    assert (await world.converge())[0] == [
        f"route {HOSTNAME}{proxyd.listeners[0]} to {_to(world)} by l7 (missing from the proxy)"
    ]
    assert proxyd.table.hostnames() == [HOSTNAME]


async def test_an_edited_route_of_ours_is_put_right(world: World, proxyd: Proxyd) -> None:
    await world.converge()
    proxyd.table.add(proxyd.listeners[0], admin_pb2.Route(hostname=HOSTNAME, backend="127.0.0.1:1", mode="l4"))
    (done,) = (await world.converge())[0]
    assert done.endswith("(edited by somebody: it led to 127.0.0.1:1)")
    assert proxyd.table.routes()[0][1].backend == _to(world)


async def test_a_proxy_that_lost_its_table_is_told_again_as_soon_as_it_is_back(world: World, proxyd: Proxyd) -> None:
    await world.converge()
    async with watched(world.routes) as woken:
        proxyd.table.remove(proxyd.listeners[0], HOSTNAME)
        proxyd.stop()
        assert await asyncio.wait_for(woken.get(), 5) == "shop"
        with pytest.raises(Transient) as caught:
            await world.routes.plan(world.registry["shop"])
        assert caught.value.reason is Reason.PROXY_UNREACHABLE
        while not woken.empty():
            woken.get_nowait()
        proxyd.start()
        assert await asyncio.wait_for(woken.get(), 5) == "shop"
    await world.converge()
    assert proxyd.table.hostnames() == [HOSTNAME]


async def test_a_stranger_s_route_is_a_conflict_and_stays_as_it_is(world: World, proxyd: Proxyd) -> None:
    foreign = admin_pb2.Route(hostname=HOSTNAME, backend="127.0.0.1:9", mode="l4")
    proxyd.table.add(proxyd.listeners[0], foreign)
    done, outcome = await world.converge()
    assert done == []
    assert outcome.reason is Reason.CONFLICT
    assert proxyd.table.routes() == [(proxyd.listeners[0], foreign)]
    async with watched(world.routes) as woken:
        proxyd.table.remove(proxyd.listeners[0], HOSTNAME)
        assert await asyncio.wait_for(woken.get(), 5) == "shop"
    assert (await world.converge())[1].status is Status.TRUE


async def test_a_renewed_certificate_is_served(world: World, proxyd: Proxyd) -> None:
    await world.converge()
    before = world.registry["shop"].certificates[0].fingerprint
    world.later = timedelta(days=2, minutes=1)
    (done,) = (await world.converge())[0]
    assert done.endswith("(certificate renewed)")
    assert world.registry["shop"].claims[0].certificate != before
    served = await asyncio.to_thread(_served_fingerprint, proxyd.addresses[0])
    assert served == world.registry["shop"].claims[0].certificate


async def test_a_backend_that_moves_is_told_by_one_call_and_costs_no_request(
    world: World, proxyd: Proxyd, proxy: McProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("add", "remove"):
        original = getattr(proxy, name)

        async def counted(*args: object, name: str = name, original: Callable[..., Awaitable[None]] = original) -> None:
            calls.append(name)
            await original(*args)

        monkeypatch.setattr(proxy, name, counted)
    await world.converge()
    answers: list[str] = []
    moved = asyncio.Event()

    def ask() -> None:
        while not moved.is_set():
            answers.append(web.fetch(proxyd.addresses[0], HOSTNAME, world.folder / "ca/ca.pem"))

    with ExitStack() as servers:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(2):
                tasks.create_task(asyncio.to_thread(ask))
            for text in ("second", "third", "fourth"):
                port = servers.enter_context(serving(text))
                world.registry.update("shop", components=running(spec(proxyd.listeners[0]), port).components)
                (done,) = (await world.converge())[0]
                assert "(backend changed " in done
                enough = partial(_more_than, answers, len(answers) + 20)
                await asyncio.to_thread(web.wait_for, enough, seconds=10, what="answers")
            moved.set()
    assert calls == ["add"] * 4
    assert set(answers) <= {"hello", "second", "third", "fourth"}
    assert answers[-1] == "fourth"


def _more_than(answers: list[str], count: int) -> bool:
    return len(answers) > count


async def test_a_deleted_service_leaves_no_route_and_no_claim(world: World, proxyd: Proxyd) -> None:
    await world.converge()
    world.registry.update("shop", deletion_requested_at=world.now())
    assert len((await converge(world.routes, world.registry))[0]) == 1
    assert proxyd.table.routes() == []
    assert world.registry["shop"].claims == ()
    world.registry.update("shop", finalizers=(Finalizer.CERTS, Finalizer.PORTS))
    await converge(world.certs, world.registry)
    assert list((world.folder / "certs").iterdir()) == []


async def test_a_route_that_is_already_gone_is_withdrawn(world: World, proxyd: Proxyd) -> None:
    await world.converge()
    proxyd.table.remove(proxyd.listeners[0], HOSTNAME)
    world.registry.update("shop", deletion_requested_at=world.now())
    await converge(world.routes, world.registry)
    assert world.registry["shop"].claims == ()


async def test_a_listener_that_does_not_exist_is_named_with_those_that_do(world: World, proxyd: Proxyd) -> None:
    world.registry.update("shop", spec=spec(":1", mode=RouteMode.L4))
    _, outcome = await converge(world.routes, world.registry)
    assert outcome.reason is Reason.LISTENER_MISSING
    assert all(listener in outcome.message for listener in proxyd.listeners)


async def test_what_the_proxy_refuses_is_said_in_its_own_words(proxy: McProxy, proxyd: Proxyd) -> None:
    broken = ProxyRoute(proxyd.listeners[0], HOSTNAME, "127.0.0.1:9", RouteMode.L7, "/nowhere.pem", "/nowhere.key")
    with pytest.raises(Terminal, match="nowhere") as caught:
        await proxy.add(broken)
    assert caught.value.reason is Reason.ROUTE_REFUSED


async def test_an_unknown_listener_is_not_a_reason_to_try_again(proxy: McProxy) -> None:
    with pytest.raises(Terminal) as caught:
        await proxy.add(ProxyRoute(":1", HOSTNAME, "127.0.0.1:9", RouteMode.L4))
    assert caught.value.reason is Reason.LISTENER_MISSING


async def test_a_proxy_that_accepts_but_never_answers_is_unreachable(tmp_path: Path) -> None:
    async with await asyncio.start_unix_server(lambda reader, writer: None, tmp_path / "s"):
        proxy = McProxy(str(tmp_path / "s"), timeout=timedelta(seconds=0.2))
        with pytest.raises(Transient) as caught:
            await proxy.listing()
        await proxy.close()
    assert caught.value.reason is Reason.PROXY_UNREACHABLE


async def test_a_missing_socket_is_unreachable_at_once(tmp_path: Path) -> None:
    proxy = McProxy(str(tmp_path / "nothing"))
    async with asyncio.timeout(2):
        with pytest.raises(Transient) as caught:
            await proxy.listing()
    await proxy.close()
    assert caught.value.reason is Reason.PROXY_UNREACHABLE
    assert caught.value.message == f"mc-proxy at {proxy.socket} does not answer: No such file or directory"


@pytest.mark.parametrize("step", ["claim_route", "add", "claim_route again", "remove", "release_route"])
async def test_dying_after_any_step_ends_in_the_same_place(
    world: World, proxyd: Proxyd, proxy: McProxy, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(Exception):
        pass

    target = proxy if step in {"add", "remove"} else world.registry
    method, _, again = step.partition(" ")
    original, left = getattr(target, method), [2 if again else 1]

    async def then_die(*args: object) -> None:
        await original(*args)
        left[0] -= 1
        if left[0] == 0:
            raise Died

    monkeypatch.setattr(target, method, then_die)
    if step in {"remove", "release_route"}:
        await world.converge()
        world.registry.update("shop", deletion_requested_at=world.now())
    with pytest.raises(Died):
        await world.converge()
    monkeypatch.undo()
    successor = Routes(world.registry, proxy, Defaults())
    await converge(successor, world.registry)
    deleting = world.registry["shop"].deleting
    assert proxyd.table.hostnames() == ([] if deleting else [HOSTNAME])
    assert len(world.registry["shop"].claims) == (0 if deleting else 1)


async def test_many_services_share_one_listing(world: World, proxy: McProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    flights = 0
    original = proxy.listing

    async def counted() -> object:
        nonlocal flights
        flights += 1
        return await original()

    await world.converge()
    monkeypatch.setattr(proxy, "listing", counted)
    await asyncio.gather(*(world.routes.plan(world.registry["shop"]) for _ in range(50)))
    assert flights <= 2


def _to(world: World) -> str:
    return f"127.0.0.1:{world.registry['shop'].ports[0].port}"


def _served_fingerprint(address: tuple[str, int]) -> str:
    context = ssl.create_default_context()
    # Our clock ran ahead of the machine's, for which the certificate is not valid yet.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(address, 5) as raw, context.wrap_socket(raw, server_hostname=HOSTNAME) as tls:
        return hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()
