"""One service on one screen: what it is doing, why, since when, and what it will do next. Pure."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from api.conditions import Condition, ConditionType, Reason, Status
from api.service import Certificate, Component, ContainerState, Event, PlannedAction, RouteClaim, Service
from api.spec import container_name
from cli import views
from cli.file_views import files_rows
from cli.output import Row
from cli.reports.common import SHORT
from cli.views import action_lines, age, event_line, event_style, is_ready, span

_DIGEST = len("sha256:") + 12
"""So much of a digest tells images apart."""
_LAST_WORDS = 5
"""Lines of a log."""

_GOOD, _BAD, _WAITS, _ASIDE = "green", "red", "yellow", "dim"


def headline(service: Service, now: datetime) -> Row:
    """What it is, since when, and in a word why."""
    ready, name = service.condition(ConditionType.READY), f"{service.name} on {service.node}"
    since = "" if ready is None else f" for {age(ready.last_transition, now)}"
    if service.deleting:
        left = ", ".join(service.finalizers) or "nothing"
        since = age(service.deletion_requested_at, now)
        return Row("", f"{name}: being deleted for {since}, still to be taken away: {left}", _WAITS)
    if is_ready(service):
        return Row("", f"{name}: ready{since}", _GOOD)
    if ready is None or ready.observed_generation < service.generation:
        return Row("", f"{name}: generation {service.generation} was not looked at yet", _WAITS)
    if ready.reason is Reason.STOPPED and service.drained:
        return Row("", f"{name}: stopped{since}: {views.drained(service)}", _WAITS)
    if ready.reason is Reason.STOPPED:
        return Row("", f"{name}: stopped{since}, as defined", _ASIDE)
    style = _BAD if ready.reason.needs_a_person else _WAITS
    return Row("", f"{name}: not ready{since}: {ready.reason}", style)


def suspension(service: Service, now: datetime) -> Iterator[Row]:
    """That it is left alone, where it is."""
    if service.suspended is not None:
        since = f"suspended for {age(service.suspended.at, now)} {views.suspension(service.suspended)}"
        yield Row("", f"{since}; nothing is done to it until: mcp resume {service.name}", _WAITS)


def origin(service: Service, now: datetime) -> Row:
    """Which wish this is, and whose."""
    by = f", asked for by {service.actor}" if service.actor else ""
    # A deletion is an update, too.
    when = "" if service.deleting else f" {age(service.updated_at, now)} ago"
    return Row("", f"generation {service.generation}{by}{when}; first made {age(service.created_at, now)} ago", _ASIDE)


def rows(
    service: Service, actions: Iterable[PlannedAction], unplanned: str, events: Iterable[Event], now: datetime
) -> Iterator[Row]:
    """Everything below the headline. `unplanned` says why it is not known what would be done, where it is not."""
    yield from _labelled("why", _reasons(service, now))
    yield from _labelled("note", _notes(service, now))
    for name in dict.fromkeys([*(c.name for c in service.spec.components), *(c.name for c in service.components)]):
        yield from _labelled(name, _component(service, name, now))
    yield from _labelled("routes", _routes(service, now))
    yield from _labelled("files", files_rows(service, now))
    yield from _labelled("next", _next(actions, unplanned))
    yield from _labelled("events", (_event(event, service, now) for event in events))


def _labelled(label: str, lines: Iterable[Row]) -> Iterator[Row]:
    for line in lines:
        yield Row(label, line.text, line.style)
        label = ""


# Why


def _reasons(service: Service, now: datetime) -> Iterator[Row]:
    for condition in _parts(service):
        flaps = condition.type is ConditionType.FLAPPING
        if condition.observed_generation < service.generation and not flaps:
            yield Row("", f"{_label(condition)} not looked at in generation {service.generation} yet", _WAITS)
        elif not _is_as_it_should_be(condition):
            words = "" if flaps else f"{condition.reason} "
            words = f"{words}for {age(condition.last_transition, now)}"
            message = f": {condition.message}" if condition.message else ""
            style = _BAD if condition.reason.needs_a_person or flaps else _WAITS
            yield Row("", f"{_label(condition)} {words}{message}{_look(condition, now)}", style)


def _notes(service: Service, now: datetime) -> Iterator[Row]:
    """What is good may have a shadow over it: a certificate that serves, and cannot be renewed."""
    for condition in _parts(service):
        current = condition.observed_generation >= service.generation
        if current and condition.status is Status.TRUE and condition.message and _is_as_it_should_be(condition):
            yield Row("", f"{_label(condition)}: {condition.message}{_look(condition, now)}", _ASIDE)


def _parts(service: Service) -> Iterator[Condition]:
    """The conditions but for their summary, in the order in which they usually turn true."""
    conditions = (service.condition(kind) for kind in ConditionType if kind is not ConditionType.READY)
    return (condition for condition in conditions if condition is not None)


def _label(condition: Condition) -> str:
    return SHORT.get(condition.type, str(condition.type))


def _is_as_it_should_be(condition: Condition) -> bool:
    if condition.type is ConditionType.FLAPPING:
        return condition.status is not Status.TRUE
    return condition.status is Status.TRUE or condition.reason is Reason.STOPPED


def _look(condition: Condition, now: datetime) -> str:
    left = _left(condition.next_look_at, now)
    if not left:
        return ""
    if condition.type is ConditionType.FLAPPING:
        return f" (over in {left}, if nothing happens until then)"
    return f" (next look in {left})"


def _left(moment: datetime | None, now: datetime) -> str:
    """How long until then; empty where it is over."""
    seconds = 0.0 if moment is None else (moment - now).total_seconds()
    return span(seconds) if seconds > 0 else ""


# Components


def _component(service: Service, name: str, now: datetime) -> Iterator[Row]:
    seen = service.component(name)
    if seen is None:
        yield Row("", f"{container_name(service.name, name)} was not made yet", _WAITS)
        return
    # What was good when nobody could look is not known to be good.
    unknown = _unknown(service)
    style = _WAITS if unknown else _GOOD if seen.ready else _BAD if seen.state in _ENDED else _WAITS
    if seen.state is ContainerState.EXITED and (seen.exit_code == 0 or not service.spec.runs(name)):
        style = _ASIDE
    yield Row("", ("last seen " if unknown else "") + _state(seen, now) + _history(seen, service, now), style)
    digest = f" ({seen.digest[:_DIGEST]})" if seen.digest else ""
    yield Row("", f"{seen.container_name} from {seen.image or 'no image yet'}{digest}", _ASIDE)
    if seen.failure:
        yield Row("", f"generation {seen.failed_generation} was given up: {seen.failure}", _BAD)
    if seen.last_words and (seen.failure or not seen.ready):
        for line in seen.last_words.splitlines()[-_LAST_WORDS:]:
            yield Row("", f"| {line}", _ASIDE)


_ENDED = frozenset({ContainerState.EXITED, ContainerState.MISSING})


def _unknown(service: Service) -> bool:
    condition = service.condition(ConditionType.CONTAINERS_RUNNING)
    return condition is not None and condition.status is Status.UNKNOWN


def _state(seen: Component, now: datetime) -> str:
    match seen.state:
        case ContainerState.RUNNING:
            ready = "ready" if seen.ready else seen.message or "not ready"
            return f"running for {age(seen.started_at, now)}, {ready}" if seen.started_at else f"running, {ready}"
        case ContainerState.EXITED:
            started = f", started {age(seen.started_at, now)} ago" if seen.started_at else ""
            return f"{seen.message or f'exited with {seen.exit_code}'}{started}"
        case _:
            return f"{seen.state}: {seen.message}" if seen.message else str(seen.state)


def _history(seen: Component, service: Service, now: datetime) -> str:
    parts = []
    if seen.restarts:
        parts.append("restarted once" if seen.restarts == 1 else f"restarted {seen.restarts} times")
    if left := _left(seen.retry_at, now):
        parts.append(f"started again in {left}")
    if 0 < seen.generation < service.generation:
        parts.append(f"made in generation {seen.generation}")
    return "".join(f"; {part}" for part in parts)


# Routes and their certificates


def _routes(service: Service, now: datetime) -> Iterator[Row]:
    claims = {(claim.component, claim.route): claim for claim in service.claims}
    certificates = {certificate.hostname: certificate for certificate in service.certificates}
    for component in service.spec.components:
        for route in component.routes:
            claim = claims.pop((component.name, route.key), None)
            if claim is None:
                name = f"{route.hostname or component.name}:{route.port}"
                yield Row("", f"{name} is not routed yet ({route.mode})", _WAITS)
            else:
                yield from _route(claim, certificates.pop(claim.hostname, None), now)
    for claim in claims.values():
        yield from _route(claim, certificates.pop(claim.hostname, None), now)
    for certificate in certificates.values():
        yield from _certificate(certificate, now, f"{certificate.hostname}: ")


def _route(claim: RouteClaim, certificate: Certificate | None, now: datetime) -> Iterator[Row]:
    leads = f"-> {claim.backend}" if claim.backend else "is not routed yet"
    style = "" if claim.backend else _WAITS
    yield Row("", f"{claim.hostname}{claim.listener} {leads} ({claim.mode}, {claim.component}/{claim.route})", style)
    if certificate is not None:
        yield from _certificate(certificate, now, "  ")


def _certificate(certificate: Certificate, now: datetime, before: str) -> Iterator[Row]:
    if certificate.fingerprint:
        ends, renewed = _left(certificate.not_after, now), _left(certificate.renew_at, now)
        until = f"until {certificate.not_after:%Y-%m-%d}" if ends else "EXPIRED"
        when = f", renewed in {renewed}" if renewed else ", to be renewed now"
        issuer = certificate.issuer.removeprefix("CN=")
        yield Row("", f"{before}certificate of {issuer} {until}{when}", _ASIDE if ends else _BAD)
    if certificate.error:
        again = f"; tried again in {left}" if (left := _left(certificate.retry_at, now)) else ""
        yield Row("", f"{before}no other certificate: {certificate.error}{again}", _BAD)


# What comes, and what was


def _next(actions: Iterable[PlannedAction], unplanned: str) -> Iterator[Row]:
    for action in actions:
        first, *fields = action_lines(action)
        yield Row("", first, _WAITS)
        for field in fields:
            yield Row("", field, "")
    if unplanned:
        yield Row("", unplanned, _WAITS)


def _event(event: Event, service: Service, now: datetime) -> Row:
    # Of the day before and earlier, the hour alone says nothing.
    recent = (now - event.at).total_seconds() < 86400
    at = f"{event.at:%H:%M:%S}" if recent else f"{event.at:%Y-%m-%d}"
    # Of this generation it is said above whose wish it is.
    line = event_line(event).removesuffix(f", generation {service.generation} by {service.actor}")
    return Row("", f"{at} {line}", event_style(event))
