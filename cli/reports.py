"""What `-o json` prints: stable fields, described in docs/reference/cli.md.

What the agent said is passed on in the API's own models; these only say how it
is put together.
"""

from datetime import datetime
from enum import StrEnum

from api.access import AuditRecord, Identity, Token
from api.conditions import ConditionType
from api.files import FoundFile, ServiceFile
from api.inspection import Exported, Finding, LogStream, NodeUsage
from api.model import Model
from api.service import (
    Certificate,
    Change,
    Container,
    Event,
    FieldChange,
    NodeStatus,
    PlannedAction,
    RouteClaim,
    Service,
)
from api.spec import ServiceSpec
from api.timeline import NodeEvent
from cli.wait import End


class Unasked(Model):
    """A node that did not answer, or a service for which nothing was done."""

    node: str
    """Empty where it is not known on which the service is, or where --address named the agent."""
    service: str = ""
    """Empty where the node was asked about all that it has."""
    error: str


class AppliedService(Model):
    """What became of one definition."""

    name: str
    node: str
    """Empty where --address named the agent."""
    change: Change
    generation: int
    fields: tuple[FieldChange, ...] = ()
    actions: tuple[PlannedAction, ...] = ()
    """In a dry run: what would be done, in order."""
    notes: tuple[str, ...] = ()
    """Of a rollback: what does not come back."""
    end: End | None = None
    """How the wait ended; null where there was none."""
    message: str = ""
    """What is wrong, or was still awaited."""
    seconds: float | None = None
    """From handing the definition over until the end."""
    service: Service
    """As it was last seen."""


class ApplyReport(Model):
    """`mcp apply`"""

    dry_run: bool
    services: tuple[AppliedService, ...]
    unasked: tuple[Unasked, ...] = ()
    """Those that were not applied."""


class ImageOutcome(StrEnum):
    """What became of an image that was to be built."""

    PRESENT = "present"
    """Its tag exists: nothing was done."""
    MISSING = "missing"
    """In a dry run: it would be built."""
    BUILT = "built"
    PUSHED = "pushed"
    """Built, and pushed to its registry."""


class BuiltImage(Model):
    """An image of `[build.images]`."""

    image: str
    """With registry and tag."""
    outcome: ImageOutcome
    digest: str | None = None
    """What the registry knows it by; null where it was not pushed, or podman did not tell."""
    seconds: float | None = None
    """How long building and pushing took."""


class BuildReport(Model):
    """`mcp build`"""

    dry_run: bool
    images: tuple[BuiltImage, ...]


class DifferingService(Model):
    """How one definition differs from what is there."""

    name: str
    node: str
    change: Change
    fields: tuple[FieldChange, ...]
    actions: tuple[PlannedAction, ...]


class DiffReport(Model):
    """`mcp diff`"""

    services: tuple[DifferingService, ...]
    unasked: tuple[Unasked, ...] = ()


class DeletedService(Model):
    """What became of one service that was to be taken away."""

    name: str
    node: str
    """Empty where --address named the agent."""
    actions: tuple[PlannedAction, ...] = ()
    end: End | None = None
    message: str = ""
    seconds: float | None = None


class DeleteReport(Model):
    """`mcp delete`"""

    dry_run: bool
    services: tuple[DeletedService, ...]
    unasked: tuple[Unasked, ...] = ()


class StatusReport(Model):
    """`mcp status`"""

    nodes: tuple[NodeStatus, ...]
    services: tuple[Service, ...]
    unasked: tuple[Unasked, ...] = ()


class ServicesReport(Model):
    """`mcp list`"""

    services: tuple[Service, ...]
    unasked: tuple[Unasked, ...] = ()


class ServiceReport(Model):
    """`mcp status SERVICE`"""

    service: Service
    actions: tuple[PlannedAction, ...] = ()
    """What would be done next, in order."""
    events: tuple[Event, ...]


