"""Puts the parts of mcproxyd together, in the order in which they may start and must stop."""

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import stat
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio  # type: ignore[attr-defined]  # missing in the stubs
from grpc_reflection.v1alpha import reflection

from api.gen.mc_proxy.v1 import admin_pb2, admin_pb2_grpc
from mcproxy.errors import Refused
from mcproxy.haproxy import HAProxy
from mcproxy.interceptor import TranslateErrors
from mcproxy.master import ConfigRefused
from mcproxy.model import RouteKey, State
from mcproxy.render import Listener
from mcproxy.restore import restore, seed, without_the_refused
from mcproxy.runtime import RuntimeDir
from mcproxy.service import ProxyAdmin
from mcproxy.settings import Settings
from mcproxy.store import Store
from mcproxy.table import Table
from mcproxy.upstream import UpstreamWatch

log = structlog.get_logger()

_SERVICE = admin_pb2.DESCRIPTOR.services_by_name["ProxyAdminService"].full_name
_GRACE = 1.0


class StartError(Exception):
    """mcproxyd cannot start; the message is one sentence for its operator."""


async def serve(settings: Settings) -> None:
    """Runs mcproxyd until SIGTERM or SIGINT, then lets connections finish. Raises StartError."""
    os.umask(0o077)
    stop = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        try:
            await _start(settings, stack)
        except (ConfigRefused, Refused, OSError, sqlite3.Error, RuntimeError) as error:
            raise StartError(str(error)) from error
        log.info("serving", socket=str(settings.admin.socket), listeners=sorted(settings.listener_addrs))
        await stop.wait()
        log.info("draining", timeout_seconds=settings.shutdown_timeout)


async def _start(settings: Settings, stack: contextlib.AsyncExitStack) -> None:
    started = datetime.now(UTC)
    runtime = RuntimeDir(settings.haproxy.runtime_dir)
    try:
        runtime.claim()
    except BlockingIOError:
        raise StartError(f"another mcproxyd uses {runtime.path}") from None
    store = Store(settings.database.path)
    stack.callback(store.close)
    if store.is_new:
        store.create(seed(settings))
    listeners = _listeners(settings)
    checks = health_aio.HealthServicer()
    faults: asyncio.Queue[RouteKey] = asyncio.Queue()
    haproxy = HAProxy(settings.haproxy.binary, runtime, listeners, faults, _Teller(checks))
    restored, doubtful = await restore(store, runtime, settings.listener_addrs)
    state = await without_the_refused(haproxy, restored)
    stack.push_async_callback(haproxy.stop, settings.shutdown_timeout)
    await haproxy.start(state)
    store.write(State(), state)

    table = Table(haproxy, store, state)
    watch = UpstreamWatch(table)
    await _background(stack, table.run())
    await _background(stack, watch.run(faults))
    stack.push_async_callback(watch.close)
    for key in doubtful:
        watch.doubt(key)
    admin = ProxyAdmin(table, haproxy, watch, listeners, started)
    await _serve_admin(settings.admin.socket, admin, checks, stack)


async def _serve_admin(
    path: Path, admin: ProxyAdmin, checks: health_aio.HealthServicer, stack: contextlib.AsyncExitStack
) -> None:
    """Binds the socket as the last thing of all: who can connect finds everything running."""
    _make_private(path.parent)
    server = grpc.aio.server(interceptors=[TranslateErrors()])
    admin_pb2_grpc.add_ProxyAdminServiceServicer_to_server(admin, server)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    reflection.enable_server_reflection(
        (_SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME), server
    )
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    # The umask has kept others out from its first moment; this only takes away the executable bit.
    os.chmod(path, 0o600)  # noqa: PTH101 - pathlib counts as blocking here, os does not
    stack.push_async_callback(server.stop, _GRACE)
    stack.push_async_callback(checks.enter_graceful_shutdown)


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StartError(f"{folder} is writable by others, so the admin socket in it could be replaced")


class _Teller:
    """Passes on to the health service whether HAProxy serves."""

    def __init__(self, checks: health_aio.HealthServicer) -> None:
        self._checks = checks
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, serving: bool) -> None:
        task = asyncio.create_task(self._tell(serving))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tell(self, serving: bool) -> None:
        states = health_pb2.HealthCheckResponse
        for service in ("", _SERVICE):
            await self._checks.set(service, states.SERVING if serving else states.NOT_SERVING)


async def _background(stack: contextlib.AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` until the stack unwinds."""
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    stack.push_async_callback(end)


def _listeners(settings: Settings) -> list[Listener]:
    everywhere = ("0.0.0.0", "::") if _has_ipv6() else ("0.0.0.0",)  # noqa: S104 - a public proxy's default
    return [
        Listener(
            listener.addr,
            (listener.bind,) if listener.bind else everywhere,
            listener.proxy_protocol,
            listener.max_connections,
        )
        for listener in settings.listeners
    ]


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True
