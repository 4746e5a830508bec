"""What people see of services, containers and events, as tables and lines. Pure."""

import re
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime

from api.conditions import Condition, ConditionType, Reason, Status
from api.service import (
    Certificate,
    Component,
    Container,
    ContainerState,
    Drain,
    Event,
    FieldChange,
    NodeStatus,
    PlannedAction,
    Service,
    Suspension,
)
from api.spec import ComponentSpec
from cli.output import Row, Table
from cli.reports.common import SHORT
from cli.reports.nodes import KnownNode
from cli.reports.parts import Route, ServiceCertificate
from cli.reports.services import HistoryEntry

_IN_COMPONENT = re.compile(r"^components\[[^]]*\]\.")


def age(since: datetime | None, now: datetime) -> str:
    """How long ago, in the largest unit that fits: `5s`, `3m`, `2h`, `4d`; empty for never."""
    return "" if since is None else span((now - since).total_seconds())


def span(seconds: float) -> str:
    """A time in the largest unit that fits."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(0, int(seconds))}s"


def version(image: str) -> str:
    """An image's tag, or the beginning of its digest."""
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return tag or digest[:19]


def services_table(services: Iterable[Service], now: datetime, *, nodes: bool = False) -> Table:
    """One row a component; the reason stands in the first of a service that is not ready."""
    rows = [
        (*((service.node,) if nodes else ()), *row) for service in services for row in _component_rows(service, now)
    ]
    headers: tuple[str, ...] = ("SERVICE", "COMPONENT", "DESIRED", "OBSERVED", "VERSION", "READY", "AGE", "REASON")
    if nodes:
        headers = ("NODE", *headers)
    if not any(row[-1] for row in rows):
        return Table(headers[:-1], tuple(row[:-1] for row in rows))
    return Table(headers, tuple(rows))


def registry_table(services: Iterable[Service], now: datetime) -> Table:
    """One row a service: what its registry holds of it."""
    rows = tuple(
        (
            service.name,
            service.node,
            _wish(service),
            str(service.generation),
            str(len(service.spec.components)),
            "yes" if is_ready(service) else "no",
            age(service.updated_at, now),
            service.actor,
        )
        for service in services
    )
    return Table(("SERVICE", "NODE", "DESIRED", "GEN", "COMPONENTS", "READY", "CHANGED", "BY"), rows)


def _wish(service: Service) -> str:
    """What its registry wants of a service, and that it is left alone, where somebody said so."""
    wish = "deleting" if service.deleting else "running" if service.spec.active else "stopped"
    if service.drained and not service.deleting:
        wish = "drained"
    return f"{wish}, suspended" if service.suspended is not None else wish


def routes_table(routes: Iterable[Route]) -> Table:
    """One row a name on a listener."""
    rows = tuple(
        (
            f"{route.claim.hostname}{route.claim.listener}",
            route.node,
            f"{route.service}/{route.claim.component}",
            route.claim.mode,
            route.claim.backend,
        )
        for route in routes
    )
    return Table(("ROUTE", "NODE", "COMPONENT", "MODE", "BACKEND"), rows)


def history_table(entries: Iterable[HistoryEntry]) -> Table:
    """One row a generation, newest first."""
    rows = tuple(
        (
            str(entry.generation),
            moment(entry.at),
            entry.actor,
            entry.note or "; ".join(field_line(change).strip() for change in entry.fields) or "first definition",
        )
        for entry in entries
    )
    return Table(("GEN", "TIME", "BY", "WHAT"), rows)


def nodes_table(nodes: Iterable[KnownNode], now: datetime) -> Table:
    """One row a node of mcp.toml."""
    return Table(
        ("NODE", "ADDRESS", "AGENT", "UP", "SERVICES", "READY", "PROBLEM"),
        tuple(
            (
                node.name,
                node.address,
                node.status.version if node.status else "",
                age(node.status.started_at, now) if node.status else "",
                str(node.status.services) if node.status else "",
                str(node.status.ready) if node.status else "",
                node.error or "; ".join(_problems(node.status) if node.status else ()),
            )
            for node in nodes
        ),
    )


def _component_rows(service: Service, now: datetime) -> Iterator[tuple[str, ...]]:
    wanted = {component.name: component for component in service.spec.components}
    left = {component.name: None for component in service.components if component.name not in wanted}
    why = reason_of(service)
    for name, spec in (wanted | left).items():
        seen = service.component(name)
        yield (
            service.name,
            name,
            _desired(service, spec),
            _observed(service, seen),
            _running_version(service, spec, seen),
            "yes" if seen is not None and seen.ready and is_ready(service) else "no",
            age(seen.started_at if seen and seen.started_at else service.created_at, now),
            why,
        )
        why = ""


