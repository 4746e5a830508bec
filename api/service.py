"""All that is known of a service: its desired state, and what the reconcilers found.

The registry returns it, the reconcilers read it, the wire carries it and the
command line shows it: one model, so that nothing can be lost between them.
"""

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from api.conditions import Condition, ConditionType, Reason, Status
from api.files import ServiceFile
from api.model import Model
from api.spec import RouteMode, ServiceSpec


class Finalizer(StrEnum):
    """What must be taken away before a deleted service is forgotten, in this order."""

    ROUTES = "routes"
    CONTAINERS = "containers"
    FILES = "files"
    CERTS = "certs"
    PORTS = "ports"


class ContainerState(StrEnum):
    """What the engine last said of a container."""

    MISSING = "missing"
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    EXITED = "exited"
    UNKNOWN = "unknown"


class PortAllocation(Model):
    """A host port that the ports reconciler gave to one route."""

    component: str
    route: str
    port: int
    slot: int = 0
    """0, or 1 for the second of a component that is updated blue-green: its containers take turns."""
    contested: bool = False
    """The engine found it taken by somebody else: another one must be given."""


class Certificate(Model):
    """A certificate that MCP issued and laid down for one hostname."""

    hostname: str
    issuer: str
    serial: str
    fingerprint: str
    """SHA-256 of the leaf's DER, hexadecimal; changes whenever the file does."""
    not_before: datetime
    not_after: datetime
    renew_at: datetime
    cert_path: str
    key_path: str
    error: str = ""
    """Why the last attempt to get another one failed; without a fingerprint there never was one."""
    failures: int = 0
    """Attempts that failed in a row."""
    retry_at: datetime | None = None
    """Before then it is not tried again."""


class ServedPort(Model):
    """A route's backend as the container that runs now publishes it."""

    route: str
    port: int
    """On the host's loopback address."""


class Component(Model):
    """The last observation of a component's container."""

    name: str
    container_name: str
    container_id: str = ""
    image: str = ""
    digest: str = ""
    """What the image's tag stood for when the container was made: `sha256:...`; empty where nobody said."""
    slot: int = 0
    """Whose ports the container has; see PortAllocation."""
    state: ContainerState = ContainerState.MISSING
    ready: bool = False
    generation: int = 0
    """The generation that the container was created in."""
    ports: tuple[ServedPort, ...] = ()
    restarts: int = 0
    """Starts after an end, since the last quiet time."""
    exit_code: int | None = None
    started_at: datetime | None = None
    retry_at: datetime | None = None
    """When it is started again."""
    message: str = ""
    last_words: str = ""
    """The end of the log of a container that ended or is not well; lines as they are."""
    failed_generation: int = 0
    """The generation whose container was given up, while an earlier one serves; 0: none was."""
    failed_request: str = ""
    """What was wanted then: while that is wanted, it is not tried again."""
    failure: str = ""
    """Why it was given up."""
    stopped: bool = False
    """Whether it does not run because somebody stopped it: once it shall run again, it just starts."""


class RouteClaim(Model):
    """The name on a listener that this service holds; nobody else's route may be under it."""

    listener: str
    hostname: str
    component: str
    route: str
    mode: RouteMode
    backend: str = ""
    """What mc-proxy was last told; empty while it knows nothing of the route."""
    certificate: str = ""
    """Fingerprint of the certificate that mc-proxy was last told to use."""


class Suspension(Model):
    """Who has a service left alone, since when and why: it is looked at, and nothing is done to it."""

    actor: str
    at: datetime
    reason: str = ""
    """In the words of whoever asked for it."""


class Drain(Model):
    """Who has a node kept empty, and since when."""

    actor: str
    at: datetime


