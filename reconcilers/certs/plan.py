"""Which certificate is issued, noted or removed: the whole decision, and nothing but the decision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from api.conditions import Reason, Status
from api.resolve import ResolvedService, default_hostname
from api.service import Certificate, Finalizer, Service
from api.spec import RouteMode
from reconcilers.base import NOT_NEEDED, Action, Outcome, Plan

PROVIDED = "provided by the operator"
"""Stands in a record's `issuer` where the files are not ours."""

RENEWAL = 2 / 3
"""The part of its life after which a certificate is renewed."""

_EVER = datetime.max.replace(tzinfo=UTC)
_GO_FIRST = frozenset({Finalizer.ROUTES, Finalizer.CONTAINERS})
_ROUTE_GOES = timedelta(seconds=1)
_CONFLICT_ENDS = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Site:
    """Where the certificate of one hostname lies by convention."""

    hostname: str
    cert_path: str
    key_path: str


@dataclass(frozen=True, slots=True)
class Pair:
    """What was found at a site."""

    has_cert: bool = False
    has_key: bool = False
    fingerprint: str = ""
    """SHA-256 of the leaf's DER, or of a file that holds no certificate; empty: there is no certificate file."""
    problem: str = ""
    """What keeps it from serving its hostname, whatever the time; "it ..."."""
    ours: bool = False
    """Signed by our issuer as it is now: nobody else could have made it."""
    not_before: datetime = _EVER
    not_after: datetime = _EVER
    serial: str = ""

    @property
    def exists(self) -> bool:
        """Whether anything is there."""
        return self.has_cert or self.has_key


@dataclass(frozen=True, slots=True)
class CertificateAction(Action):
    """Something to do about the certificate at one site."""

    site: Site

    @property
    def subject(self) -> str:
        """The hostname."""
        return self.site.hostname


@dataclass(frozen=True, slots=True)
class Issue(CertificateAction):
    """Has a certificate issued and lays it down, over what is there."""

    cause: str
    verb: ClassVar[str] = "issued"

    def describe(self) -> str:
        """One line for a person."""
        return f"issue a certificate for {self.subject} ({self.cause})"


@dataclass(frozen=True, slots=True)
class Note(CertificateAction):
    """Records the good pair that is there already."""

    fingerprint: str
    provided: bool
    verb: ClassVar[str] = "noted"

    def describe(self) -> str:
        """One line for a person."""
        origin = PROVIDED if self.provided else "issued before"
        return f"use the certificate for {self.subject} at {self.site.cert_path} ({origin})"


@dataclass(frozen=True, slots=True)
class Remove(CertificateAction):
    """Removes the files of a record of ours, and the record."""

    fingerprint: str
    verb: ClassVar[str] = "removed"

    def describe(self) -> str:
        """One line for a person."""
        return f"remove the certificate for {self.subject}"


@dataclass(frozen=True, slots=True)
class Forget(CertificateAction):
    """Drops a record and leaves whatever is at its site alone."""

    cause: str
    verb: ClassVar[str] = "forgot"

    def describe(self) -> str:
        """One line for a person."""
        return f"forget the certificate for {self.subject} ({self.cause})"


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known of the world: by path of the certificate file."""

    pairs: Mapping[str, Pair]
    holders: Mapping[str, str]
    """Sites that other services hold."""
    now: datetime


@dataclass(frozen=True, slots=True)
class _Use:
    """The pair that is there is good until `until`; `note` is what the registry does not know of it yet."""

    until: datetime
    provided: bool
    note: Note | None


@dataclass(frozen=True, slots=True)
class _Conflict:
    """The site is somebody else's."""

    message: str


def sites(desired: ResolvedService, zone: str, cert_dir: str) -> tuple[Site, ...]:
    """Where mc-proxy's convention wants the certificates of a service, each hostname once."""
    hostnames = {route.hostname for route in desired.routes if route.mode is RouteMode.L7}
    default = default_hostname(desired.name, zone)
    return tuple(
        Site(hostname, f"{cert_dir}/{stem}.pem", f"{cert_dir}/{stem}.key")
        for hostname in sorted(hostnames)
        for stem in (desired.name if hostname == default else hostname,)
    )


def plan(service: Service, wanted: Sequence[Site], observed: Observed, lifetime: timedelta) -> Plan:
    """What to do for a service that wants certificates at these sites; those issued now live for `lifetime`."""
    decisions = [_decide(service, site, wanted, observed) for site in wanted]
    used = [decision for decision in decisions if isinstance(decision, _Use)]
    issues = [decision for decision in decisions if isinstance(decision, Issue)]
    removals, waits = _drop(service, wanted, observed)
    look_again = [max(decision.until - observed.now, timedelta()) for decision in used]
    look_again += [lifetime * RENEWAL] if issues else []
    look_again += [_ROUTE_GOES] if waits else []
    conflicts = [decision.message for decision in decisions if isinstance(decision, _Conflict)]
    if conflicts:
        outcome = Outcome(Status.FALSE, Reason.CONFLICT, "; ".join(conflicts), min([_CONFLICT_ENDS, *look_again]))
    else:
        provided = [site.hostname for site, decision in zip(wanted, decisions, strict=True) if _is_provided(decision)]
        outcome = Outcome(
            Status.TRUE,
            Reason.CONVERGED if wanted else Reason.NOT_NEEDED,
            f"{', '.join(provided)}: {PROVIDED}" if provided else "",
            min(look_again, default=None),
        )
    notes = [decision.note for decision in used if decision.note]
    # A record that stands in the place of another one goes first: a site has one record.
    return Plan((*removals, *notes, *issues), outcome)


