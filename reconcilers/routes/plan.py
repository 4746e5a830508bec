"""Which route is programmed or withdrawn: the whole decision, and nothing but the decision."""

from collections.abc import Iterable
from dataclasses import dataclass

from api.conditions import Reason, Status
from api.resolve import ResolvedRoute, ResolvedService
from api.service import Certificate, RouteClaim, Service
from api.spec import RouteMode
from reconcilers.base import CONVERGED, NOT_NEEDED, Action, Outcome, Plan
from reconcilers.routes.model import Hold, Key, Listing, Observed, Program, ProxyRoute, Withdraw

_LOOPBACK = "127.0.0.1"


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
    """The routes that shall be there: none of what is stopped."""
    return tuple(route for component in desired.components if component.active for route in component.routes)


def plan(service: Service, desired: ResolvedService, observed: Observed) -> Plan:
    """What to do for a service that is wanted, running or stopped."""
    problems: list[_Problem] = []
    actions: list[Action] = list(_withdrawals(service, desired, observed.listing))
    for route in sorted(wanted(desired), key=_key):
        decision = _decide(service, route, observed)
        actions.extend(decision.actions)
        if decision.problem is not None:
            problems.append(decision.problem)
    # What leads astray goes first, what was refused before goes last.
    actions.sort(key=lambda action: (not isinstance(action, Withdraw), _was_refused(action, observed)))
    return Plan(tuple(actions), _outcome(desired, problems))


def plan_deletion(service: Service) -> Plan:
    """What to do for a service on its way out."""
    return Plan(tuple(_withdrawal(claim, "the service is being deleted") for claim in _in_order(service)), NOT_NEEDED)


def assume(service: Service, actions: Iterable[Action]) -> Service:
    """The service with the claims that `actions` leave behind."""
    claims = {(claim.listener, claim.hostname): claim for claim in service.claims}
    for action in actions:
        match action:
            case Program() | Hold():
                claims[action.claim.listener, action.claim.hostname] = action.claim
            case Withdraw(kept=RouteClaim() as kept):
                claims[kept.listener, kept.hostname] = kept
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


def _withdrawals(service: Service, desired: ResolvedService, listing: Listing) -> Iterable[Withdraw]:
    """What is not defined any more goes with its name; what is only stopped goes, too, but keeps it."""
    defined = {_key(route) for route in desired.routes}
    shown = {_key(route) for route in wanted(desired)}
    for claim in _in_order(service):
        key = claim.listener, claim.hostname
        if key not in defined:
            yield _withdrawal(claim, "not defined any more")
        elif key not in shown and (claim.backend or key in listing.routes):
            stopped = f"component {claim.component}" if desired.active else "the service"
            yield _withdrawal(claim, f"{stopped} is stopped", keep=True)


def _withdrawal(claim: RouteClaim, cause: str, *, keep: bool = False) -> Withdraw:
    kept = claim.model_copy(update={"backend": "", "certificate": ""}) if keep else None
    return Withdraw(claim.listener, claim.hostname, cause, kept)


def _in_order(service: Service) -> list[RouteClaim]:
    return sorted(service.claims, key=lambda claim: (claim.listener, claim.hostname))


def _was_refused(action: Action, observed: Observed) -> bool:
    return isinstance(action, Program) and action.route.key in observed.refused


@dataclass(frozen=True, slots=True)
class _Decision:
    """What to do about one wanted route now, and what then still keeps it from being as it should be."""

    actions: tuple[Action, ...] = ()
    problem: _Problem | None = None


