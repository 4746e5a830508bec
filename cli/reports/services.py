"""What is known of services."""

from datetime import datetime

from api.inspection import Exported
from api.model import Model
from api.service import Event, FieldChange, NodeStatus, PlannedAction, Service
from api.spec import ServiceSpec
from api.timeline import NodeEvent
from cli.reports.common import Unasked


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


class ValidateReport(Model):
    """`mcp service validate`: all that was checked, and is right."""

    definitions: tuple[DefinitionReport, ...]


class WatchLine(Model):
    """`mcp watch`: one of these a line, with exactly one field beside `node` that is neither null nor empty."""

    node: str
    """Empty where --address named the agent."""
    service: Service | None = None
    deleted: str = ""
    synced: bool = False
    """The services as they were are told; what follows are changes."""


class ExportedReport(Model):
    """`mcp export --format quadlet` and `--format kube`"""

    exported: Exported


class ExportReport(Model):
    """`mcp export`"""

    spec: ServiceSpec