def is_ready(service: Service) -> bool:
    """Whether its current generation has converged."""
    ready = service.condition(ConditionType.READY)
    return ready is not None and ready.status is Status.TRUE and ready.observed_generation >= service.generation


def reason_of(service: Service) -> str:
    """Why it is not as it should be, or is left so; empty where all is well."""
    words = _unready(service)
    if service.suspended is None or words.startswith(Reason.SUSPENDED):
        return words
    return f"{Reason.SUSPENDED}: {suspension(service.suspended)}" + (f"; {words}" if words else "")


def suspension(suspended: Suspension) -> str:
    """Who has it left alone and why."""
    return f"by {suspended.actor}: {suspended.reason}" if suspended.reason else f"by {suspended.actor}"


def drained(service: Service) -> str:
    """That it is stopped for its node's sake, and what ends that."""
    return f"node {service.node} is drained; mcp node undrain {service.node}"


def late_line(name: str, late: Collection[str]) -> str:
    """Who has not looked in time."""
    verb = "has" if len(late) == 1 else "have"
    return f"{name}: {', '.join(late)} {verb} not looked yet: what was begun goes on; mcp status {name} shows it"


def _unready(service: Service) -> str:
    ready = service.condition(ConditionType.READY)
    if ready is None or ready.observed_generation < service.generation:
        return f"{Reason.PENDING}: generation {service.generation} has not been looked at yet"
    if service.drained and ready.reason is Reason.STOPPED:
        return f"{ready.reason}: {drained(service)}"
    if ready.status is Status.TRUE:
        flapping = service.condition(ConditionType.FLAPPING)
        return f"{Reason.FLAPPING}: {flapping.message}" if flapping and flapping.status is Status.TRUE else ""
    return f"{ready.reason}: {ready.message}" if ready.message else str(ready.reason)


def _desired(service: Service, spec: ComponentSpec | None) -> str:
    if service.deleting or spec is None:
        return "removed"
    if service.spec.runs(spec.name):
        return "running"
    return "drained" if service.drained and spec.active else "stopped"


def _observed(service: Service, seen: Component | None) -> str:
    condition = service.condition(ConditionType.CONTAINERS_RUNNING)
    if seen is None or (condition is not None and condition.status is Status.UNKNOWN):
        return str(ContainerState.UNKNOWN)
    return str(seen.state)


def _running_version(service: Service, spec: ComponentSpec | None, seen: Component | None) -> str:
    if seen is not None and seen.image:
        return version(seen.image)
    if spec is None:
        return ""
    return version(spec.image) if spec.image else spec.version or service.spec.version or ""


def _problems(node: NodeStatus) -> Iterator[str]:
    yield from parts_lines(node)
    if node.drained is not None:
        yield drain_line(node, node.drained)
    if node.snapshots.problem:
        yield f"snapshots: {node.snapshots.problem}"


def drain_line(node: NodeStatus, drain: Drain) -> str:
    """Who has a node kept empty, since when, and what ends that."""
    return f"drained by {drain.actor} at {moment(drain.at)}; mcp node undrain {node.node}"


def parts_lines(node: NodeStatus) -> Iterator[str]:
    """What the agent misses, or does not know; nothing when all is well."""
    for part in node.parts:
        if not part.reachable:
            yield f"{part.name} cannot be reached from node {node.node}: {part.detail}"
    if node.undefined:
        count = sum(service.containers for service in node.undefined)
        carry = "container of {} carries" if count == 1 else "containers of {} carry"
        names = ", ".join(service.name for service in node.undefined)
        yield (
            f"{count} {carry.format(names)} the labels of node {node.node} without a definition, and"
            f" {'is' if count == 1 else 'are'} left alone: mcp adopt {node.undefined[0].name} takes over what runs"
        )


def all_certificates_table(certificates: Iterable[ServiceCertificate]) -> Table:
    """One row a hostname; what went wrong stands at the end, where anything did."""
    rows = tuple(_certificate_row(one.service, one.certificate) for one in certificates)
    headers = ("HOSTNAME", "SERVICE", "ISSUER", "ISSUED", "EXPIRES", "RENEWED", "RETRIED", "ERROR")
    if not any(row[-1] for row in rows):
        return Table(headers[:-2], tuple(row[:-2] for row in rows))
    return Table(headers, rows)


