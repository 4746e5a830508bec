"""A whole agent over real podman and a real proxy, seen and used from the outside as its users do."""

import asyncio
import secrets
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from api.client import Client
from api.conditions import Condition, ConditionType, Reason, Status
from api.control_plane import Applied
from api.service import Event, Service
from api.spec import ServiceSpec
from reconcilers.containers import model
from stack import images, processes, web
from stack.admin import Table
from stack.host import ZONE, Host
from stack.layout import Layout
from stack.podman import PodmanHost
from tests.system.containers.node import without_aside

QUICK: Final = {
    "MCP_MCPROXY_INTERVAL_SECONDS": "0.5",
    "MCP_PODMAN_RELIST_SECONDS": "5",
    "MCP_PODMAN_TIMEOUT_SECONDS": "3",
    "MCP_RESTARTS_FIRST_SECONDS": "1",
    "MCP_RESTARTS_MOST_SECONDS": "2",
}
"""Settings with which a bad day is over soon."""

Holds = Callable[[Service], bool]


@dataclass
class Rig:
    """One host, and the name of a service that no other test uses."""

    host: Host
    variables: Mapping[str, str] = field(default_factory=dict)
    """Settings of the agent beside those in its file, as its environment has them."""
    name: str = field(default_factory=lambda: f"s{secrets.token_hex(3)}")

    # The agent

    def start_agent(self, **variables: str) -> None:
        """Starts the agent, and returns once its API answers: it need not be ready."""
        command: list[str | Path] = [Path(sys.executable).parent / "mcp-agent", "serve", "-c", self.host.agent_config]
        environment = self.host.environment | QUICK | self.variables | variables
        processes.start(self.host.layout, "mcp-agent", command, env=environment)
        processes.wait_until(self.host.layout, "mcp-agent", self._listens, seconds=20)

    def kill_agent(self) -> None:
        """Kills the agent, as a crash does."""
        self.host.stop_agent(signal.SIGKILL)

    def client(self) -> Client:
        """A new connection to the agent."""
        return Client(f"unix://{self.host.agent_socket}", actor="test")

    def agent_log(self) -> str:
        """What the agents of this host logged."""
        return (self.host.layout.log / "mcp-agent.log").read_text()

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.connect(str(self.host.agent_socket))
            return True
        return False

    # Services

    def spec(self, name: str = "", **component: object) -> ServiceSpec:
        """A service of one component `web` with one l7 route; `component` overrides its fields."""
        parts = {"name": "web", "image": images.HELLO, "routes": [self.route()], **component}
        return ServiceSpec.model_validate({"name": name or self.name, "components": [parts]})

    def route(self, **fields: object) -> dict[str, object]:
        """A route on the proxy's listener."""
        return {"port": self.host.ports.listener, "mode": "l7", **fields}

    @property
    def hostname(self) -> str:
        """The default hostname of this test's service."""
        return f"{self.name}.svc.{ZONE}"

    @property
    def container(self) -> str:
        """The name of the container of this test's service."""
        return f"{self.name}-web"

    async def apply(self, spec: ServiceSpec) -> Applied:
        """Stores a definition."""
        async with self.client() as client:
            return await client.apply(spec)

    async def delete(self, name: str = "") -> None:
        """Has a service deleted and returns once it is gone."""
        async with self.client() as client:
            await client.delete(name or self.name)
        await self.until_gone(name)

    async def get(self, name: str = "") -> Service:
        """A service."""
        async with self.client() as client:
            return await client.get(name or self.name)

    async def events(self, name: str = "") -> tuple[Event, ...]:
        """A service's timeline."""
        async with self.client() as client:
            return await client.events(name or self.name, limit=1000)

    async def until(self, holds: Holds, name: str = "", seconds: float = 30) -> Service:
        """The service once `holds` says so of it."""
        last: Service | None = None
        try:
            async with asyncio.timeout(seconds), self._watching(name) as services:
                async for last in services:
                    if last is not None and holds(last):
                        return last
        except TimeoutError:
            shown = [f"{c.type}={c.status} {c.reason}: {c.message}" for c in last.conditions] if last else "nothing"
            raise AssertionError(f"not within {seconds:g} s; last seen: {shown}") from None
        raise AssertionError("the watch ended")

    async def until_ready(self, name: str = "", seconds: float = 30) -> Service:
        """The service once its current generation is as defined."""
        return await self.until(is_ready, name, seconds)

    async def until_reason(self, kind: ConditionType, reason: Reason, name: str = "", seconds: float = 30) -> Condition:
        """The condition once it has that reason in the current generation."""

        def holds(service: Service) -> bool:
            found = service.condition(kind)
            return found is not None and (found.reason, found.observed_generation) == (reason, service.generation)

        condition = (await self.until(holds, name, seconds)).condition(kind)
        assert condition is not None
        return condition

    async def until_event(self, kind: str, seconds: float = 30) -> None:
        """Returns once the service's timeline tells of something of that kind."""
        async with asyncio.timeout(seconds), self.client() as client:
            async for event in client.watch_events(self.name, after_id=1):
                if event.kind == kind:
                    return

    async def until_gone(self, name: str = "", seconds: float = 30) -> None:
        """Returns once there is no such service."""
        async with asyncio.timeout(seconds), self._watching(name) as services:
            async for service in services:
                if service is None:
                    return

    def _watching(self, name: str) -> aclosing[AsyncGenerator[Service | None, None]]:
        return aclosing(self._states(name or self.name))

    async def _states(self, name: str) -> AsyncGenerator[Service | None, None]:
        """The service whenever it changes; None while it does not exist."""
        async with self.client() as client, aclosing(client.watch([name])) as watch:
            known = False
            async for seen in watch:
                known = known or seen.service is not None
                if seen.service is not None:
                    yield seen.service
                elif seen.deleted or not known:
                    yield None

    # The world

    def answers(self, text: str = "mcp-hello v1.0.0", hostname: str = "", ca: Path | None = None) -> bool:
        """Whether the proxy leads the name to a container that says so, over TLS that `ca` verifies."""
        with suppress(OSError, processes.StackError):
            return text in web.fetch(self.host.address, hostname or self.hostname, ca or self.host.ca_file, seconds=0.5)
        return False

    def until_it_answers(
        self, text: str = "mcp-hello v1.0.0", hostname: str = "", ca: Path | None = None, seconds: float = 20
    ) -> None:
        """Returns once `answers`."""
        web.wait_for(lambda: self.answers(text, hostname, ca), seconds=seconds, what=f"an answer with {text!r}")

    def until_nothing_runs_of(self, containers: Collection[str], seconds: float = 5) -> None:
        """Returns once no process is in a control group of containers with these ids."""

        def nothing() -> bool:
            return not any(gone in group for group in _control_groups() for gone in containers)

        web.wait_for(nothing, seconds=seconds, what="the end of what was left behind")

    @property
    def podman(self) -> PodmanHost:
        """The engine, seen from the outside."""
        return self.host.podman

    @property
    def table(self) -> Table:
        """The proxy's table."""
        return Table(self.host.proxy_socket)

    @property
    def listener(self) -> str:
        """The proxy's listener, as its admin API calls it."""
        return f":{self.host.ports.listener}"

    def inspect(self, template: str, container: str = "") -> str:
        """One thing that podman knows of a container."""
        return self.podman.run("inspect", "--format", template, container or self.container).strip()

    def containers(self, *filters: str, aside: bool = False) -> list[str]:
        """The names of this node's containers, `aside`: with those that an update set aside for some seconds."""
        wanted = [f"--filter=label={model.NODE}={self.host.node}", *(f"--filter={one}" for one in filters)]
        names = self.podman.run("ps", "--all", "--format", "{{.Names}}", *wanted).split()
        return sorted(names) if aside else without_aside(names)

    def files(self) -> list[str]:
        """The names of the files in the folder of certificates."""
        return sorted(path.name for path in self.host.cert_dir.iterdir())

    def remove_containers(self) -> None:
        """Takes away what a test left of this node."""
        if names := self.containers(aside=True):
            self.podman.run("rm", "--force", "--time", "0", *names)


@contextmanager
def rig_on(podman: PodmanHost, layout: Layout) -> Iterator[Rig]:
    """A host with a running proxy whose agent is still to be started; gone without a trace afterwards."""
    host = Host(layout, podman, shares_podman=True)
    rig = Rig(host)
    try:
        layout.make()
        podman.start()
        host.configure()
        host.start_proxy()
        yield rig
    finally:
        host.stop_agent()
        rig.remove_containers()
        host.down()


def is_ready(service: Service) -> bool:
    """Whether the current generation is as defined."""
    ready = service.condition(ConditionType.READY)
    return ready is not None and (ready.status, ready.observed_generation) == (Status.TRUE, service.generation)


def _control_groups() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        with suppress(OSError):  # a process may end while it is looked at
            yield path.read_text()


def restarted(before: Service) -> Holds:
    """Whether a service is ready again in a container that was made or started after `before` was seen."""
    # Its restarts count, too: the engine tells the time of a start in whole seconds.
    return lambda service: is_ready(service) and _incarnation(service) != _incarnation(before)


def _incarnation(service: Service) -> tuple[object, ...]:
    component = service.components[0]
    return component.container_id, component.started_at, component.restarts
