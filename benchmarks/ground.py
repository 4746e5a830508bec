"""Where it is measured: a whole host of its own in a temporary folder, and a client who asks until he is answered."""

import asyncio
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from api import manifest
from api.client import Client
from api.conditions import ConditionType, Status
from api.service import Service
from stack import images
from stack.host import ZONE, Host, temporary_host
from stack.layout import Layout
from stack.podman import podman_host
from stack.processes import StackError

_PATIENCE = 60.0
_PAUSE = 0.003
"""Seconds between two requests of a client who waits, from the beginning on: both sides pay for his impatience."""


_ATTEMPT = 0.25
"""Seconds after which he gives one request up: it went to a container that is no more."""


class Impatient(Exception):
    """Something did not happen in time."""


@contextmanager
def host(settings: str = "") -> Iterator[Host]:
    """A podman, a proxy and an agent of this benchmark's own, gone without a trace afterwards."""
    with tempfile.TemporaryDirectory(prefix="mcp-b") as folder, podman_host(Layout(Path(folder) / "p")) as podman:
        images.build(podman)
        with temporary_host(Layout(Path(folder) / "h"), podman, settings) as made:
            yield made


def definition(
    host: Host,
    name: str,
    *,
    image: str = images.HELLO,
    needs: Iterable[str] = (),
    strategy: str = "recreate",
    active: bool = True,
) -> str:
    """The smallest useful service: one container, reached by HTTPS under its own name."""
    return f"""\
name = "{name}"
active = {str(active).lower()}
depends_on = {list(needs)}
[[components]]
name = "web"
image = "{image}"
volumes = []
update.strategy = "{strategy}"
[[components.routes]]
port = {host.address[1]}
mode = "l7"
"""


def hostname(name: str) -> str:
    """The name under which the service of that definition is reached."""
    return f"{name}.svc.{ZONE}"


def beside(work: Callable[[], object], wait: Callable[[], float]) -> float:
    """How long `wait` took while `work` was being done. Raises what `work` raises."""
    began = time.perf_counter()
    with ThreadPoolExecutor(1) as worker:
        done = worker.submit(work)
        ended = wait()
        done.result()
    return ended - began


def command(host: Host, *args: str | Path) -> None:
    """Runs `mcp`. Raises StackError where it fails."""
    done = host.mcp(*args)
    if done.returncode != 0:
        raise StackError(f"mcp {' '.join(map(str, args))}: {done.stderr.strip()}")


@dataclass
class Caller:
    """Asks the proxy of a host for one hostname after the other."""

    address: tuple[str, int]
    ca: Path
    _trusting: ssl.SSLContext = field(init=False)

    def __post_init__(self) -> None:
        self._trusting = ssl.create_default_context(cafile=str(self.ca))

    def wait(self, hostname: str) -> float:
        """When a request for the hostname was answered, by time.perf_counter. Raises Impatient."""
        deadline = time.perf_counter() + _PATIENCE
        while not self.is_answered(hostname):
            if time.perf_counter() > deadline:
                raise Impatient(f"https://{hostname}/ was not answered within {_PATIENCE:g} s")
            time.sleep(_PAUSE)
        return time.perf_counter()

    def is_answered(self, hostname: str) -> bool:
        """Whether one request is answered with 200, over TLS that can be trusted."""
        request = f"GET / HTTP/1.1\r\nHost: {hostname}\r\nConnection: close\r\n\r\n"
        with (
            suppress(OSError),
            socket.create_connection(self.address, timeout=_ATTEMPT) as raw,
            self._trusting.wrap_socket(raw, server_hostname=hostname) as tls,
        ):
            tls.sendall(request.encode())
            return tls.recv(64).startswith(b"HTTP/1.1 200")
        return False


class Agent:
    """The agent of a host over one lasting connection, for callers that are not asynchronous."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._runner = asyncio.Runner()

    def __enter__(self) -> "Agent":
        self._client = self._runner.run(self._connect())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.__aexit__(None, None, None))
        self._runner.close()

    def apply(self, name: str, **more: Any) -> None:
        """Hands over the definition of that name; returns when the agent has stored it."""
        spec = manifest.load(definition(self._host, name, **more), name).spec
        self._runner.run(self._client.apply(spec))

    def service(self, name: str) -> Service:
        """The service as the agent knows it."""
        return self._runner.run(self._client.get(name))

    def ready(self, name: str) -> Service:
        """The service, once it is ready."""
        return self._runner.run(asyncio.wait_for(self._ready(name), _PATIENCE))

    def containers(self, name: str) -> list[str]:
        """The names of the containers that it has of the service."""
        return [one.name for one in self._runner.run(self._client.containers()) if one.owned and one.service == name]

    def delete_all_but(self, kept: str) -> None:
        """Has every other service deleted; returns when all of them are gone."""
        self._runner.run(self._delete_all_but(kept))

    async def _connect(self) -> Client:
        client = Client(f"unix://{self._host.agent_socket}", actor="benchmarks")
        await client.services()
        return client

    async def _ready(self, name: str) -> Service:
        async for seen in self._client.watch([name]):
            ready = seen.service and seen.service.condition(ConditionType.READY)
            if seen.service and ready and ready.status is Status.TRUE:
                return seen.service
        raise Impatient(f"the agent ended before {name} was ready")

    async def _delete_all_but(self, kept: str) -> None:
        for service in await self._client.services():
            if service.name != kept:
                await self._client.delete(service.name)
        left: set[str] = set()
        async for seen in self._client.watch():
            if seen.service is not None:
                left.add(seen.service.name)
            left -= {seen.deleted, kept}
            if (seen.synced or seen.deleted) and not left:
                return