def _decide(service: Service, route: ResolvedRoute, observed: Observed) -> _Decision:
    key, name = _key(route), f"{route.hostname}{route.listener}"
    claim = next((claim for claim in service.claims if (claim.listener, claim.hostname) == key), None)
    current = observed.listing.routes.get(key)
    if obstacle := _obstacle(key, name, observed):
        return _Decision(problem=obstacle)
    if claim is None and current is not None and not _may_be_ours(service, route, current):
        message = f"{name} is a route to {current.backend} that MCP did not make"
        return _Decision(problem=_Problem(Reason.CONFLICT, message))
    backend = _backend(service, route)
    if claim is not None and backend is None and _leads_astray(service, claim):
        cause = f"{claim.backend} is not this service's any more"
        waits = _Problem(Reason.WAITING_FOR_CONTAINER, f"{name} waits for a new port")
        return _Decision((_withdrawal(claim, cause, keep=True),), waits)
    certificate = service.certificate(route.hostname) if route.mode is RouteMode.L7 else None
    holds = () if claim is not None else (Hold(_claim(route, "", None)),)
    if problem := _missing(route, name, backend, certificate):
        # Never under a route that is there: to claim its name would make it ours.
        return _Decision(holds if current is None else (), problem)
    program = _program(route, backend or "", certificate, claim, current)
    return _Decision((*holds, program) if program else ())


def _obstacle(key: Key, name: str, observed: Observed) -> _Problem | None:
    """Why nothing may or can be done about the name, whatever the state of its service."""
    if key in observed.holders:
        return _Problem(Reason.CONFLICT, f'{name} is held by service "{observed.holders[key]}"')
    if key[0] not in observed.listing.listeners:
        known = ", ".join(sorted(observed.listing.listeners)) or "none"
        return _Problem(Reason.LISTENER_MISSING, f"{name}: mc-proxy has no listener {key[0]}; it has {known}")
    return None


def _may_be_ours(service: Service, route: ResolvedRoute, current: ProxyRoute) -> bool:
    """Whether a route that nobody claims is one that MCP made before the registry was lost.

    It is when it leads to this service's own container, or to a port that is this service's alone, in the way in which
    we would have it led. While neither is known yet, any route of ours could be meant.
    """
    if current.mode is not route.mode or current.backend_tls or current.send_proxy_protocol:
        return False
    certificate = service.certificate(route.hostname)
    if route.mode is RouteMode.L7 and certificate is not None and current.cert_path != certificate.cert_path:
        return False
    if _backend(service, route) is None:
        return current.backend.startswith(f"{_LOOPBACK}:")
    return current.backend in _own_backends(service, route.component, route.key)


def _missing(route: ResolvedRoute, name: str, backend: str | None, certificate: Certificate | None) -> _Problem | None:
    """What the route waits for."""
    if route.mode is RouteMode.L7 and (certificate is None or not certificate.fingerprint):
        return _Problem(Reason.WAITING_FOR_CERTIFICATE, f"{name} waits for its certificate")
    if backend is None:
        return _Problem(Reason.WAITING_FOR_CONTAINER, f"{name} waits for component {route.component} to be ready")
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
    told = _claim(route, backend, certificate)
    if current == target and claim == told:
        return None
    moved = claim is not None and claim.backend != "" and claim != told
    return Program(target, told, _cause(target, told, claim, current), current, moved)


def _claim(route: ResolvedRoute, backend: str, certificate: Certificate | None) -> RouteClaim:
    return RouteClaim(
        listener=route.listener,
        hostname=route.hostname,
        component=route.component,
        route=route.key,
        mode=route.mode,
        backend=backend,
        certificate=certificate.fingerprint if certificate else "",
    )


def _cause(target: ProxyRoute, told: RouteClaim, claim: RouteClaim | None, current: ProxyRoute | None) -> str:
    """Why mc-proxy is told something: our wish changed, or what it holds did."""
    if claim is None and current is not None:
        return "found in the proxy, leading to our own container"
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
    return next((f"{_LOOPBACK}:{served.port}" for served in component.ports if served.route == route.key), None)


def _leads_astray(service: Service, claim: RouteClaim) -> bool:
    """Whether the route leads to a port that we lost: what answers there is somebody else's."""
    return bool(claim.backend) and claim.backend not in _own_backends(service, claim.component, claim.route)


def _own_backends(service: Service, component: str, route: str) -> set[str]:
    """Where nobody but this service can answer: its container's ports, and those that are given to the route."""
    record = service.component(component)
    ports = {served.port for served in record.ports} if record else set()
    ports |= {
        allocation.port
        for allocation in service.ports
        if (allocation.component, allocation.route) == (component, route) and not allocation.contested
    }
    return {f"{_LOOPBACK}:{port}" for port in ports}


def _key(route: ResolvedRoute) -> Key:
    return route.listener, route.hostname