class Service(Model):
    """A service in the registry."""

    uid: str
    """Tells a service from an earlier one of the same name."""
    name: str
    node: str
    generation: int
    """Rises with each change of `spec` or `restarts`."""
    actor: str = ""
    """Who asked for this generation."""
    spec: ServiceSpec
    restarts: dict[str, int] = Field(default_factory=dict)
    """By component: how often somebody asked for it to be restarted. Another number makes another container."""
    created_at: datetime
    updated_at: datetime
    deletion_requested_at: datetime | None = None
    suspended: Suspension | None = None
    """Set: no reconciler does anything to it until somebody resumes it."""
    drained: bool = False
    """Whether it is kept stopped for its node's sake, until `mcp node undrain` or `mcp start`."""
    finalizers: tuple[Finalizer, ...] = ()
    conditions: tuple[Condition, ...] = ()
    ports: tuple[PortAllocation, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    components: tuple[Component, ...] = ()
    claims: tuple[RouteClaim, ...] = ()
    files: tuple[ServiceFile, ...] = ()

    @property
    def deleting(self) -> bool:
        """Whether it is on its way out."""
        return self.deletion_requested_at is not None

    def condition(self, kind: ConditionType) -> Condition | None:
        """The condition of that type, or None where nobody looked yet."""
        return next((condition for condition in self.conditions if condition.type is kind), None)

    def component(self, name: str) -> Component | None:
        """The last observation of that component, or None where nobody looked yet."""
        return next((component for component in self.components if component.name == name), None)

    def file(self, path: str) -> ServiceFile | None:
        """The file that was pushed to that path, or None where none was."""
        return next((file for file in self.files if file.path == path), None)

    def port(self, component: str, route: str, slot: int = 0) -> PortAllocation | None:
        """The port of that route, or None where none was given yet."""
        wanted = (component, route, slot)
        return next((port for port in self.ports if (port.component, port.route, port.slot) == wanted), None)

    def certificate(self, hostname: str) -> Certificate | None:
        """The certificate for that hostname, or None where none was laid down yet."""
        return next((certificate for certificate in self.certificates if certificate.hostname == hostname), None)


class Revision(Model):
    """What a service was to be in one generation."""

    generation: int
    actor: str
    """Who asked for it."""
    at: datetime
    spec: ServiceSpec
    note: str = ""
    """What was asked for, where it was not a definition: a restart, another revision."""
    digests: dict[str, str] = Field(default_factory=dict)
    """By image reference: what it stood for when the generation ended, as far as containers were made of it."""


class Convergence(StrEnum):
    """How far a service is on its way to what is wanted."""

    DONE = "done"
    WAITING = "waiting"
    FAILED = "failed"


def convergence(service: Service, generation: int) -> tuple[Convergence, str]:
    """Whether `generation` of a service is reached, and in one sentence what is awaited or wrong.

    A person's attention is asked for as soon as any condition of that
    generation says so, even while others are still on their way.
    """
    current = [c for c in service.conditions if c.observed_generation >= generation]
    for condition in current:
        if condition.status is not Status.TRUE and condition.reason.needs_a_person:
            return Convergence.FAILED, f"{condition.type}: {condition.reason}: {condition.message}"
    ready = next((c for c in current if c.type is ConditionType.READY), None)
    if ready is None:
        return Convergence.WAITING, f"the reconcilers have not looked at generation {generation} yet"
    if ready.status is Status.TRUE or ready.reason is Reason.STOPPED:
        return Convergence.DONE, ready.message
    return Convergence.WAITING, f"{ready.reason}: {ready.message}"


class Event(Model):
    """One line of a service's timeline."""

    id: int
    at: datetime
    service: str
    generation: int
    actor: str
    """Who caused it: a person, or the reconciler's name."""
    kind: str
    """What was done: a verb such as `created`, `started`, `removed`."""
    message: str
    drift: bool = False
    """Whether the world had moved away from what was wanted, as opposed to the wish changing."""


class Change(StrEnum):
    """What an apply did to the desired state."""

    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"


class FieldChange(Model):
    """One difference between two definitions; values are shown as TOML would write them."""

    path: str
    old: str | None = None
    new: str | None = None


class PlannedAction(Model):
    """One thing that a reconciler would do next."""

    resource: str
    verb: str
    subject: str
    description: str
    fields: tuple[FieldChange, ...] = ()
    """What differs: `old` as it was found, `new` as it is wanted."""


class Container(Model):
    """A container on the node, ours or not."""

    id: str
    name: str
    image: str
    state: str
    owned: bool
    service: str = ""
    component: str = ""
    ports: tuple[str, ...] = ()
    created_at: datetime | None = None


class PartStatus(Model):
    """One part that the agent depends on."""

    name: str
    reachable: bool
    detail: str


class UndefinedService(Model):
    """Containers that carry this node's labels, of a service that the registry does not know; they are left alone."""

    name: str
    containers: int


class SnapshotStatus(Model):
    """The snapshots of what the agent keeps."""

    taken_at: datetime | None = None
    """The last good one; null: there is none."""
    failed_at: datetime | None = None
    """The last one that failed; null: none did."""
    problem: str = ""
    """Why that is not as it should be."""


class NodeStatus(Model):
    """The agent and what it depends on."""

    node: str
    version: str
    started_at: datetime
    services: int
    ready: int
    suspended: int = 0
    drained: Drain | None = None
    """Set: what is applied is stored and not started, until somebody undrains it."""
    parts: tuple[PartStatus, ...] = ()
    undefined: tuple[UndefinedService, ...] = ()
    at: datetime | None = None
    """The node's time as it answered; null from an agent that does not tell."""
    snapshots: SnapshotStatus = SnapshotStatus()
