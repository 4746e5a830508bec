"""Which route is programmed or withdrawn: the whole decision, and nothing but the decision."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from api.conditions import Reason, Status
from api.resolve import ResolvedRoute, ResolvedService
from api.service import Certificate, RouteClaim, Service
from api.spec import RouteMode
from reconcilers.base import CONVERGED, NOT_NEEDED, Action, Outcome, Plan

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
class Program(Action):
    """Tells mc-proxy of a route, and notes in the claim what it was told."""

    route: ProxyRoute
    claim: RouteClaim
    """As it is once mc-proxy knows the route."""
    cause: str
    verb: ClassVar[str] = "programmed"

    @property
    def subject(self) -> str:
        """`hostname:port`."""
        return f"{self.route.hostname}{self.route.listener}"

    def describe(self) -> str:
        """One line for a person."""
        return f"route {self.subject} to {self.route.backend} by {self.route.mode} ({self.cause})"


@dataclass(frozen=True, slots=True)
class Withdraw(Action):
    """Takes a route of ours out of mc-proxy, and lets its name go."""

    listener: str
    hostname: str
    cause: str
    verb: ClassVar[str] = "withdrew"

    @property
    def subject(self) -> str:
        """`hostname:port`."""
        return f"{self.hostname}{self.listener}"

    def describe(self) -> str:
        """One line for a person."""
        return f"withdraw route {self.subject} ({self.cause})"


@dataclass(frozen=True, slots=True)
class _Problem:
    """Why a route cannot be programmed now."""

    reason: Reason
    message: str


# What a person has to do comes before what will pass.
_GRAVEST_FIRST = (
    Reason.CONFLICT,
    Reason.LISTENER_MISSING,
    Reason.WAITING_FOR_CERTIFICATE,
    Reason.WAITING_FOR_CONTAINER,
)


def wanted(desired: ResolvedService) -> tuple[ResolvedRoute, ...]:
    """The routes that shall be there: none while the service is stopped."""
    return desired.routes if desired.active else ()


def plan(service: Service, desired: ResolvedService, observed: Observed) -> Plan:
    """What to do for a service that is wanted, running or stopped."""
    problems: list[_Problem] = []
    programs: list[Program] = []
    routes = wanted(desired)
    withdrawals = _withdrawals(service, routes, "not defined any more" if desired.active else "the service is stopped")
    for route in sorted(routes, key=_key):
        match _decide(service, route, observed):
            case Program() as program:
                programs.append(program)
            case Withdraw() as withdraw:
                withdrawals.append(withdraw)
                problems.append(_Problem(Reason.WAITING_FOR_CONTAINER, f"{withdraw.subject} waits for a new port"))
            case _Problem() as problem:
                problems.append(problem)
    programs.sort(key=lambda program: program.route.key in observed.refused)
    return Plan((*withdrawals, *programs), _outcome(desired, problems))


def plan_deletion(service: Service) -> Plan:
    """What to do for a service on its way out."""
    return Plan(tuple(_withdrawals(service, (), "the service is being deleted")), NOT_NEEDED)


def assume(service: Service, actions: Iterable[Action]) -> Service:
    """The service with the claims that `actions` leave behind."""
    claims = {(claim.listener, claim.hostname): claim for claim in service.claims}
    for action in actions:
        match action:
            case Program():
                claims[action.route.key] = action.claim
            case Withdraw():
                claims.pop((action.listener, action.hostname), None)
    return service.model_copy(update={"claims": tuple(claims.values())})


def _outcome(desired: ResolvedService, problems: list[_Problem]) -> Outcome:
    if not desired.routes:
        return NOT_NEEDED
    if not desired.active:
        return Outcome(Status.FALSE, Reason.STOPPED, "no routes while the service is stopped")
    if not problems:
        return CONVERGED
    problems = sorted(problems, key=lambda problem: _GRAVEST_FIRST.index(problem.reason))
    return Outcome(Status.FALSE, problems[0].reason, "; ".join(problem.message for problem in problems))


def _withdrawals(service: Service, routes: Iterable[ResolvedRoute], cause: str) -> list[Action]:
    keys = {_key(route) for route in routes}
    return [
        Withdraw(claim.listener, claim.hostname, cause)
        for claim in sorted(service.claims, key=lambda claim: (claim.listener, claim.hostname))
        if (claim.listener, claim.hostname) not in keys
    ]


def _decide(service: Service, route: ResolvedRoute, observed: Observed) -> Program | Withdraw | _Problem | None:
    """What to do about one wanted route; None: it is as it should be."""
    key, name = _key(route), f"{route.hostname}{route.listener}"
    claim = next((claim for claim in service.claims if (claim.listener, claim.hostname) == key), None)
    current = observed.listing.routes.get(key)
    if obstacle := _obstacle(key, name, claim, observed):
        return obstacle
    backend = _backend(service, route)
    if claim is not None and backend is None and _leads_astray(service, claim):
        return Withdraw(route.listener, route.hostname, f"{claim.backend} is not this service's any more")
    certificate = service.certificate(route.hostname) if route.mode is RouteMode.L7 else None
    if route.mode is RouteMode.L7 and (certificate is None or not certificate.fingerprint):
        return _Problem(Reason.WAITING_FOR_CERTIFICATE, f"{name} waits for its certificate")
    if backend is None:
        return _Problem(Reason.WAITING_FOR_CONTAINER, f"{name} waits for component {route.component} to be ready")
    return _program(route, backend, certificate, claim, current)


def _obstacle(key: Key, name: str, claim: RouteClaim | None, observed: Observed) -> _Problem | None:
    """Why nothing may or can be done about the name, whatever the state of its service."""
    if key in observed.holders:
        return _Problem(Reason.CONFLICT, f'{name} is held by service "{observed.holders[key]}"')
    if key[0] not in observed.listing.listeners:
        known = ", ".join(sorted(observed.listing.listeners)) or "none"
        return _Problem(Reason.LISTENER_MISSING, f"{name}: mc-proxy has no listener {key[0]}; it has {known}")
    stranger = observed.listing.routes.get(key) if claim is None else None
    if stranger is not None:
        return _Problem(Reason.CONFLICT, f"{name} is a route to {stranger.backend} that MCP did not make")
    return None


def _program(
    route: ResolvedRoute,
    backend: str,
    certificate: Certificate | None,
    claim: RouteClaim | None,
    current: ProxyRoute | None,
) -> Program | None:
    target = ProxyRoute(
        listener=route.listener,
        hostname=route.hostname,
        backend=backend,
        mode=route.mode,
        cert_path=certificate.cert_path if certificate else "",
        key_path=certificate.key_path if certificate else "",
        policies=current.policies if current else (),
    )
    told = RouteClaim(
        listener=route.listener,
        hostname=route.hostname,
        component=route.component,
        route=route.key,
        mode=route.mode,
        backend=backend,
        certificate=certificate.fingerprint if certificate else "",
    )
    if current == target and claim == told:
        return None
    return Program(target, told, _cause(target, told, claim, current))


def _cause(target: ProxyRoute, told: RouteClaim, claim: RouteClaim | None, current: ProxyRoute | None) -> str:
    """Why mc-proxy is told something: our wish changed, or what it holds did."""
    if claim is None or not claim.backend:
        return "new"
    led = current.backend if current else ""
    causes = {
        f"backend changed {claim.backend} -> {told.backend}": claim.backend != told.backend,
        f"mode changed {claim.mode} -> {told.mode}": claim.mode is not told.mode,
        "certificate renewed": claim.certificate != told.certificate,
        "missing from the proxy": current is None,
        f"edited by somebody: it led to {led}": led != target.backend,
        "edited by somebody": current != target,
    }
    return next((cause for cause, applies in causes.items() if applies), "its route has another name now")


def _backend(service: Service, route: ResolvedRoute) -> str | None:
    """Where the component's container serves the route, once it does."""
    component = service.component(route.component)
    if component is None or not component.ready:
        return None
    return next((f"127.0.0.1:{served.port}" for served in component.ports if served.route == route.key), None)


def _leads_astray(service: Service, claim: RouteClaim) -> bool:
    """Whether the route leads to a port that we lost: what answers there is somebody else's."""
    if not claim.backend:
        return False
    allocated = service.port(claim.component, claim.route)
    component = service.component(claim.component)
    ours = {served.port for served in component.ports} if component else set()
    if allocated is not None and not allocated.contested:
        ours.add(allocated.port)
    return claim.backend not in {f"127.0.0.1:{port}" for port in ours}


def _key(route: ResolvedRoute) -> Key:
    return route.listener, route.hostname