def _certificate_row(service: str, certificate: Certificate) -> tuple[str, ...]:
    dates = (certificate.not_before, certificate.not_after, certificate.renew_at)
    return (
        certificate.hostname,
        service,
        certificate.issuer,
        *(moment(date) if certificate.fingerprint else "" for date in dates),
        moment(certificate.retry_at) if certificate.retry_at else "",
        certificate.error,
    )


def located(table: Table, nodes: Iterable[str]) -> Table:
    """The table with the node of each row in front."""
    rows = tuple((node, *row) for node, row in zip(nodes, table.rows, strict=True))
    return Table(("NODE", *table.headers), rows)


def containers_table(containers: Iterable[Container], now: datetime) -> Table:
    """Every container of a node, and whose it is."""
    rows = tuple(
        (
            container.name,
            "mcp" if container.owned else "foreign",
            container.service,
            container.component,
            container.state,
            container.image,
            ",".join(container.ports),
            age(container.created_at, now),
        )
        for container in containers
    )
    return Table(("CONTAINER", "OWNER", "SERVICE", "COMPONENT", "STATE", "IMAGE", "PORTS", "AGE"), rows)


def moment(at: datetime) -> str:
    """A point in time, in UTC and to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def events_table(events: Iterable[Event]) -> Table:
    """The timeline, newest last."""
    return Table(("TIME", "SERVICE", "GEN", "ACTOR", "EVENT", "MESSAGE"), tuple(map(event_row, events)))


def event_page(events: Iterable[Event], service: str) -> list[Row]:
    """The timeline for a terminal, newest last; `service` is named in no line where it is all about one."""
    return [
        Row(
            f"{event.at.astimezone(UTC):%m-%d %H:%M:%S}",
            event_line(event) if service else f"{event.service}: {event_line(event)}",
            event_style(event),
        )
        for event in events
    ]


def event_line(event: Event) -> str:
    """Who did what and why: a sentence."""
    drift = "drift: " if event.drift else ""
    return f"{event.actor} {drift}{event.kind} {event.message}"


def event_style(event: Event) -> str:
    """What went wrong catches the eye."""
    return "red" if event.kind in ("failed", "flapping", "gave up") else ""


def event_row(event: Event) -> tuple[str, ...]:
    """One line of the timeline."""
    kind = f"drift: {event.kind}" if event.drift else event.kind
    return moment(event.at), event.service, str(event.generation), event.actor, kind, event.message


def field_line(change: FieldChange) -> str:
    """One difference: `+` what comes, `-` what goes, `~` what changes."""
    if change.old is None:
        return f"  + {change.path}: {change.new}"
    if change.new is None:
        return f"  - {change.path}: {change.old}"
    return f"  ~ {change.path}: {change.old} -> {change.new}"


def action_lines(action: PlannedAction, told: Collection[str] = ()) -> Iterator[str]:
    """One thing that would be done, then what it would mend, field by field, except for the paths that are told."""
    yield f"{action.resource}: {action.description}"
    for field in (field for field in action.fields if field.path not in told):
        # The action names the container already.
        path = _IN_COMPONENT.sub("", field.path)
        yield f"  {path}: wanted {field.new or 'nothing'}, found {field.old or 'nothing'}"


def changes_between(old: Service | None, new: Service) -> Iterator[str]:
    """What became different of a service, one line each; the summary alone of one that is seen first."""
    if old is None or old.uid != new.uid:
        yield f"{new.name} {_summary(new)}"
        return
    if old.generation != new.generation:
        yield f"{new.name} generation {new.generation}"
    if new.suspended != old.suspended:
        yield f"{new.name} " + (f"suspended {suspension(new.suspended)}" if new.suspended else "resumed")
    if new.drained and not old.drained:
        yield f"{new.name} is kept stopped: {drained(new)}"
    if new.deleting and not old.deleting:
        yield f"{new.name} is being deleted"
    for component in new.components:
        before = old.component(component.name)
        if before is None or before.state != component.state:
            yield f"{new.name} component {component.name} {component.state}"
    for condition in new.conditions:
        if _essence(condition) != _essence(old.condition(condition.type)):
            yield f"{new.name} {_label(condition.type)} {_words(condition)}"


def _summary(service: Service) -> str:
    ready = service.condition(ConditionType.READY)
    return f"generation {service.generation} " + (f"ready {_words(ready)}" if ready else "not looked at yet")


def _label(kind: ConditionType) -> str:
    return SHORT.get(kind, kind.lower())


def _words(condition: Condition) -> str:
    words = f"{condition.status} {condition.reason}"
    return f"{words}: {condition.message}" if condition.message else words


def _essence(condition: Condition | None) -> object:
    return condition and (condition.status, condition.reason, condition.message)
