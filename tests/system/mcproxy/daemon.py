"""A real mcproxyd with files of its own, as its users start it."""

import asyncio
import signal
import socket
import stat
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from api.gen.mc_proxy.v1 import admin_pb2 as pb
from api.gen.mc_proxy.v1 import admin_pb2_grpc
from tests.system.mcproxy.authority import Files

PROGRAM = Path(sys.executable).parent / "mcproxyd"


def free_port() -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def mode(path: Path) -> int:
    """The file's permissions."""
    return stat.S_IMODE(path.lstat().st_mode)


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Waits until a condition holds that nothing tells of."""
    deadline = time.monotonic() + seconds
    while not await holds():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.01)


class Daemon:
    """mcproxyd with one or more listeners; `ports` are theirs."""

    def __init__(self, folder: Path, listeners: Sequence[str] = ("",), extra: str = "", head: str = "") -> None:
        self.folder = folder
        self.runtime = folder / "run"
        self.database = folder / "db" / "mc-proxy.db"
        self.admin_socket = folder / "admin" / "admin.sock"
        self.config = folder / "mcproxy.toml"
        self.log = folder / "log"
        self.ports = [free_port() for _ in listeners]
        self._head = head
        self.configure(listeners, extra)
        self.process: Process | None = None
        self._changes = 0
        self._channel: grpc.aio.Channel | None = None

    def configure(self, listeners: Sequence[str], extra: str = "") -> None:
        """Writes the configuration file; each listener's text is added to its addr and bind."""
        tables = [
            f'[[listeners]]\naddr = ":{port}"\nbind = "127.0.0.1"\n{options}\n'
            for port, options in zip(self.ports, listeners, strict=True)
        ]
        self.config.write_text(
            f'{self._head}\n[admin]\nsocket = "{self.admin_socket}"\n[database]\npath = "{self.database}"\n'
            f'[haproxy]\nruntime_dir = "{self.runtime}"\n{"".join(tables)}{extra}'
        )

    @property
    def port(self) -> int:
        """The first listener's port."""
        return self.ports[0]

    @property
    def addr(self) -> str:
        """The first listener's address, as routes name it."""
        return f":{self.ports[0]}"

    async def start(self) -> None:
        """Returns when the health service says SERVING."""
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                PROGRAM, "server", "-v", "-c", self.config, stdin=DEVNULL, stdout=DEVNULL, stderr=log
            )
        await until(self.serving, 20)

    async def serving(self) -> bool:
        """Whether the health service says SERVING."""
        assert self.process is not None
        assert self.process.returncode is None, self.log.read_text()
        async with grpc.aio.insecure_channel(f"unix:{self.admin_socket}") as channel:
            try:
                answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
            except grpc.aio.AioRpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def end(self, sign: signal.Signals = signal.SIGTERM, seconds: float = 20) -> int:
        """Ends mcproxyd and gives its exit code."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(sign)
        return await asyncio.wait_for(self.process.wait(), seconds)

    @property
    def admin(self) -> "admin_pb2_grpc.ProxyAdminServiceAsyncStub":
        """The admin API."""
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(f"unix:{self.admin_socket}")
        return admin_pb2_grpc.ProxyAdminServiceStub(self._channel)

    async def l4(self, hostname: str, backend: int | str, *, listener: int = 0, **fields: object) -> None:
        """Adds a route that passes TLS through."""
        await self._add(hostname, backend, listener, {"mode": "l4", **fields})

    async def l7(self, hostname: str, backend: int | str, files: Files, *, listener: int = 0, **fields: object) -> None:
        """Adds a route that ends TLS with this certificate."""
        paths = {"tls_cert": str(files.cert), "tls_key": str(files.key)}
        await self._add(hostname, backend, listener, {"mode": "l7", **paths, **fields})

    async def _add(self, hostname: str, backend: int | str, listener: int, fields: dict[str, object]) -> None:
        address = backend if isinstance(backend, str) else f"127.0.0.1:{backend}"
        route = pb.Route(hostname=hostname, backend=address, **fields)  # type: ignore[arg-type]  # by field name
        request = pb.AddRouteRequest(listener_addr=f":{self.ports[listener]}", route=route)
        await self.admin.AddRoute(request, timeout=20)

    async def remove(self, hostname: str, listener: int = 0) -> None:
        """Removes a route."""
        request = pb.RemoveRouteRequest(listener_addr=f":{self.ports[listener]}", hostname=hostname)
        await self.admin.RemoveRoute(request, timeout=20)

    async def routes(self, listener: int = 0) -> list[pb.Route]:
        """What ListRoutes gives."""
        request = pb.ListRoutesRequest(listener_addr=f":{self.ports[listener]}")
        return list((await self.admin.ListRoutes(request, timeout=20)).routes)

    async def change(self) -> None:
        """A change of no consequence that takes a reload."""
        self._changes += 1
        rule = pb.FirewallRule(type=pb.FIREWALL_RULE_TYPE_IP, value=f"203.0.113.{self._changes}")
        await self.admin.AddFirewallRule(pb.AddFirewallRuleRequest(rule=rule), timeout=20)

    def forget_routes(self) -> None:
        """Deletes the database of a mcproxyd that does not run."""
        for path in self.database.parent.glob(f"{self.database.name}*"):
            path.unlink()

    def restore(self, copy: Path) -> None:
        """Puts a copy in the database's place."""
        copy.rename(self.database)

    def haproxy_pids(self) -> list[int]:
        """All HAProxy processes that run from this daemon's folder; the first is the master."""
        mine = f"-f\0{self.runtime}/haproxy.cfg".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if mine in path.read_bytes():
                    found.append(int(path.parent.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return sorted(found)

    def reloads(self) -> int:
        """How many workers were begun so far."""
        return self.log.read_text().count("New worker")
