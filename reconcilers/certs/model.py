"""What the planner knows: where certificates belong, what lies there, and what is being done about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from api.service import Certificate

PROVIDED = "provided by the operator"
"""Stands in a record's `issuer` where the files are not ours."""

RENEWAL = 2 / 3
"""The part of its life after which a certificate is renewed."""

LONGEST_WAIT = timedelta(days=7)
"""The longest wish of an issuer to be left alone that is heeded: its clock, or ours, may be wrong."""

URGENT = 9 / 10
"""The part of its life after which any issuer will do."""

EVER = datetime.max.replace(tzinfo=UTC)


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
    """Known to be from one of our issuers: nobody else could have laid it down."""
    stands_in: str = ""
    """The name of the second issuer, where it is from that one: only for as long as the first fails."""
    not_before: datetime = EVER
    not_after: datetime = EVER
    serial: str = ""

    @property
    def exists(self) -> bool:
        """Whether anything is there."""
        return self.has_cert or self.has_key

    def serves(self, now: datetime) -> bool:
        """Whether a client would accept it at that moment."""
        return self.has_cert and not self.problem and self.not_before <= now < self.not_after


@dataclass(frozen=True, slots=True)
class Attempt:
    """A certificate that is being obtained beside the workers, or how that ended."""

    running: bool = True
    error: str = ""
    """Why it failed; empty where it did not: the certificate waits to be laid down."""
    retry_after: timedelta | None = None
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known of the world: by path of the certificate file, unless it says otherwise."""

    pairs: Mapping[str, Pair]
    holders: Mapping[str, str]
    """Sites that other services hold."""
    now: datetime
    attempts: Mapping[str, Attempt] = field(default_factory=dict)
    """By hostname."""
    suggested: Mapping[str, datetime] = field(default_factory=dict)
    """By fingerprint: when the certificate's issuer wants it renewed."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What certificates are to be, and how hard their issuers may be pressed."""

    lifetime: timedelta = timedelta(days=90)
    issuer: str = ""
    """The name of the first issuer: failures of others hold nothing back."""
    at_hand: bool = True
    """Certificates come at once: there is nothing to order, to limit or to wait for."""
    stand_in: bool = False
    """Whether there is a second issuer."""
    retry_first: timedelta = timedelta(hours=1)
    """After the first failure; doubles with each."""
    retry_most: timedelta = timedelta(days=1)
    least_life: timedelta = timedelta(minutes=5)
    """No certificate is renewed sooner after it was laid down, however short it lives."""


def due(not_before: datetime, not_after: datetime) -> datetime:
    """When a certificate of ours with these dates is renewed."""
    return not_before + (not_after - not_before) * RENEWAL


def urgent_from(pair: Pair) -> datetime:
    """When it is high time to have another certificate, whoever issues it."""
    return pair.not_before + (pair.not_after - pair.not_before) * URGENT


def renewal_of(pair: Pair, record: Certificate | None, observed: Observed) -> datetime:
    """When the pair, which is ours, is renewed: two thirds into its life, or when its issuer wants that earlier."""
    noted = record is not None and record.fingerprint == pair.fingerprint and record.issuer != PROVIDED
    planned = record.renew_at if record is not None and noted else due(pair.not_before, pair.not_after)
    return min(planned, observed.suggested.get(pair.fingerprint, EVER))


def retry_at(record: Certificate | None, attempt: Attempt, policy: Policy, now: datetime) -> tuple[int, datetime]:
    """How often it has failed in a row once `attempt` is counted, and when it is tried again."""
    failures = (record.failures if record is not None else 0) + attempt.counts
    wait = policy.retry_first
    if attempt.counts:
        # 2**16 hours are beyond any cap, and a larger number would overflow some day.
        wait = min(policy.retry_first * (1 << min(failures - 1, 16)), max(policy.retry_most, policy.retry_first))
        wait = max(wait, attempt.retry_after or wait)
    elif attempt.retry_after is not None:
        wait = attempt.retry_after
    return failures, now + wait
