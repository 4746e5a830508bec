"""What the registry is told of a certificate: what lies there, what failed, and when either is looked after again."""

from datetime import datetime, timedelta

from api.service import Certificate, Service
from reconcilers.certs.actions import Postpone
from reconcilers.certs.issuers import Obtained
from reconcilers.certs.model import PROVIDED, Attempt, Pair, Policy, Site, due, retry_at


def laid_down(site: Site, issuer: str, pair: Pair) -> Certificate:
    """The record of a pair that lies there, or is assumed to."""
    return Certificate(
        hostname=site.hostname,
        issuer=issuer,
        serial=pair.serial,
        fingerprint=pair.fingerprint,
        not_before=pair.not_before,
        not_after=pair.not_after,
        renew_at=due(pair.not_before, pair.not_after),
        cert_path=site.cert_path,
        key_path=site.key_path,
    )


def known(service: Service, site: Site, policy: Policy, now: datetime) -> Certificate:
    """The record of a site of ours, or the one of a certificate that is not there yet."""
    record = service.certificate(site.hostname)
    if record is not None and record.cert_path == site.cert_path and record.issuer != PROVIDED:
        return record
    return laid_down(site, policy.issuer, Pair(not_before=now, not_after=now))


def noted(service: Service, site: Site, pair: Pair, policy: Policy, now: datetime) -> Certificate:
    """The record of a good pair that was found."""
    if not pair.ours:
        return laid_down(site, PROVIDED, pair).model_copy(update={"renew_at": pair.not_after})
    if not pair.stands_in:
        return laid_down(site, policy.issuer, pair)
    before = known(service, site, policy, now)
    return _troubled(laid_down(site, pair.stands_in, pair), before.error, before.failures, before.retry_at)


def postponed(service: Service, action: Postpone, policy: Policy, now: datetime) -> Certificate:
    """The record as it was, with what failed."""
    return _troubled(known(service, action.site, policy, now), action.error, action.failures, action.retry_at)


def failed_at_hand(service: Service, site: Site, error: str, policy: Policy, now: datetime) -> Certificate:
    """The same for an issuer that is asked again at once."""
    before = known(service, site, policy, now)
    return _troubled(before, error, before.failures + 1, None)


def issued(service: Service, site: Site, obtained: Obtained, pair: Pair, policy: Policy, now: datetime) -> Certificate:
    """The record of a certificate that was just laid down, with why it is not from the first issuer, if it is not."""
    record = laid_down(site, obtained.issuer.name, pair)
    soonest = now + (timedelta() if obtained.issuer.at_hand else policy.least_life)
    record = record.model_copy(update={"renew_at": max(record.renew_at, soonest)})
    failure = obtained.failure
    if failure is None:
        return record
    attempt = Attempt(False, failure.message, failure.retry_after, failure.counts)
    return _troubled(record, failure.message, *retry_at(service.certificate(site.hostname), attempt, policy, now))


def _troubled(record: Certificate, error: str, failures: int, again: datetime | None) -> Certificate:
    return record.model_copy(update={"error": error, "failures": failures, "retry_at": again})