class NodeContainer(Container):
    """A container, and where it is."""

    node: str
    """Empty where --address named the agent."""


class ContainersReport(Model):
    """`mcp ps`"""

    containers: tuple[NodeContainer, ...]
    unasked: tuple[Unasked, ...] = ()


class Route(Model):
    """A name under which a service is reached, and where it leads."""

    node: str
    service: str
    claim: RouteClaim


class RoutesReport(Model):
    """`mcp routes`"""

    routes: tuple[Route, ...]
    unasked: tuple[Unasked, ...] = ()


class ServiceCertificate(Model):
    """One certificate, and whose it is."""

    node: str
    service: str
    certificate: Certificate


class CertificatesReport(Model):
    """`mcp certs`"""

    certificates: tuple[ServiceCertificate, ...]
    unasked: tuple[Unasked, ...] = ()


class EventsReport(Model):
    """`mcp events`; with `--follow` one NodeEvent a line instead."""

    events: tuple[NodeEvent, ...]
    unasked: tuple[Unasked, ...] = ()


class HistoryEntry(Model):
    """One generation of a service, and in what it differs from the one before."""

    generation: int
    actor: str
    at: datetime
    note: str
    """What was asked for, where it was not a definition: a restart, another revision."""
    fields: tuple[FieldChange, ...]


class HistoryReport(Model):
    """`mcp service history`"""

    service: str
    revisions: tuple[HistoryEntry, ...]
    """Newest first; those before the last 50 are forgotten."""


class DefinitionReport(Model):
    """A definition, and the file that holds it."""

    path: str
    spec: ServiceSpec


class SyncReport(ApplyReport):
    """`mcp sync`"""

    images: tuple[BuiltImage, ...] = ()
    """With --build."""
    pruned: tuple[str, ...] = ()
    """With --prune, as NODE/SERVICE."""


class PurgeReport(Model):
    """`mcp purge`"""

    dry_run: bool
    services: tuple[str, ...]
    """As NODE/SERVICE."""
    unasked: tuple[Unasked, ...] = ()


class KnownNode(Model):
    """A node of mcp.toml, and whether its agent answers."""

    name: str
    address: str
    status: NodeStatus | None = None
    error: str = ""


class NodesReport(Model):
    """`mcp node list` and `mcp node status`"""

    nodes: tuple[KnownNode, ...]


class ChangedNode(Model):
    """`mcp node add` and `mcp node remove`"""

    name: str
    path: str
    """The file that was written."""


class CompletionReport(Model):
    """`mcp completion`"""

    shell: str
    script: str


class PushedFile(Model):
    """`mcp push`"""

    service: str
    file: ServiceFile
    """As it was last seen."""
    unchanged: bool = False
    """Whether the very same was pushed there before."""
    end: End | None = None
    """How the wait ended; null where there was none."""
    message: str = ""


class UnpushedFile(Model):
    """`mcp unpush`"""

    service: str
    file: ServiceFile
    """What is taken back, as a revision of its own."""
    dry_run: bool = False
    end: End | None = None
    """How the wait ended; null where there was none."""
    message: str = ""
    """What became of what lies on the disk, or what is awaited or wrong; in a dry run: what would be done."""


class FilesReport(Model):
    """`mcp files`"""

    service: str
    files: tuple[ServiceFile, ...]
    """By path; with `--history` all that is kept, the oldest of each first."""


class PulledFile(Model):
    """`mcp pull`"""

    service: str
    path: str
    file: str
    """Where it was written."""
    found: FoundFile


class LookedService(Model):
    """A service, and who looked at it."""

    service: Service
    """With the conditions that were found."""
    late: tuple[str, ...] = ()
    """The reconcilers that have not looked in time; they will."""


class LookedServices(Model):
    """`mcp suspend` and `mcp reconcile`"""

    services: tuple[LookedService, ...]
    unasked: tuple[Unasked, ...] = ()


