"""The composition root: the one place that knows every part of an agent and puts them together."""

import asyncio
import gc
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import grpc.aio

from api.errors import Refused, RegistryUnavailable
from api.service import NodeStatus, Service, SnapshotStatus
from controller import listen
from controller.adoption import Adopter
from controller.agent import Agent, Loops, Task
from controller.alerts.alerts import Alerts
from controller.alerts.command import Command
from controller.alerts.discretion import Discretion
from controller.auth.door import open_door
from controller.certificate import ApiCertificate, make_tls, open_certificate
from controller.control_plane import LocalControlPlane
from controller.driver import Driver, DriverSettings
from controller.files import LocalFiles
from controller.flapping import Flapping, FlappingSettings
from controller.http import HttpServer
from controller.inspect import Inspector
from controller.inspection import LocalInspection
from controller.issuers import open_issuers
from controller.logs import configure
from controller.looks import Looks
from controller.metrics import Metrics
from controller.outside import Outside, open_outside
from controller.preview import Preview
from controller.queue import WorkQueue
from controller.recovery import history
from controller.registry import Registry, utc_now
from controller.rollouts import Rollouts
from controller.settings import ImageRegistrySettings, Settings
from controller.undefined import Undefined
from controller.wakes import ALL, Waiters, Wakes
from reconcilers.base import Reconciler
from reconcilers.certs.ca import CaUnusable, EmbeddedCa
from reconcilers.certs.issuer import Issuer
from reconcilers.certs.reconciler import Certs, CertSettings
from reconcilers.containers.guard import Guard
from reconcilers.containers.images.collection import CollectionSettings
from reconcilers.containers.images.credentials import Credentials, Login
from reconcilers.containers.images.presence import ImageSettings
from reconcilers.containers.policy import Ground, Private
from reconcilers.containers.reconciler import Containers
from reconcilers.containers.restarts import RestartBackoff
from reconcilers.containers.watching.health import Checks
from reconcilers.containers.watching.picture import Picture, PictureSettings
from reconcilers.containers.watching.probe import Prober, ProbeSettings
from reconcilers.files.model import Site
from reconcilers.files.reconciler import Files
from reconcilers.ports.reconciler import Ports, PortSettings
from reconcilers.routes.reconciler import Routes

_SCRAPE_PATIENCE = 5.0
"""Seconds that a scrape or a health check waits for the loop."""


@dataclass(frozen=True, slots=True)
class _Node:
    """The reconcilers, in the order in which they come to do something, and what keeps their pictures true."""

    reconcilers: tuple[Reconciler, ...]
    watchers: Mapping[str, Task]
    waiters: Waiters
    picture: Picture
    undefined: Undefined


def serve(settings: Settings) -> None:
    """Runs an agent until SIGTERM or SIGINT. Raises McpError where it cannot start."""
    configure(settings.log.level, settings.log.format)
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        registry = await Registry.open(settings.registry_url, settings.node)
        stack.push_async_callback(registry.close)
        ca = await _open_ca(settings)
        outside = await stack.enter_async_context(open_outside(settings))
        outside.engine.adoptions.remember(await registry.adopted_containers())
        metrics = Metrics(ALL)
        queues = {name: WorkQueue(metrics.reconciler(name).queue) for name in ALL}
        issuers = await asyncio.to_thread(open_issuers, settings, ca, utc_now)
        node = _assemble(settings, registry, issuers, outside, {name: queue.add for name, queue in queues.items()})
        certificate = await asyncio.to_thread(open_certificate, settings, ca, utc_now)
        alerts = _alerts(settings, metrics)
        inspector = Inspector(
            settings.node, registry, outside.parts, node.undefined.beside, partial(_snapshots, settings), utc_now
        )
        inspection = LocalInspection.of(
            settings, registry, outside.engine, node.picture, inspector.status, certificate, alerts
        )
        looks = Looks(queues, node.picture.refresh)
        api = await _open_api(settings, registry, outside, node, looks, inspector.status, inspection, certificate)
        # Streams last as long as their callers: they are told to come back rather than waited for.
        stack.push_async_callback(api.stop, 0)
        metrics.watch_services(partial(_services, loop, registry))
        metrics.watch_snapshots(lambda: asyncio.run_coroutine_threadsafe(inspector.snapshots(), loop).result())
        if certificate is not None:
            metrics.watch_certificate(lambda: certificate.shown().not_after)
        ready = partial(_problem, loop, inspector)
        stack.enter_context(HttpServer(settings.metrics.listen, metrics.app(), ready))
        agent = _agent(settings, registry, node, queues, metrics, alerts)
        # Only faster: what is loaded by now stays, and to look through it all for garbage stops everything for 50 ms.
        gc.collect()
        gc.freeze()
        await agent.run(stop)


