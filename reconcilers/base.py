"""What every reconciler is: the seam between deciding and the machinery that drives it.

A reconciler looks at one service, says what to do next and what can be said of
the service once that is done (`plan`), and does one action at a time
(`execute`). It holds no loop, no retry and no status: the driver does that for
all of them alike. A dry run is `plan` without `execute`, and without attending.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Protocol, runtime_checkable

from api.conditions import ConditionType, Reason, Status
from api.fields import PortMapping
from api.service import Certificate, Component, FieldChange, Finalizer, RouteClaim, Service


@dataclass(frozen=True, slots=True)
class Action(ABC):
    """One thing to do: a value that says what it is, and that `execute` carries out.

    Every action is idempotent, or has a deterministic name, so that dying
    during it and planning again ends in the same place.
    """

    verb: ClassVar[str]
    """What an event calls it once done: `created`, `removed`."""

    @property
    @abstractmethod
    def subject(self) -> str:
        """What it acts on: a container's name, a hostname, a port."""

    @abstractmethod
    def describe(self) -> str:
        """One line for a person, in the imperative, with the cause where there is one."""

    def told(self) -> str:
        """What an event says of it beside the verb: the description without its imperative."""
        return self.describe().split(" ", len(self.verb.split()))[-1]

    @property
    def follows(self) -> bool:
        """Whether it only follows from what MCP itself did, as the end of an update does: no drift is mended by it."""
        return False

    def differences(self) -> tuple[FieldChange, ...]:
        """What it mends, field by field: `old` as it was found, `new` as it is wanted. Secrets are masked."""
        return ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reconciler's condition is once its plan is carried out."""

    status: Status
    reason: Reason
    message: str = ""
    requeue_after: timedelta | None = None
    """Look again after this time even if nothing happens; None: only when something does."""


CONVERGED = Outcome(Status.TRUE, Reason.CONVERGED)
NOT_NEEDED = Outcome(Status.TRUE, Reason.NOT_NEEDED)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do next, in this order, and what is then the case.

    An empty plan for a service that is being deleted means that nothing of
    this reconciler's kind is left: the driver then drops its finalizer, unless
    the outcome's reason is TERMINATING (it waits for what must go first).
    """

    actions: tuple[Action, ...]
    outcome: Outcome


class Transient(Exception):
    """It did not work now and is tried again: at first after `delay`, where one is given, then ever more slowly.

    The condition becomes UNKNOWN unless `status` says that the failure itself
    was observed.
    """

    def __init__(
        self, reason: Reason, message: str, *, delay: timedelta | None = None, status: Status = Status.UNKNOWN
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.delay = delay
        self.status = status


class Terminal(Exception):
    """It will not work until somebody changes something; tried again only slowly."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Reconciler(Protocol):
    """Converges one kind of resource toward one service's definition."""

    name: ClassVar[str]
    """Of the metrics, the logs and the events: `ports`."""
    condition: ClassVar[ConditionType]
    finalizer: ClassVar[Finalizer]

    async def plan(self, service: Service, *, attend: bool = True) -> Plan:
        """Observes and decides, changing nothing.

        `attend`: the service is kept as it is given, so that what wakes it is
        followed from here on, and what a look at it leaves to be remembered is.
        Otherwise somebody only thinks of it, and all stays as it was: also
        what is known of the service of that name that is kept.

        Raises Transient where the world could not be observed, Terminal where
        no plan can help.
        """
        ...

    async def execute(self, service: Service, action: Action) -> None:
        """Carries out one action of a plan that was just made for `service`.

        Raises Transient or Terminal; any other exception counts as a transient
        defect.
        """
        ...

    def assume(self, service: Service, actions: Sequence[Action]) -> Service:
        """The service as it will be known once `actions` worked: how a dry run sees past the first step. Pure."""
        ...


@dataclass(frozen=True, slots=True)
class PulledImage:
    """An image that this node's MCP brought here: only such may be removed again."""

    reference: str
    """As definitions name it. A tag that moved has stood for several images."""
    image_id: str
    digest: str
    pulled_at: datetime
    used_at: datetime
    """When it was last seen in use, or brought."""


@runtime_checkable
class Compares(Protocol):
    """A reconciler that finds out more of what differs when a person asks: too dear to be known with every plan."""

    async def differences(self, action: Action) -> tuple[FieldChange, ...]:
        """What the action would mend, field by field; without what could not be found out. Raises nothing."""
        ...


class PortTaken(Exception):
    """Another route on this node holds the port."""


@dataclass(frozen=True, slots=True)
class FixedPort:
    """A host port that a definition names itself."""

    service: str
    component: str
    mapping: PortMapping


class Claimed(Exception):
    """Another service holds the name on that listener; `holder` is its name."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


class Registry(Protocol):
    """What reconcilers may read and write: observations and allocations, never desired state.

    Each method is one transaction. Writing what is already there changes
    nothing and wakes nobody. Every method that names a service does nothing
    where that service is gone. All raise RegistryUnavailable.
    """

    async def allocated_ports(self) -> frozenset[int]:
        """Every host port given to any route on this node."""
        ...

    async def fixed_ports(self, among: Collection[int]) -> tuple[FixedPort, ...]:
        """Those of these host ports that definitions on this node name themselves, by service."""
        ...

    async def allocate_port(self, service: str, component: str, route: str, port: int, slot: int = 0) -> None:
        """Gives the port to the route, replacing the one it had. Raises PortTaken."""
        ...

    async def release_port(self, service: str, component: str, route: str, slot: int = 0) -> None:
        """Takes the route's port back."""
        ...

    async def contest_port(self, service: str, component: str, route: str, port: int) -> None:
        """Notes that the engine found the route's port taken, if the route still has that port."""
        ...

    async def record_certificate(self, service: str, certificate: Certificate) -> None:
        """Notes the certificate laid down, or about to be. Raises Claimed where another service holds its path."""
        ...

    async def certificate_holder(self, cert_path: str) -> str | None:
        """The service on this node whose certificate lies at that path."""
        ...

    async def forget_certificate(self, service: str, hostname: str) -> None:
        """Drops the record of that hostname's certificate."""
        ...

    async def record_component(self, service: str, component: Component) -> None:
        """Notes what was observed of the component's container."""
        ...

    async def forget_component(self, service: str, component: str) -> None:
        """Drops the observation of a component that is no more."""
        ...

    async def claim_route(self, service: str, claim: RouteClaim) -> None:
        """Holds (listener, hostname) for the service, or updates what it holds. Raises Claimed."""
        ...

    async def release_route(self, service: str, listener: str, hostname: str) -> None:
        """Lets the name go; whoever waits for it is woken."""
        ...

    async def claim_holder(self, listener: str, hostname: str) -> str | None:
        """The service on this node that holds the name."""
        ...


class Clock(Protocol):
    """The time of day, in UTC; tests bring their own."""

    def __call__(self) -> datetime:
        """Now."""
        ...
