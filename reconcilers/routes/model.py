"""What there is to know and to do about routes, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from api.service import FieldChange, RouteClaim
from api.spec import RouteMode
from reconcilers.base import Action

Key = tuple[str, str]
"""(listener, hostname): what identifies a route in mc-proxy."""


@dataclass(frozen=True, slots=True)
class ProxyRoute:
    """A route as mc-proxy holds it."""

    listener: str
    hostname: str
    backend: str
    mode: RouteMode
    cert_path: str = ""
    key_path: str = ""
    backend_tls: bool = False
    send_proxy_protocol: bool = False
    policies: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    """L7 policies (type, value): the operator's, passed on as they are and no difference to us."""

    @property
    def key(self) -> Key:
        """What identifies it."""
        return self.listener, self.hostname


@dataclass(frozen=True, slots=True)
class Listing:
    """Everything that mc-proxy holds at one moment."""

    listeners: frozenset[str]
    routes: Mapping[Key, ProxyRoute]


NOTHING = Listing(frozenset(), {})
"""What is seen by whoever does not look."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known of the world around the service."""

    listing: Listing
    holders: Mapping[Key, str] = field(default_factory=dict)
    """Names that other services hold."""
    refused: frozenset[Key] = frozenset()
    """Names that mc-proxy refused last time: they go last, so that they do not hold up the others."""


@dataclass(frozen=True, slots=True)
class Hold(Action):
    """Claims a name before its route is programmed, and even where that has to wait.

    So no younger service takes it meanwhile, and a route that a death leaves in mc-proxy is known to be ours.
    """

    claim: RouteClaim
    verb: ClassVar[str] = "held"

    @property
    def subject(self) -> str:
        """`hostname:port`."""
        return f"{self.claim.hostname}{self.claim.listener}"

    def describe(self) -> str:
        """One line for a person."""
        return f"hold the name {self.subject}"


@dataclass(frozen=True, slots=True)
class Program(Action):
    """Tells mc-proxy of a route, and notes in the claim what it was told."""

    route: ProxyRoute
    claim: RouteClaim
    """As it is once mc-proxy knows the route."""
    cause: str
    found: ProxyRoute | None = None
    """What mc-proxy holds instead."""
    moved: bool = False
    """Our own side changed: the container, its port, the certificate."""
    verb: ClassVar[str] = "programmed"

    @property
    def follows(self) -> bool:
        """Whether it follows our own change: then nobody meddled with the proxy."""
        return self.moved

    @property
    def subject(self) -> str:
        """`hostname:port`."""
        return f"{self.route.hostname}{self.route.listener}"

    def describe(self) -> str:
        """One line for a person."""
        return f"route {self.subject} to {self.route.backend} by {self.route.mode} ({self.cause})"

    def differences(self) -> tuple[FieldChange, ...]:
        """The route's fields that mc-proxy holds otherwise; all of a route that it does not hold are new anyway."""
        if self.found is None:
            return ()
        names = ("backend", "mode", "cert_path", "key_path", "backend_tls", "send_proxy_protocol")
        pairs = ((name, str(getattr(self.found, name)), str(getattr(self.route, name))) for name in names)
        return tuple(FieldChange(path=name, old=old, new=new) for name, old, new in pairs if old != new)


@dataclass(frozen=True, slots=True)
class Withdraw(Action):
    """Takes a route of ours out of mc-proxy, and lets its name go unless there is a claim to keep."""

    listener: str
    hostname: str
    cause: str
    kept: RouteClaim | None = None
    """As it is once mc-proxy does not know the route any more."""
    verb: ClassVar[str] = "withdrew"

    @property
    def subject(self) -> str:
        """`hostname:port`."""
        return f"{self.hostname}{self.listener}"

    def describe(self) -> str:
        """One line for a person."""
        return f"withdraw route {self.subject} ({self.cause})"