async def _open_api(
    settings: Settings,
    registry: Registry,
    outside: Outside,
    node: _Node,
    looks: Looks,
    status: Callable[[], Awaitable[NodeStatus]],
    inspection: LocalInspection,
    certificate: ApiCertificate | None,
) -> grpc.aio.Server:
    """Serves the API. Raises Refused."""
    defaults, engine = settings.defaults, outside.engine
    preview = Preview(node.reconcilers)
    adopter = Adopter(settings.node, defaults, registry, engine, node.picture, outside.proxy, _guard(settings))
    containers = partial(engine.containers, settings.node)
    plane = LocalControlPlane(settings.node, registry, defaults, preview, containers, status, looks, adopter)
    files = LocalFiles(registry, preview, _site(settings), settings.files)
    door = await open_door(settings, registry)
    tls = await asyncio.to_thread(make_tls, settings, certificate)
    bounds = listen.Bounds(settings.api.max_message_bytes, settings.api.max_streams, settings.api.max_connections)
    return await listen.start(plane, inspection, files, door, Path(settings.api.socket), tls, bounds)


def _agent(
    settings: Settings,
    registry: Registry,
    node: _Node,
    queues: Mapping[str, WorkQueue],
    metrics: Metrics,
    alerts: Alerts | None,
) -> Agent:
    telling: Mapping[str, Task] = {"alerts": partial(alerts.run, registry.subscribe)} if alerts else {}
    loops = Loops(
        drivers=_drivers(settings, node.reconcilers, registry, queues, metrics),
        watchers={**node.watchers, **telling},
        wakes=Wakes(queues, registry, node.waiters),
        rollouts=Rollouts(registry, metrics),
    )
    how = settings.loop
    return Agent(registry, loops, resync_seconds=how.resync_seconds, stop_seconds=how.stop_seconds)


def _assemble(
    settings: Settings,
    registry: Registry,
    issuers: tuple[Issuer, Issuer | None],
    outside: Outside,
    wake: Mapping[str, Callable[[str], None]],
) -> _Node:
    defaults = settings.defaults
    ports = Ports(registry, defaults, PortSettings(settings.ports.low, settings.ports.high), wake["ports"])
    lifetime = timedelta(days=settings.certs.lifetime_days)
    pauses = (settings.certs.retry_first_seconds, settings.certs.retry_most_seconds)
    how = CertSettings(Path(settings.mcproxy.cert_dir), lifetime, *(timedelta(seconds=pause) for pause in pauses))
    certs = Certs(registry, issuers[0], how, defaults, utc_now, issuers[1])
    files = Files(registry.files, _site(settings), settings.files.max_bytes)
    picture = Picture(outside.engine, settings.node, PictureSettings(relist=settings.podman.relist_seconds))
    containers = Containers(
        registry,
        outside.engine,
        picture,
        Prober(settings.node, Checks(outside.engine), ProbeSettings()),
        settings.node,
        defaults,
        RestartBackoff(
            timedelta(seconds=settings.restarts.first_seconds),
            timedelta(seconds=settings.restarts.most_seconds),
            timedelta(seconds=settings.restarts.quiet_seconds),
        ),
        utc_now,
        wake["containers"],
        _guard(settings),
        _images(settings),
    )
    undefined = Undefined(settings.node, registry, picture)
    routes = Routes(registry, outside.proxy, defaults, timedelta(seconds=settings.mcproxy.interval_seconds))
    return _Node(
        reconcilers=(ports, certs, files, containers, routes),
        watchers={
            "containers-watch": containers.run,
            "certs-watch": partial(certs.run, wake["certs"]),
            "files-watch": partial(files.run, wake["files"]),
            "routes-watch": partial(routes.watch, wake["routes"]),
            "undefined-watch": undefined.run,
        },
        waiters=containers.waiting,
        picture=picture,
        undefined=undefined,
    )


