"""The containers reconciler alone on a real podman: its driver, a real registry, and ports for all."""

import asyncio
import os
import signal
import urllib.request
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from api.conditions import Condition, ConditionType, Reason
from api.resolve import Defaults
from api.service import Component, Finalizer, Service
from api.spec import ServiceSpec
from controller.driver import Driver, DriverSettings
from controller.flapping import Flapping, FlappingSettings
from controller.metrics import Metrics
from controller.queue import Backoff, WorkQueue
from controller.registry import ChangeKind, Registry, utc_now
from reconcilers.containers import model
from reconcilers.containers.engine.podman import Engine
from reconcilers.containers.engine.transport import EngineSettings
from reconcilers.containers.guard import Guard
from reconcilers.containers.images.presence import ImageSettings
from reconcilers.containers.policy import Ground, Policy, Private
from reconcilers.containers.reconciler import Containers
from reconcilers.containers.restarts import RestartBackoff
from reconcilers.containers.watching.health import Checks
from reconcilers.containers.watching.picture import Picture, PictureSettings
from reconcilers.containers.watching.probe import Prober, ProbeSettings
from stack import images
from stack.podman import PodmanHost
from stack.web import free_port

NOTHING_MORE = Policy()
QUICK = RestartBackoff(first=timedelta(seconds=1), most=timedelta(seconds=2), quiet=timedelta(minutes=10))


class Node:
    """A running reconciler. `podman` is the engine itself, seen from the outside."""

    def __init__(
        self, host: PodmanHost, registry: Registry, containers: Containers, name: str, defaults: Defaults, folder: Path
    ) -> None:
        self.host = host
        self.registry = registry
        self.containers = containers
        self.folder = folder
        self.name = name
        self.network = defaults.network
        self.defaults = defaults

    async def apply(self, spec: ServiceSpec) -> Service:
        """Stores the definition."""
        service, _ = await self.registry.apply(spec, actor="test")
        return service

    async def delete(self, name: str) -> None:
        """Has it deleted, its routes being gone already."""
        await self.registry.request_deletion(name, actor="test")
        await self.registry.remove_finalizer(name, Finalizer.ROUTES)

    async def service(self, name: str) -> Service:
        """The service, which exists."""
        service = await self.registry.service(name)
        assert service is not None
        return service

    async def component(self, name: str, component: str = "web") -> Component:
        """What is known of the component."""
        found = (await self.service(name)).component(component)
        assert found is not None
        return found

    async def until(self, name: str, holds: Callable[[Service], bool], seconds: float = 20) -> Service:
        """The service once `holds` says so of it."""
        service = await self.service(name)
        async with asyncio.timeout(seconds), self.registry.subscribe() as changes:
            service = await self.service(name)
            while not holds(service):
                await anext(changes)
                service = await self.service(name)
        return service

    async def until_reason(self, name: str, reason: Reason, seconds: float = 20) -> Condition:
        """The condition of the current generation once it has that reason."""

        def holds(service: Service) -> bool:
            condition = service.condition(ConditionType.CONTAINERS_RUNNING)
            now = (condition.reason, condition.observed_generation) if condition else None
            return now == (reason, service.generation)

        service = await self.until(name, holds, seconds)
        condition = service.condition(ConditionType.CONTAINERS_RUNNING)
        assert condition is not None
        return condition

    async def until_ready(self, name: str, seconds: float = 20) -> Service:
        """The service once all that it should run is ready."""
        await self.until_reason(name, Reason.CONVERGED, seconds)
        return await self.service(name)

    async def delete_all(self) -> None:
        """Takes away whatever containers services still have."""
        for service in await self.registry.services():
            if Finalizer.CONTAINERS in service.finalizers:
                await self.delete(service.name)
                await self.until_containers_gone(service.name)

    async def until_containers_gone(self, name: str) -> None:
        """Returns once the reconciler says that it has nothing left to do for a deleted service."""
        await self.until(name, lambda service: Finalizer.CONTAINERS not in service.finalizers)

    async def until_event(self, name: str, kind: str, times: int = 1) -> None:
        """Returns once the service's timeline tells so often of something of that kind."""
        async with asyncio.timeout(20), self.registry.subscribe() as changes:
            while [event.kind for event in await self.registry.events(name)].count(kind) < times:
                await anext(changes)

    def podman(self, *args: str) -> str:
        """What podman's command line prints."""
        return self.host.run(*args).strip()

    def inspect(self, name: str, template: str) -> str:
        """One thing that podman knows of a container."""
        return self.podman("inspect", "--format", template, name)

    def names(self, service: str) -> list[str]:
        """The names of the containers that carry the service's label, but of those set aside by an update."""
        label = f"label=net.metacircular.mcp.service={service}"
        return without_aside(self.podman("ps", "--all", "--filter", label, "--format", "{{.Names}}").split())