class ResumedServices(Model):
    """`mcp resume`"""

    services: tuple[Service, ...]
    unasked: tuple[Unasked, ...] = ()


class LoggedLine(Model):
    """`mcp logs`: one of these a line."""

    component: str
    container: str
    """Its name."""
    stream: LogStream
    at: datetime | None
    """As exactly as the engine tells; null where it does not."""
    text: str
    """What is no UTF-8 is replaced."""


class UsedNode(Model):
    """What a node's containers use."""

    node: str
    """Empty where --address named the agent."""
    usage: NodeUsage


class UsageReport(Model):
    """`mcp top`: one look."""

    nodes: tuple[UsedNode, ...]
    unasked: tuple[Unasked, ...] = ()


class WatchLine(Model):
    """`mcp watch`: one of these a line, with exactly one field beside `node` that is neither null nor empty."""

    node: str
    """Empty where --address named the agent."""
    service: Service | None = None
    deleted: str = ""
    synced: bool = False
    """The services as they were are told; what follows are changes."""


class Diagnosis(Model):
    """One finding, and where it was made."""

    node: str
    """Empty: on this machine, or at the address that was given."""
    finding: Finding


class DoctorReport(Model):
    """`mcp doctor`"""

    findings: tuple[Diagnosis, ...]


class ExportedReport(Model):
    """`mcp export --format quadlet` and `--format kube`"""

    exported: Exported


class AdoptReport(Model):
    """`mcp adopt`"""

    dry_run: bool
    service: Service
    """With the definition that was written."""
    containers: tuple[str, ...]
    """The names of those that were taken over."""
    notes: tuple[str, ...]
    """What podman does not tell of them, and what will be otherwise."""


class ExportReport(Model):
    """`mcp export`"""

    spec: ServiceSpec


class VersionReport(Model):
    """`mcp version`"""

    version: str
    nodes: tuple[NodeStatus, ...] = ()
    """What the agents say; none where none is configured."""
    unasked: tuple[Unasked, ...] = ()


SHORT = {
    ConditionType.PORTS_ALLOCATED: "ports",
    ConditionType.CERTIFICATES_READY: "certs",
    ConditionType.FILES_IN_PLACE: "files",
    ConditionType.CONTAINERS_RUNNING: "containers",
    ConditionType.ROUTES_PROGRAMMED: "routes",
}
"""What people call the conditions, in the order in which they usually turn true."""


class LoginReport(Model):
    """`mcp login`"""

    user: str
    """Empty where nobody could say whose token was taken over."""
    token_file: str
    """Where the token is; the token itself is printed nowhere."""
    expires_at: datetime | None = None
    unchecked: str = ""
    """Why the node's agent could not be asked whether it lets in; empty: it does."""


class LogoutReport(Model):
    """`mcp logout`"""

    token_file: str
    removed: bool
    """Whether there was a token."""


class MadeTokenReport(Model):
    """`mcp token create`"""

    token: Token
    secret: str
    """Shown this once."""


class NodeToken(Token):
    """A token, and the node whose agent lets it in."""

    node: str
    """Empty where --address named the agent."""


class TokensReport(Model):
    """`mcp token list` and `mcp token revoke`"""

    tokens: tuple[NodeToken, ...]
    unasked: tuple[Unasked, ...] = ()


class NodeRecord(AuditRecord):
    """A line of the audit, and where it is kept."""

    node: str
    """Empty where --address named the agent."""


class AuditReport(Model):
    """`mcp audit`"""

    records: tuple[NodeRecord, ...]
    """The newest last."""
    unasked: tuple[Unasked, ...] = ()


class NodeIdentity(Identity):
    """Whom a node's agent takes the caller for."""

    node: str
    """Empty where --address named the agent."""


class WhoamiReport(Model):
    """`mcp whoami`"""

    identities: tuple[NodeIdentity, ...]
    unasked: tuple[Unasked, ...] = ()
