"""Observes the files, has it decided what they should be, and orders, issues, notes or removes them."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, ParamSpec, TypeVar

import structlog

from api.conditions import ConditionType, Reason, Status
from api.resolve import Defaults
from api.service import Certificate, Finalizer, Service
from reconcilers.base import Action, Claimed, Clock, Plan, Registry, Terminal, Transient
from reconcilers.certs import pairs, records
from reconcilers.certs import plan as planner
from reconcilers.certs.actions import Forget, Issue, Note, Order, Postpone, Remove, Reschedule
from reconcilers.certs.advice import Advice
from reconcilers.certs.attempts import Attempts
from reconcilers.certs.files import Files
from reconcilers.certs.issuer import IssueFailed, Issuer
from reconcilers.certs.issuers import Issuers, Obtained
from reconcilers.certs.model import PROVIDED, Observed, Pair, Policy, Site
from reconcilers.certs.watch import changes
from reconcilers.definition import resolved

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger("certs")

_AT_ONCE = timedelta(milliseconds=10)
_WATCH_AGAIN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class CertSettings:
    """Where mc-proxy looks for certificates, how long those issued now live, and the pauses after failures."""

    cert_dir: Path
    lifetime: timedelta = timedelta(days=90)
    retry_first: timedelta = timedelta(hours=1)
    retry_most: timedelta = timedelta(days=1)


class Certs:
    """Keeps one certificate for each hostname of an l7 route. Implements reconcilers.base.Reconciler."""

    name: ClassVar[str] = "certs"
    condition: ClassVar[ConditionType] = ConditionType.CERTIFICATES_READY
    finalizer: ClassVar[Finalizer] = Finalizer.CERTS

    def __init__(
        self,
        registry: Registry,
        issuer: Issuer,
        settings: CertSettings,
        defaults: Defaults,
        clock: Clock,
        second: Issuer | None = None,
    ) -> None:
        """`second` is asked where `issuer` fails and nothing else serves for long."""
        self._registry = registry
        self._issuers = Issuers(issuer, second)
        self._settings = settings
        self._defaults = defaults
        self._clock = clock
        self._policy = Policy(
            settings.lifetime,
            issuer.name,
            self._issuers.at_hand,
            second is not None,
            settings.retry_first,
            settings.retry_most,
        )
        self._attempts = Attempts(self._issuers, settings.lifetime, clock)
        self._advice = Advice(clock)
        self._files = Files()
        self._interested: dict[str, frozenset[Path]] = {}

    async def plan(self, service: Service, *, attend: bool = True) -> Plan:
        """What to do about the service's certificates. Raises Transient where the files cannot be seen."""
        wanted = () if service.deleting else self._sites(service)
        held = [Site(record.hostname, record.cert_path, record.key_path) for record in service.certificates]
        # Where several hostnames share a site, it is looked at with the eyes of the one that shall have it.
        by_path = {site.cert_path: site for site in (*held, *reversed(wanted))}
        if attend:
            self._note_interest(service.name, by_path.values())
        found = await self._observe(by_path.values())
        if attend:
            await self._ask_advice(service.name, by_path, found)
        now = self._clock()
        observed = Observed(
            pairs=found,
            holders=await self._holders(service, wanted),
            now=now,
            attempts=self._attempts.of(service.name),
            suggested=self._advice.suggested,
        )
        if service.deleting:
            return planner.plan_deletion(service, observed)
        return planner.plan(service, wanted, observed, self._policy)

    async def execute(self, service: Service, action: Action) -> None:
        """Carries out one action. Raises Transient, or Terminal where another service was quicker."""
        match action:
            case Order():
                await self._claim(service, action.site)
                self._attempts.begin(service.name, action.site.hostname, urgent=action.urgent)
            case Issue():
                await self._issue(service, action.site)
            case Postpone():
                record = records.postponed(service, action, self._policy, self._clock())
                await self._registry.record_certificate(service.name, record)
                self._attempts.end(service.name, action.site.hostname)
            case Reschedule():
                record = records.known(service, action.site, self._policy, self._clock())
                record = record.model_copy(update={"renew_at": action.renew_at})
                await self._registry.record_certificate(service.name, record)
            case Note():
                pair = await self._observe_unchanged(action.site, action.fingerprint)
                record = records.noted(service, action.site, pair, self._policy, self._clock())
                await self._record(service, record)
            case Remove() | Forget():
                await self._let_go(service, action)
            case _:
                raise TypeError(f"not an action of {self.name}: {action!r}")

    def assume(self, service: Service, actions: Sequence[Action]) -> Service:
        """The service with the records that `actions` leave behind."""
        found = {record.hostname: record for record in service.certificates}
        now = self._clock()
        for action in actions:
            match action:
                case Issue() | Order():
                    pair = Pair(True, True, "assumed", not_before=now, not_after=now + self._settings.lifetime)
                    found[action.site.hostname] = records.laid_down(action.site, self._policy.issuer, pair)
                case Note():
                    pair = Pair(True, True, action.fingerprint, ours=not action.provided)
                    found[action.site.hostname] = records.noted(service, action.site, pair, self._policy, now)
                case Postpone():
                    found[action.site.hostname] = records.postponed(service, action, self._policy, now)
                case Remove() | Forget():
                    found.pop(action.site.hostname, None)
        return service.model_copy(update={"certificates": tuple(found.values())})

    async def run(self, wake: Callable[[str], None]) -> None:
        """Obtains certificates, and wakes services that have something to do; runs until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.watch(wake), name="certs-files")
            tasks.create_task(self._attempts.run(wake), name="certs-attempts")
            tasks.create_task(self._advice.run(wake), name="certs-advice")

    async def watch(self, wake: Callable[[str], None]) -> None:
        """Wakes a service whenever somebody else touches a file at one of its places; runs until cancelled."""
        while True:
            try:
                async for path in changes(self._settings.cert_dir):
                    for service in self._affected(path):
                        wake(service)
            except OSError as error:
                # The kernel's limit of watches may be reached; the resync still sees every change.
                log.warning("cannot_watch", folder=str(self._settings.cert_dir), error=str(error))
                await asyncio.sleep(_WATCH_AGAIN.total_seconds())

    def _affected(self, path: Path | None) -> list[str]:
        if path is None:
            return list(self._interested)
        if self._files.left_so(path):
            return []
        return [service for service, paths in self._interested.items() if path in paths]

    def _note_interest(self, service: str, sites: Iterable[Site]) -> None:
        paths = frozenset(Path(path) for site in sites for path in (site.cert_path, site.key_path))
        if paths:
            self._interested[service] = paths
        else:
            self._interested.pop(service, None)

    def _sites(self, service: Service) -> tuple[Site, ...]:
        desired = resolved(service, self._defaults)
        return planner.sites(desired, self._defaults.zone, str(self._settings.cert_dir))

    async def _observe(self, sites: Iterable[Site]) -> dict[str, Pair]:
        def look() -> dict[str, Pair]:
            return {site.cert_path: pairs.observe(site, self._issuers) for site in sites}

        return await _in_thread(f"read the certificates in {self._settings.cert_dir}", look)

    async def _ask_advice(self, service: str, sites: Mapping[str, Site], found: Mapping[str, Pair]) -> None:
        if self._issuers.at_hand:
            return
        for path, pair in found.items():
            if pair.ours and self._advice.is_due(pair.fingerprint):
                leaf = await _in_thread(f"read {path}", pairs.leaf_at, sites[path])
                issuer = self._issuers.of(leaf) if leaf is not None else None
                if leaf is not None and issuer is not None:
                    self._advice.want(service, issuer, leaf)

    async def _observe_unchanged(self, site: Site, fingerprint: str) -> Pair:
        pair = (await self._observe([site]))[site.cert_path]
        if pair.fingerprint != fingerprint:
            message = f"{site.cert_path} changed meanwhile: looking again"
            raise Transient(Reason.PROGRESSING, message, delay=_AT_ONCE)
        return pair

    async def _holders(self, service: Service, wanted: Iterable[Site]) -> dict[str, str]:
        own = {record.cert_path for record in service.certificates}
        holders = {
            site.cert_path: await self._registry.certificate_holder(site.cert_path)
            for site in wanted
            if site.cert_path not in own
        }
        return {path: holder for path, holder in holders.items() if holder not in (None, service.name)}

    async def _claim(self, service: Service, site: Site) -> None:
        """The intent: whatever a death leaves at the site is then known to be ours."""
        record = service.certificate(site.hostname)
        if record is None or record.cert_path != site.cert_path or record.issuer == PROVIDED:
            await self._record(service, records.known(service, site, self._policy, self._clock()))

    async def _issue(self, service: Service, site: Site) -> None:
        await self._claim(service, site)
        obtained = self._attempts.obtained(service.name, site.hostname) or await self._at_once(service, site)
        await _in_thread(f"write {site.cert_path}", pairs.lay_down, self._files, site, obtained.issued)
        # Routes hear of it by the record: not before both files are in their places.
        pair = pairs.of_chain(obtained.issued.chain, self._issuers)
        await self._record(service, records.issued(service, site, obtained, pair, self._policy, self._clock()))
        self._attempts.end(service.name, site.hostname)
        await _in_thread(f"close the order for {site.hostname}", obtained.issuer.settle, site.hostname)

    async def _at_once(self, service: Service, site: Site) -> Obtained:
        """From an issuer at hand, whose failures cost nobody anything: the driver tries again soon."""
        try:
            return await self._issuers.obtain(site.hostname, self._settings.lifetime, urgent=True)
        except IssueFailed as error:
            record = records.failed_at_hand(service, site, error.message, self._policy, self._clock())
            await self._record(service, record)
            raise Transient(Reason.CERTIFICATE_FAILED, error.message, status=Status.FALSE) from error

    async def _let_go(self, service: Service, action: Remove | Forget) -> None:
        if isinstance(action, Remove):
            await self._observe_unchanged(action.site, action.fingerprint)
            await _in_thread(f"remove {action.site.cert_path}", pairs.take_away, self._files, action.site)
        elif (record := service.certificate(action.subject)) and record.issuer != PROVIDED:
            # It may have died while it wrote them for the first time.
            await _in_thread(f"tidy up {action.site.cert_path}", pairs.clear_away, self._files, action.site)
        await _in_thread(f"close the order for {action.subject}", self._issuers.settle, action.subject)
        await self._registry.forget_certificate(service.name, action.subject)
        self._attempts.end(service.name, action.subject)

    async def _record(self, service: Service, certificate: Certificate) -> None:
        try:
            await self._registry.record_certificate(service.name, certificate)
        except Claimed as error:
            path, hostname = certificate.cert_path, certificate.hostname
            message = f'{path} is needed for {hostname}, and service "{error.holder}" holds it'
            raise Terminal(Reason.CONFLICT, message) from error


async def _in_thread(what: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs what blocks off the loop; a failure of the file system becomes Transient."""
    try:
        return await asyncio.to_thread(function, *args, **kwargs)
    except OSError as error:
        raise Transient(Reason.CERTIFICATE_FAILED, f"cannot {what}: {error}") from error