def without_aside(names: Iterable[str]) -> list[str]:
    """The names in order, without those of containers that are kept for some seconds beside their successors."""
    known = set(names)
    return sorted(
        name for name in known if name.removesuffix(model.OLD) == name or name.removesuffix(model.OLD) not in known
    )


@asynccontextmanager
async def running_node(
    host: PodmanHost,
    folder: Path,
    *,
    socket: Path | None = None,
    backoff: RestartBackoff = QUICK,
    images: ImageSettings | None = None,
    policy: Policy = NOTHING_MORE,
    **engine: float,
) -> AsyncIterator[Node]:
    """A node named after the test's folder; its registry lasts in there."""
    name = f"n-{zlib.crc32(bytes(folder)):08x}"
    registry = await Registry.open(f"sqlite:///{folder / 'registry.db'}", name)
    queue = WorkQueue((metrics := Metrics(["containers"])).reconciler("containers").queue)
    settings = replace(EngineSettings(str(socket or host.socket)), **engine)
    client = Engine(settings)
    defaults = Defaults(network=f"{host.network}-{name}", service_root=str(folder / "srv"), stop_timeout="1s")
    containers = Containers(
        registry=registry,
        engine=client,
        picture=Picture(client, name, PictureSettings(relist=5.0, reconnect=0.5)),
        prober=Prober(name, Checks(client), ProbeSettings()),
        node=name,
        defaults=defaults,
        backoff=backoff,
        clock=utc_now,
        wake=queue.add,
        images=images,
        guard=Guard(policy, Ground(defaults.service_root, (Private(str(host.socket), "podman's socket"),))),
    )
    driver_settings = DriverSettings(transient=Backoff(0.1, 1.0), terminal=Backoff(0.5, 1.0))
    flapping = Flapping(FlappingSettings(), metrics.flapping.inc, utc_now)
    series = metrics.reconciler("containers")
    driver = Driver(containers, registry, queue, series, driver_settings, flapping, utc_now)
    tasks = [asyncio.create_task(part) for part in (containers.run(), driver.run(), _wakes(registry, queue))]
    for service in await registry.services():
        queue.add(service.name)
    try:
        yield Node(host, registry, containers, name, defaults, folder)
    finally:
        queue.shut_down()
        await asyncio.wait(tasks[1:2], timeout=10)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        client.close()
        await registry.close()


async def _wakes(registry: Registry, queue: WorkQueue) -> None:
    async with registry.subscribe() as changes:
        async for change in changes:
            if change.kind in (ChangeKind.SPEC, ChangeKind.FINALIZER, ChangeKind.PORTS, ChangeKind.CONTESTED):
                await _give_ports(registry, change.service)
                queue.add(change.service)


async def _give_ports(registry: Registry, name: str) -> None:
    """What the ports reconciler does, without looking at the machine."""
    service = await registry.service(name)
    if service is None:
        return
    for component in service.spec.components:
        for route in component.routes:
            given = service.port(component.name, route.key)
            if given is None or given.contested:
                await registry.allocate_port(name, component.name, route.key, free_port())


def web(name: str, image: str = images.HELLO, **component: object) -> ServiceSpec:
    """A service of one component `web` with one route; `component` overrides its fields."""
    parts = {"name": "web", "image": image, "routes": [{"port": 8443, "mode": "l7"}], **component}
    return ServiceSpec.model_validate({"name": name, "components": [parts]})


def answer(service: Service, path: str = "/") -> str:
    """What the first component's container says on its published port."""
    (served,) = service.components[0].ports
    with urllib.request.urlopen(f"http://127.0.0.1:{served.port}{path}", timeout=5) as response:
        return str(response.read().decode())


def kill(node: Node, container: str) -> None:
    """Kills the container's process without telling the engine."""
    os.kill(int(node.inspect(container, "{{.State.Pid}}")), signal.SIGKILL)
