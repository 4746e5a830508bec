"""What can be done about the certificate at one site: values that say what they are."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar

from reconcilers.base import Action
from reconcilers.certs.model import PROVIDED, Site


@dataclass(frozen=True, slots=True)
class CertificateAction(Action):
    """Something to do about the certificate at one site."""

    site: Site

    @property
    def subject(self) -> str:
        """The hostname."""
        return self.site.hostname


@dataclass(frozen=True, slots=True)
class Order(CertificateAction):
    """Has a certificate obtained beside the workers, which takes seconds or minutes."""

    cause: str
    urgent: bool
    """Nothing else serves for long: the second issuer is asked where the first fails."""
    mends: bool = field(default=True, compare=False)
    verb: ClassVar[str] = "ordered"

    @property
    def follows(self) -> bool:
        """Time alone made it necessary, unless somebody damaged or took what was there."""
        return not self.mends

    def describe(self) -> str:
        """One line for a person."""
        return f"order a certificate for {self.subject} ({self.cause})"


@dataclass(frozen=True, slots=True)
class Issue(CertificateAction):
    """Lays down a certificate, over what is there: the one that was obtained, or one from an issuer at hand."""

    cause: str
    mends: bool = field(default=True, compare=False)
    verb: ClassVar[str] = "issued"

    @property
    def follows(self) -> bool:
        """As for what was ordered; what was obtained beside the workers follows from its order."""
        return not self.mends

    def describe(self) -> str:
        """One line for a person."""
        return f"issue a certificate for {self.subject} ({self.cause})"


@dataclass(frozen=True, slots=True)
class Postpone(CertificateAction):
    """Notes that no certificate could be obtained, and when that is tried again."""

    error: str
    failures: int
    retry_at: datetime
    verb: ClassVar[str] = "postponed"

    @property
    def follows(self) -> bool:
        """It changes nothing but the plan."""
        return True

    def describe(self) -> str:
        """One line for a person."""
        return f"postpone a certificate for {self.subject} until {moment(self.retry_at)} ({self.error})"


@dataclass(frozen=True, slots=True)
class Reschedule(CertificateAction):
    """Notes that a certificate is to be renewed earlier than planned."""

    renew_at: datetime
    verb: ClassVar[str] = "rescheduled"

    @property
    def follows(self) -> bool:
        """It changes nothing but the plan."""
        return True

    def describe(self) -> str:
        """One line for a person."""
        return f"reschedule the renewal for {self.subject} to {moment(self.renew_at)} (its issuer wishes it)"


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


def moment(at: datetime) -> str:
    """A point in time, in UTC and to the minute."""
    return f"{at:%Y-%m-%d %H:%M}Z"
