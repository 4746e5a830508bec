"""Small definitions and observations for the registry's tests."""

from datetime import UTC, datetime, timedelta

from api.conditions import ConditionType, Reason, Status
from api.service import Certificate, Component, RouteClaim
from api.spec import ComponentSpec, RouteMode, RouteSpec, ServiceSpec
from controller.registry import ConditionUpdate, EventDraft, Report

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)

WORK = tuple(kind for kind in ConditionType if kind is not ConditionType.READY)


def spec(name: str = "hello", version: str = "v1") -> ServiceSpec:
    return ServiceSpec(
        name=name,
        components=(
            ComponentSpec(name="web", image=f"web:{version}", routes=(RouteSpec(port=443, mode=RouteMode.L7),)),
        ),
    )


def condition(
    kind: ConditionType = ConditionType.PORTS_ALLOCATED,
    status: Status = Status.TRUE,
    reason: Reason = Reason.CONVERGED,
    message: str = "",
    generation: int = 1,
) -> Report:
    return Report(ConditionUpdate(kind, status, reason, message, generation))


def happened(*messages: str) -> Report:
    return Report(events=tuple(EventDraft("created", message, "containers", 1) for message in messages))


def certificate(hostname: str = "hello.example", path: str = "/certs/hello.pem") -> Certificate:
    return Certificate(
        hostname=hostname,
        issuer="CA",
        serial="1",
        fingerprint="ab" * 32,
        not_before=NOON,
        not_after=NOON + timedelta(days=90),
        renew_at=NOON + timedelta(days=60),
        cert_path=path,
        key_path=path.replace(".pem", ".key"),
    )


def component(name: str = "web", **known: object) -> Component:
    return Component.model_validate({"name": name, "container_name": f"hello-{name}", **known})


def claim(hostname: str = "hello.example", listener: str = ":443", backend: str = "") -> RouteClaim:
    return RouteClaim(
        listener=listener, hostname=hostname, component="web", route="default", mode=RouteMode.L7, backend=backend
    )


class SteppingClock:
    """Each look at it is a minute after the one before."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        self.now += timedelta(minutes=1)
        return self.now
