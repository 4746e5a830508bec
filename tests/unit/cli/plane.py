"""A control plane in memory that converges as a test tells it to, served over a real socket."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc.aio

from api.conditions import Condition, ConditionType, Reason, Status
from api.control_plane import DEFAULT_LOOK_SECONDS, DRAINED, Adopted, Applied, Deleted, Looked, Watched
from api.diff import diff
from api.errors import McpError, NotFound, Refused
from api.files import Files
from api.files_server import FilesServicer
from api.gen.mcp.v1.control_plane_pb2_grpc import add_ControlPlaneServiceServicer_to_server
from api.gen.mcp.v1.files_pb2_grpc import add_FilesServiceServicer_to_server
from api.gen.mcp.v1.inspection_pb2_grpc import add_InspectionServiceServicer_to_server
from api.inspection_server import InspectionServicer
from api.server import ControlPlaneServicer, ErrorInterceptor
from api.service import (
    Certificate,
    Change,
    Component,
    Container,
    ContainerState,
    Drain,
    Event,
    FieldChange,
    Finalizer,
    NodeStatus,
    PartStatus,
    PlannedAction,
    PortAllocation,
    Revision,
    RouteClaim,
    Service,
    Suspension,
    UndefinedService,
)
from api.spec import ServiceSpec
from controller import wishes
from controller.registry.desired import restartable
from tests.unit.cli.inspection import Seen

STEPS = [kind for kind in ConditionType if kind not in (ConditionType.READY, ConditionType.FLAPPING)]


@dataclass
class Plane:
    """The registry and the reconcilers in one; what it does after an apply is `behaviour`."""

    node: str = "rift"
    behaviour: str = "converge"
    """`converge`, `stall` (before the routes), `fail` (at the containers) or `nothing`."""
    refusals: dict[str, McpError] = field(default_factory=dict)
    late: bool = False
    """Refuses only what is handed over for good: something changed between check and apply."""
    registry: dict[str, Service] = field(default_factory=dict)
    timeline: list[Event] = field(default_factory=list)
    history: dict[str, list[Revision]] = field(default_factory=dict)
    applied: list[str] = field(default_factory=list)
    engine: str = ""
    """Why the engine cannot be reached; empty: it can."""
    drift: tuple[FieldChange, ...] = ()
    """What differs from what is wanted though the definition does not."""
    late_reconcilers: tuple[str, ...] = ()
    undefined: tuple[UndefinedService, ...] = ()
    drained: Drain | None = None
    runs: frozenset[str] | None = None
    """What can be adopted; None: whatever is asked for."""
    _watchers: list[asyncio.Queue[Watched]] = field(default_factory=list)
    _listeners: list[asyncio.Queue[Event]] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    subscribed: asyncio.Event = field(default_factory=asyncio.Event)
    seen: Seen = field(default_factory=Seen)

    def put(self, service: Service) -> None:
        self.registry[service.name] = service
        for watcher in self._watchers:
            watcher.put_nowait(Watched(service=service))

    def forget(self, name: str) -> None:
        self.registry.pop(name, None)
        for watcher in self._watchers:
            watcher.put_nowait(Watched(deleted=name))

    def note(self, service: str, kind: str, message: str, *, drift: bool = False) -> None:
        event = Event(
            id=len(self.timeline) + 1,
            at=datetime.now(UTC),
            service=service,
            generation=1,
            actor="containers",
            kind=kind,
            message=message,
            drift=drift,
        )
        self.timeline.append(event)
        for listener in self._listeners:
            listener.put_nowait(event)

    def turn(
        self,
        name: str,
        kind: ConditionType,
        status: Status = Status.TRUE,
        reason: Reason = Reason.CONVERGED,
        message: str = "",
    ) -> None:
        """A reconciler writes its condition."""
        service = self.registry[name]
        condition = Condition(
            type=kind,
            status=status,
            reason=reason,
            message=message,
            observed_generation=service.generation,
            last_transition=datetime.now(UTC),
        )
        others = tuple(one for one in service.conditions if one.type is not kind)
        self.put(service.model_copy(update={"conditions": (*others, condition)}))

    def converge(self, name: str, kinds: Iterable[ConditionType] = tuple(STEPS)) -> None:
        for kind in kinds:
            self.turn(name, kind)
        self.put(observed(self.registry[name]))
        self.turn(name, ConditionType.READY, message="everything is as defined")

    def _react(self, name: str) -> None:
        if self.behaviour == "converge":
            self.converge(name)
        elif self.behaviour == "stall":
            for kind in STEPS[:-1]:
                self.turn(name, kind)
            self.turn(
                name, ConditionType.ROUTES_PROGRAMMED, Status.FALSE, Reason.WAITING_FOR_CONTAINER, "not answering"
            )
            self.turn(name, ConditionType.READY, Status.FALSE, Reason.WAITING_FOR_CONTAINER, "not answering")
        elif self.behaviour == "fail":
            self.turn(name, ConditionType.PORTS_ALLOCATED)
            self.turn(
                name, ConditionType.CONTAINERS_RUNNING, Status.FALSE, Reason.IMAGE_PULL_FAILED, "no such image hello:v9"
            )

    async def set_active(self, name: str, component: str = "", *, active: bool, actor: str, note: str = "") -> Applied:
        spec = wishes.with_active((await self.get(name)).spec, component, active)
        return await self._apply(spec, actor=actor, note=note)

    async def restart(self, name: str, component: str = "", *, actor: str) -> Service:
        service = await self.get(name)
        asked = {one: service.restarts.get(one, 0) + 1 for one in restartable(service.spec, component)}
        self.put(service.model_copy(update={"generation": service.generation + 1, "restarts": asked}))
        self._revise(actor, self.registry[name], f"restart of {', '.join(asked)}")
        self._soon(name)
        return self.registry[name]

    async def revisions(self, name: str) -> tuple[Revision, ...]:
        await self.get(name)
        return tuple(self.history[name])

    async def rollback(self, name: str, generation: int = 0, *, actor: str, dry_run: bool = False) -> Applied:
        revision = wishes.earlier(await self.get(name), self.history[name], generation)
        note = f"rolled back to generation {revision.generation}"
        return await self._apply(revision.spec, actor=actor, dry_run=dry_run, note=note)

    def _revise(self, actor: str, service: Service, note: str) -> None:
        revision = Revision(
            generation=service.generation, actor=actor, at=datetime.now(UTC), spec=service.spec, note=note
        )
        self.history.setdefault(service.name, []).append(revision)

    async def apply(
        self,
        spec: ServiceSpec,
        *,
        actor: str,
        dry_run: bool = False,
        expected_generation: int | None = None,
        component: str = "",
    ) -> Applied:
        if component:
            spec = wishes.with_component((await self.get(spec.name)).spec, spec, component)
        known = self.registry.get(spec.name)
        drained = self.drained is not None and (known is None or not known.spec.active)
        spec = spec.model_copy(update={"active": spec.active and not drained})
        return await self._apply(spec, actor=actor, dry_run=dry_run, note=DRAINED if drained else "")

    async def _apply(self, spec: ServiceSpec, *, actor: str, dry_run: bool = False, note: str = "") -> Applied:
        if spec.name in self.refusals and not (dry_run and self.late):
            raise self.refusals[spec.name]
        now = datetime.now(UTC)
        old = self.registry.get(spec.name)
        fields = diff(old.spec if old else None, spec)
        change = Change.CREATED if old is None else Change.CONFIGURED if fields else Change.UNCHANGED
        service = (
            old
            or Service(
                uid=f"uid-{now.timestamp()}",
                name=spec.name,
                node=self.node,
                generation=0,
                spec=spec,
                created_at=now,
                updated_at=now,
                finalizers=tuple(Finalizer),
            )
        ).model_copy(update={"spec": spec, "updated_at": now})
        if change is not Change.UNCHANGED:
            service = service.model_copy(update={"generation": service.generation + 1, "drained": note == DRAINED})
        if dry_run:
            action = PlannedAction(resource="containers", verb="created", subject=spec.name, description="create it")
            mend = PlannedAction(
                resource="containers",
                verb="mended",
                subject=spec.name,
                description=f"mend {spec.name}",
                fields=self.drift,
            )
            planned = () if change is Change.UNCHANGED else (action,)
            return Applied(service, change, fields, (mend,) if self.drift else planned)
        self.applied.append(f"{spec.name} by {actor}")
        if change is not Change.UNCHANGED:
            self.put(service)
            self._revise(actor, service, note)
            self._soon(spec.name)
        elif any(condition.reason.needs_a_person for condition in service.conditions):
            for condition in service.conditions:
                if condition.reason.needs_a_person:
                    self.turn(spec.name, condition.type, Status.UNKNOWN, Reason.PENDING, "looked at again")
            self._soon(spec.name)
        return Applied(self.registry[spec.name], change, fields)

    def _soon(self, name: str) -> None:
        task = asyncio.create_task(self._later(name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _later(self, name: str) -> None:
        self._react(name)

    async def delete(
        self, name: str, *, actor: str, dry_run: bool = False, expected_generation: int | None = None
    ) -> Deleted:
        service = await self.get(name)
        action = PlannedAction(resource="containers", verb="removed", subject=name, description=f"remove {name}")
        if dry_run:
            return Deleted(service, (action,))
        service = service.model_copy(update={"deletion_requested_at": datetime.now(UTC)})
        self.put(service)
        if self.behaviour == "converge":
            for finalizer in Finalizer:
                left = tuple(one for one in self.registry[name].finalizers if one is not finalizer)
                self.put(self.registry[name].model_copy(update={"finalizers": left}))
            self.forget(name)
        return Deleted(service)

    async def set_drained(self, drained: bool, *, actor: str) -> None:
        self.drained = Drain(actor=actor, at=datetime.now(UTC)) if drained else None

    async def suspend(self, name: str, *, actor: str, reason: str = "") -> Looked:
        suspended = Suspension(actor=actor, at=datetime.now(UTC), reason=reason)
        self.put((await self.get(name)).model_copy(update={"suspended": suspended}))
        return Looked(self.registry[name], self.late_reconcilers)

    async def resume(self, name: str, *, actor: str) -> Service:
        self.put((await self.get(name)).model_copy(update={"suspended": None}))
        return self.registry[name]

    async def reconcile(self, name: str, *, within: float = DEFAULT_LOOK_SECONDS) -> Looked:
        return Looked(await self.get(name), self.late_reconcilers)

    async def adopt(
        self,
        name: str,
        containers: Mapping[str, str],
        routes: Mapping[str, str],
        *,
        actor: str,
        dry_run: bool = False,
    ) -> Adopted:
        if name in self.registry:
            raise Refused(f'service "{name}" is defined: mcp status {name} shows what it lacks')
        if self.runs is not None and name not in self.runs:
            raise NotFound(f"no container is called {name}")
        parts = [{"name": component, "image": "x:1"} for component in containers.values()] or [
            {"name": name, "image": "x:1"}
        ]
        spec = ServiceSpec.model_validate({"name": name, "components": parts})
        applied = await self.apply(spec, actor=actor, dry_run=dry_run)
        return Adopted(applied.service, tuple(containers) or (name,), (f"{name}: see to health", *routes))

    async def get(self, name: str) -> Service:
        if name not in self.registry:
            raise NotFound.service(name, self.node)
        return self.registry[name]

    async def services(self) -> tuple[Service, ...]:
        return tuple(self.registry.values())

    async def watch(self, names: Collection[str] = ()) -> AsyncIterator[Watched]:
        queue: asyncio.Queue[Watched] = asyncio.Queue()
        self._watchers.append(queue)
        try:
            for service in list(self.registry.values()):
                if not names or service.name in names:
                    yield Watched(service=service)
            yield Watched(synced=True)
            self.subscribed.set()
            while True:
                watched = await queue.get()
                if not names or (watched.deleted or (watched.service and watched.service.name)) in names:
                    yield watched
        finally:
            self._watchers.remove(queue)

    async def events(self, service: str = "", *, limit: int = 100) -> tuple[Event, ...]:
        return tuple(event for event in self.timeline if not service or event.service == service)[-limit:]

    async def watch_events(self, service: str = "", *, after_id: int = 0) -> AsyncIterator[Event]:
        queue: asyncio.Queue[Event] = asyncio.Queue()
        self._listeners.append(queue)
        self.subscribed.set()
        try:
            for event in [event for event in self.timeline if after_id and event.id > after_id]:
                yield event
            while True:
                yield await queue.get()
        finally:
            self._listeners.remove(queue)

    async def containers(self) -> tuple[Container, ...]:
        now = datetime.now(UTC)
        return (
            Container(
                id="1",
                name="hello-web",
                image="localhost/mcp-hello:v1.0.0",
                state="running",
                owned=True,
                service="hello",
                component="web",
                ports=("127.0.0.1:10000->10000/tcp",),
                created_at=now - timedelta(minutes=3),
            ),
            Container(id="2", name="postgres\x1b[31m", image="docker.io/postgres:16", state="exited", owned=False),
        )

    async def node_status(self) -> NodeStatus:
        return NodeStatus(
            node=self.node,
            version="0.1.0",
            started_at=datetime.now(UTC),
            services=len(self.registry),
            ready=0,
            undefined=self.undefined,
            drained=self.drained,
            parts=(PartStatus(name="podman", reachable=not self.engine, detail=self.engine or "4.3.1"),),
        )


def observed(service: Service) -> Service:
    """The service with all that its reconcilers would have found."""
    now = datetime.now(UTC)
    component = service.spec.components[0]
    return service.model_copy(
        update={
            "components": tuple(
                Component(
                    name=one.name,
                    container_name=f"{service.name}-{one.name}",
                    container_id="abc",
                    image=one.image or "",
                    state=ContainerState.RUNNING,
                    ready=True,
                    generation=service.generation,
                    started_at=now,
                )
                for one in service.spec.components
            ),
            "ports": (PortAllocation(component=component.name, route="default", port=10000),),
            "claims": tuple(
                RouteClaim(
                    listener=f":{route.port}",
                    hostname=route.hostname or f"{service.name}.svc.mcp.metacircular.net",
                    component=component.name,
                    route=route.key,
                    mode=route.mode,
                    backend="127.0.0.1:10000",
                )
                for route in component.routes
            ),
            "certificates": (
                Certificate(
                    hostname=f"{service.name}.svc.mcp.metacircular.net",
                    issuer="MCP CA",
                    serial="1",
                    fingerprint="f",
                    not_before=now,
                    not_after=now + timedelta(days=90, hours=1),
                    renew_at=now + timedelta(days=60),
                    cert_path="/certs/hello.pem",
                    key_path="/certs/hello.key",
                ),
            ),
        }
    )


@asynccontextmanager
async def served(plane: Plane, address: str, files: Files | None = None) -> AsyncIterator[None]:
    """The plane behind that address, until the block ends."""
    server = grpc.aio.server(interceptors=[ErrorInterceptor()])
    add_ControlPlaneServiceServicer_to_server(ControlPlaneServicer(plane), server)
    add_InspectionServiceServicer_to_server(InspectionServicer(plane.seen), server)
    if files is not None:
        add_FilesServiceServicer_to_server(FilesServicer(files), server)
    server.add_insecure_port(address)
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


@dataclass(frozen=True)
class Ran:
    """How a command ended, and all that it said."""

    status: int
    stdout: str
    stderr: str

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()


@dataclass(frozen=True)
class Mcp:
    """The `mcp` command as its users start it, in a folder and with settings of its own."""

    folder: Path
    plane: Plane

    @property
    def config(self) -> Path:
        return self.folder / "mcp.toml"

    @property
    def address(self) -> str:
        return f"unix://{self.folder}/agent.sock"

    @property
    def environment(self) -> dict[str, str]:
        own = {"MCP_CONFIG": str(self.config), "PATH": "/usr/bin:/bin", "HOME": str(self.folder), "LC_ALL": "C.UTF-8"}
        return own | {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}

    def write(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text)
        return name

    async def start(self, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "cli.main",
            *arguments,
            cwd=self.folder,
            env=self.environment | {"PYTHONPATH": str(Path.cwd())} | environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __call__(self, *arguments: str, stdin: str = "", **environment: str) -> Ran:
        process = await self.start(*arguments, **environment)
        async with asyncio.timeout(30):
            stdout, stderr = await process.communicate(stdin.encode())
        return Ran(process.returncode or 0, stdout.decode(), stderr.decode())
