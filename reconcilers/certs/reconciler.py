"""Observes the files, has it decided what they should be, and issues, notes or removes them."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, ParamSpec, TypeVar

import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from api.conditions import ConditionType, Reason, Status
from api.errors import InvalidSpec
from api.resolve import Defaults, resolve
from api.service import Certificate, Finalizer, Service
from reconcilers.base import Action, Claimed, Clock, Plan, Registry, Terminal, Transient
from reconcilers.certs import pairs
from reconcilers.certs import plan as planner
from reconcilers.certs.files import Files
from reconcilers.certs.issuer import Chain, IssueFailed, Issuer
from reconcilers.certs.plan import PROVIDED, Forget, Issue, Note, Observed, Pair, Remove, Site
from reconcilers.certs.watch import changes

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger("certs")

_AT_ONCE = timedelta(milliseconds=10)
_WATCH_AGAIN = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class CertSettings:
    """Where mc-proxy looks for certificates, and how long those issued now live."""

    cert_dir: Path
    lifetime: timedelta = timedelta(days=90)


class Certs:
    """Keeps one certificate for each hostname of an l7 route. Implements reconcilers.base.Reconciler."""

    name: ClassVar[str] = "certs"
    condition: ClassVar[ConditionType] = ConditionType.CERTIFICATES_READY
    finalizer: ClassVar[Finalizer] = Finalizer.CERTS

    def __init__(
        self, registry: Registry, issuer: Issuer, settings: CertSettings, defaults: Defaults, clock: Clock
    ) -> None:
        self._registry = registry
        self._issuer = issuer
        self._settings = settings
        self._defaults = defaults
        self._clock = clock
        self._files = Files()
        self._interested: dict[str, frozenset[Path]] = {}

    async def plan(self, service: Service) -> Plan:
        """What to do about the service's certificates. Raises Transient where the files cannot be seen."""
        wanted = () if service.deleting else self._sites(service)
        held = [Site(record.hostname, record.cert_path, record.key_path) for record in service.certificates]
        # Where several hostnames share a site, it is looked at with the eyes of the one that shall have it.
        by_path = {site.cert_path: site for site in (*held, *reversed(wanted))}
        self._note_interest(service.name, by_path.values())
        observed = Observed(
            pairs=await self._observe(by_path.values()),
            holders=await self._holders(service, wanted),
            now=self._clock(),
        )
        if service.deleting:
            return planner.plan_deletion(service, observed)
        return planner.plan(service, wanted, observed, self._settings.lifetime)

    async def execute(self, service: Service, action: Action) -> None:
        """Carries out one action. Raises Transient, or Terminal where another service was quicker."""
        match action:
            case Issue():
                await self._issue(service, action.site)
            case Note():
                pair = await self._observe_unchanged(action.site, action.fingerprint)
                await self._record(service, action.site, pair, provided=action.provided)
            case Remove():
                await self._observe_unchanged(action.site, action.fingerprint)
                await _in_thread(f"remove {action.site.cert_path}", pairs.take_away, self._files, action.site)
                await self._registry.forget_certificate(service.name, action.site.hostname)
            case Forget():
                await self._registry.forget_certificate(service.name, action.site.hostname)
            case _:
                raise TypeError(f"not an action of {self.name}: {action!r}")

    def assume(self, service: Service, actions: Sequence[Action]) -> Service:
        """The service with the records that `actions` leave behind."""
        records = {record.hostname: record for record in service.certificates}
        for action in actions:
            match action:
                case Issue():
                    now = self._clock()
                    pair = Pair(
                        True, True, "assumed", ours=True, not_before=now, not_after=now + self._settings.lifetime
                    )
                    records[action.site.hostname] = self._certificate(action.site, pair, provided=False)
                case Note():
                    pair = Pair(True, True, action.fingerprint)
                    records[action.site.hostname] = self._certificate(action.site, pair, provided=action.provided)
                case Remove() | Forget():
                    records.pop(action.site.hostname, None)
        return service.model_copy(update={"certificates": tuple(records.values())})

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
        try:
            desired = resolve(service.spec, self._defaults)
        except InvalidSpec as error:
            raise Terminal(Reason.INVALID_SPEC, str(error)) from error
        return planner.sites(desired, self._defaults.zone, str(self._settings.cert_dir))

    async def _observe(self, sites: Iterable[Site]) -> dict[str, Pair]:
        def look() -> dict[str, Pair]:
            return {site.cert_path: pairs.observe(site, self._issuer) for site in sites}

        return await _in_thread(f"read the certificates in {self._settings.cert_dir}", look)

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

    async def _issue(self, service: Service, site: Site) -> None:
        record = service.certificate(site.hostname)
        if record is None or record.cert_path != site.cert_path:
            # The intent: whatever a death leaves at the site is then known to be ours.
            await self._record(service, site, Pair(not_before=self._clock(), not_after=self._clock()), provided=False)
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            chain = await self._issuer.issue(site.hostname, key, self._settings.lifetime)
            await _in_thread(f"write {site.cert_path}", self._lay_down, site, key, chain)
        except IssueFailed as error:
            raise Transient(Reason.CERTIFICATE_FAILED, str(error), status=Status.FALSE) from error
        await self._record(service, site, pairs.of_chain(chain, self._issuer), provided=False)

    def _lay_down(self, site: Site, key: ec.EllipticCurvePrivateKey, chain: Chain) -> None:
        if chain[0].public_key() != key.public_key():
            raise IssueFailed(f"the certificate issued for {site.hostname} is for another key")
        if problem := pairs.chain_problem(site, chain):
            raise IssueFailed(f"the certificate issued for {site.hostname} cannot serve: {problem}")
        self._issuer.verify(site.hostname, chain)
        pairs.lay_down(self._files, site, key, chain)

    async def _record(self, service: Service, site: Site, pair: Pair, *, provided: bool) -> None:
        try:
            await self._registry.record_certificate(service.name, self._certificate(site, pair, provided=provided))
        except Claimed as error:
            message = f'{site.cert_path} is needed for {site.hostname}, and service "{error.holder}" holds it'
            raise Terminal(Reason.CONFLICT, message) from error

    def _certificate(self, site: Site, pair: Pair, *, provided: bool) -> Certificate:
        return Certificate(
            hostname=site.hostname,
            issuer=PROVIDED if provided else self._issuer.name,
            serial=pair.serial,
            fingerprint=pair.fingerprint,
            not_before=pair.not_before,
            not_after=pair.not_after,
            renew_at=pair.not_after if provided else planner.due(pair.not_before, pair.not_after),
            cert_path=site.cert_path,
            key_path=site.key_path,
        )


async def _in_thread(what: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Runs what blocks off the loop; a failure of the file system becomes Transient."""
    try:
        return await asyncio.to_thread(function, *args, **kwargs)
    except OSError as error:
        raise Transient(Reason.CERTIFICATE_FAILED, f"cannot {what}: {error}") from error