def _images(settings: Settings) -> ImageSettings:
    how = settings.images
    auth_file = Path(named) if (named := os.environ.get("REGISTRY_AUTH_FILE")) else None
    return ImageSettings(
        Credentials({name: _login(one) for name, one in settings.registries.items()}, auth_file),
        how.check_seconds,
        CollectionSettings(timedelta(seconds=how.keep_seconds), how.keep_last, how.collect_seconds),
    )


def _login(registry: ImageRegistrySettings) -> Login:
    if registry.token_file:
        return Login(registry.username or "mcp", registry.token_file, "token_file", registry.tls_verify)
    return Login(registry.username, registry.password_file, "password_file", registry.tls_verify)


def _site(settings: Settings) -> Site:
    private = tuple(place.path for place in _private(settings))
    return Site(settings.files.root or settings.defaults.service_root, private)


def _guard(settings: Settings) -> Guard:
    return Guard(settings.policy, Ground(settings.defaults.service_root, _private(settings)))


def _private(settings: Settings) -> tuple[Private, ...]:
    registries = settings.registries.values()
    secrets = [settings.api.key_file, settings.acme.eab_hmac_file, settings.metacrypt.token_file]
    secrets += [path for one in registries for path in (one.password_file, one.token_file)]
    private = [
        Private(settings.podman.socket, "podman's socket"),
        Private(settings.api.socket, "the agent's socket"),
        Private(settings.state_dir, "what the agent keeps"),
        Private(settings.snapshot.folder, "what leads back to what the agent keeps"),
        *(Private(path, "a secret of the agent's") for path in secrets),
        Private(settings.mcproxy.cert_dir, "the key of a certificate", shared=True),
        Private(settings.mcproxy.socket, "mc-proxy's socket", shared=True),
    ]
    return tuple(place for place in private if place.path)


def _drivers(
    settings: Settings,
    reconcilers: tuple[Reconciler, ...],
    registry: Registry,
    queues: Mapping[str, WorkQueue],
    metrics: Metrics,
) -> tuple[Driver, ...]:
    how = DriverSettings(workers=settings.loop.workers)
    often = FlappingSettings(settings.loop.flapping_changes, settings.loop.flapping_window_seconds)
    flapping = Flapping(often, metrics.flapping.inc, utc_now)
    return tuple(
        Driver(
            reconciler,
            registry,
            queues[reconciler.name],
            metrics.reconciler(reconciler.name),
            how,
            flapping,
            utc_now,
        )
        for reconciler in reconcilers
    )


def _alerts(settings: Settings, metrics: Metrics) -> Alerts | None:
    how = settings.alerts
    if not how.command:
        return None
    command = Command(how.command, how.timeout_seconds)
    discretion = Discretion(how.kinds, how.quiet_seconds)
    return Alerts(settings.node, discretion, command.tell, lambda outcome: metrics.alerts[outcome].inc())


async def _open_ca(settings: Settings) -> EmbeddedCa:
    try:
        return await asyncio.to_thread(EmbeddedCa.open, Path(settings.state_dir) / "ca", settings.node, utc_now)
    except CaUnusable as error:
        raise Refused(str(error)) from error


def _snapshots(settings: Settings) -> SnapshotStatus:
    return history.look(settings, utc_now())


def _services(loop: asyncio.AbstractEventLoop, registry: Registry) -> tuple[Service, ...] | None:
    """All services, for a scraper's thread; None where they cannot be read now."""
    try:
        return asyncio.run_coroutine_threadsafe(registry.services(), loop).result(_SCRAPE_PATIENCE)
    except (TimeoutError, RegistryUnavailable):
        return None


def _problem(loop: asyncio.AbstractEventLoop, inspector: Inspector) -> str | None:
    """What keeps the agent from its work, for a health check's thread."""
    try:
        return asyncio.run_coroutine_threadsafe(inspector.problem(), loop).result(_SCRAPE_PATIENCE)
    except TimeoutError:
        return f"the agent's loop did not answer within {_SCRAPE_PATIENCE:g} s"