def plan_deletion(service: Service, observed: Observed) -> Plan:
    """What to do for a service on its way out, once nothing can use its certificates."""
    waiting = [finalizer for finalizer in service.finalizers if finalizer in _GO_FIRST]
    if waiting:
        return Plan((), Outcome(Status.FALSE, Reason.TERMINATING, f"waits until its {', '.join(waiting)} are gone"))
    return Plan(tuple(_removal(record, observed) for record in service.certificates), NOT_NEEDED)


def due(not_before: datetime, not_after: datetime) -> datetime:
    """When a certificate of ours with these dates is renewed."""
    return not_before + (not_after - not_before) * RENEWAL


def _decide(service: Service, site: Site, wanted: Sequence[Site], observed: Observed) -> Issue | _Use | _Conflict:
    if holder := observed.holders.get(site.cert_path):
        return _Conflict(f'{site.cert_path} is needed for {site.hostname}, and service "{holder}" holds it')
    first = next(other for other in wanted if other.cert_path == site.cert_path)
    if first is not site:
        return _Conflict(f"{site.cert_path} is needed for both {first.hostname} and {site.hostname}")
    record = service.certificate(site.hostname)
    if record is not None and record.cert_path != site.cert_path:
        record = None
    return _decide_by_pair(record, site, observed.pairs[site.cert_path], observed.now)


def _decide_by_pair(record: Certificate | None, site: Site, pair: Pair, now: datetime) -> Issue | _Use | _Conflict:
    if not pair.exists:
        return Issue(site, "there is none")
    if pair.ours:
        problem = pair.problem or _expiry(pair, now) or _renewal(pair, now)
        return Issue(site, problem) if problem else _use(record, site, pair)
    problem = pair.problem or _expiry(pair, now)
    if record is not None and record.issuer != PROVIDED and (problem or record.fingerprint == pair.fingerprint):
        return Issue(site, problem or "it is from another CA")
    # A good pair of somebody else's is used, even in the place of ours: its key may exist nowhere else.
    if problem:
        return _Conflict(
            f"{site.cert_path} is not ours and cannot serve {site.hostname}: {problem}; mend it or take it away"
        )
    return _use(record, site, pair)


def _use(record: Certificate | None, site: Site, pair: Pair) -> _Use:
    provided = not pair.ours
    noted = record is not None and record.fingerprint == pair.fingerprint and (record.issuer == PROVIDED) == provided
    until = pair.not_after if provided else due(pair.not_before, pair.not_after)
    return _Use(until, provided, None if noted else Note(site, pair.fingerprint, provided))


def _is_provided(decision: Issue | _Use | _Conflict) -> bool:
    return isinstance(decision, _Use) and decision.provided


def _expiry(pair: Pair, now: datetime) -> str:
    if now >= pair.not_after:
        return f"it expired on {pair.not_after:%Y-%m-%d}"
    return f"it is not valid before {pair.not_before:%Y-%m-%d %H:%M}" if now < pair.not_before else ""


def _renewal(pair: Pair, now: datetime) -> str:
    return "it is due for renewal" if now >= due(pair.not_before, pair.not_after) else ""


def _drop(service: Service, wanted: Sequence[Site], observed: Observed) -> tuple[list[Action], bool]:
    """Removals of hostnames that are not wanted any more, and whether one waits for its route to go."""
    hostnames = {site.hostname for site in wanted}
    paths = {site.cert_path for site in wanted}
    # A proxy that still holds the route would fail to load the files that are gone.
    served = {claim.hostname for claim in service.claims if claim.mode is RouteMode.L7}
    actions: list[Action] = []
    waits = False
    for record in service.certificates:
        if record.hostname in hostnames:
            continue
        if record.cert_path in paths:
            actions.append(Forget(_site(record), "another hostname has its place"))
        elif record.hostname in served:
            waits = True
        else:
            actions.append(_removal(record, observed))
    return actions, waits


def _removal(record: Certificate, observed: Observed) -> Remove | Forget:
    pair = observed.pairs[record.cert_path]
    if record.issuer == PROVIDED:
        return Forget(_site(record), f"its files were {PROVIDED}")
    if not pair.exists:
        return Forget(_site(record), "its files are gone")
    if pair.ours or pair.fingerprint == record.fingerprint:
        return Remove(_site(record), pair.fingerprint)
    return Forget(_site(record), "its files are not ours any more")


def _site(record: Certificate) -> Site:
    return Site(record.hostname, record.cert_path, record.key_path)
