"""What can be true of a service, and why: conditions as in Kubernetes' API conventions."""

from datetime import datetime
from enum import StrEnum

from api.model import Model


class Status(StrEnum):
    """Whether a condition holds. UNKNOWN: it could not be observed, which is never the same as FALSE."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ConditionType(StrEnum):
    """One a reconciler, and the summary."""

    PORTS_ALLOCATED = "PortsAllocated"
    """Each route has a host port."""
    CERTIFICATES_READY = "CertificatesReady"
    """Each hostname of an l7 route has a certificate that serves."""
    FILES_IN_PLACE = "FilesInPlace"
    """Each file that was pushed lies in the service's folder."""
    CONTAINERS_RUNNING = "ContainersRunning"
    """Each component's container runs as defined and listens on its routes' ports."""
    ROUTES_PROGRAMMED = "RoutesProgrammed"
    """mc-proxy leads each route's name to its container."""
    READY = "Ready"
    """The summary: the first of those above that is not as it should be."""
    FLAPPING = "Flapping"
    """It had to be mended so often lately that MCP does it more slowly; no part of the summary, and False is good."""


class Reason(StrEnum):
    """Why a condition has its status; machine-readable and stable."""

    # Converged.
    CONVERGED = "Converged"
    """Everything is as defined."""
    NOT_NEEDED = "NotNeeded"
    """The definition asks for nothing of this kind."""
    STOPPED = "Stopped"
    """The definition says `active = false`, and it is stopped."""

    # On the way: nothing is wrong.
    PENDING = "Pending"
    """Not looked at yet in this generation."""
    PROGRESSING = "Progressing"
    """Actions were taken; their effect is awaited."""
    WAITING_FOR_PORTS = "WaitingForPorts"
    """A route has no host port yet."""
    WAITING_FOR_CERTIFICATE = "WaitingForCertificate"
    """A route's hostname has no certificate yet."""
    WAITING_FOR_CONTAINER = "WaitingForContainer"
    """A route's backend does not accept connections yet."""
    WAITING_FOR_DEPENDENCY = "WaitingForDependency"
    """Something that it depends on is not ready yet."""
    UNHEALTHY = "Unhealthy"
    """A container runs and its health check fails."""
    TERMINATING = "Terminating"
    """Being deleted; waits for what must go first."""
    BACKING_OFF = "BackingOff"
    """A container ended; it is started again after a pause."""

    # The world cannot be seen or does not answer: MCP goes on trying.
    ENGINE_UNREACHABLE = "EngineUnreachable"
    """podman does not answer."""
    ENGINE_ERROR = "EngineError"
    """podman answered with an error of its own."""
    PROXY_UNREACHABLE = "ProxyUnreachable"
    """mc-proxy does not answer."""
    PROXY_ERROR = "ProxyError"
    """mc-proxy answered with an error of its own."""
    PORT_IN_USE = "PortInUse"
    """Somebody took the port between allocation and start; another one is chosen."""
    INTERNAL_ERROR = "InternalError"
    """A defect of MCP's own; its log has the details."""

    # A person has to do something. MCP goes on trying, slowly.
    INVALID_SPEC = "InvalidSpec"
    """The definition cannot be resolved with this node's defaults."""
    IMAGE_PULL_FAILED = "ImagePullFailed"
    """The image is not here and cannot be had; the message is the engine's."""
    CONTAINER_REFUSED = "ContainerRefused"
    """The engine refuses to create or start it."""
    CONTAINER_FAILED = "ContainerFailed"
    """It ended and its restart policy leaves it so, or it ends again and again."""
    ROLLOUT_FAILED = "RolloutFailed"
    """The new container did not become ready in time; the one before it serves, where there was one."""
    FORBIDDEN = "Forbidden"
    """The node's policy does not allow what the definition asks for; the message names the setting."""
    FLAPPING = "Flapping"
    """Too many corrections in a short time: something undoes what MCP does, or the service cannot live."""
    SUSPENDED = "Suspended"
    """It differs from what is defined, and is left alone until somebody resumes it; the message says what is due."""
    CONFLICT = "Conflict"
    """A name is held by another service or by a stranger, which stays untouched."""
    PORTS_EXHAUSTED = "PortsExhausted"
    """No port of the configured range is free."""
    LISTENER_MISSING = "ListenerMissing"
    """mc-proxy has no listener on the route's port; the message names those it has."""
    ROUTE_REFUSED = "RouteRefused"
    """mc-proxy refuses the route; the message is its own."""
    CERTIFICATE_FAILED = "CertificateFailed"
    """No certificate could be issued or laid down."""
    FILES_FAILED = "FilesFailed"
    """A pushed file cannot be laid down: the message says whether for the disk or for a right."""
    PROXY_NOT_CONFIGURED = "ProxyNotConfigured"
    """The definition has routes, and the agent knows no mc-proxy."""

    @property
    def needs_a_person(self) -> bool:
        """Whether waiting alone cannot be expected to help: `apply` reports a failure."""
        return self in _NEEDS_A_PERSON


_NEEDS_A_PERSON = frozenset(
    {
        Reason.INVALID_SPEC,
        Reason.IMAGE_PULL_FAILED,
        Reason.CONTAINER_REFUSED,
        Reason.CONTAINER_FAILED,
        Reason.ROLLOUT_FAILED,
        Reason.FORBIDDEN,
        Reason.SUSPENDED,
        Reason.CONFLICT,
        Reason.PORTS_EXHAUSTED,
        Reason.LISTENER_MISSING,
        Reason.ROUTE_REFUSED,
        Reason.CERTIFICATE_FAILED,
        Reason.FILES_FAILED,
        Reason.PROXY_NOT_CONFIGURED,
    }
)


class Condition(Model):
    """One observation of one generation."""

    type: ConditionType
    status: Status
    reason: Reason
    message: str = ""
    observed_generation: int
    last_transition: datetime
    """When `status` last changed, not when it was last looked at."""
    next_look_at: datetime | None = None
    """When it is tried again at the latest, where that was said."""


_PARTS = (
    ConditionType.PORTS_ALLOCATED,
    ConditionType.CERTIFICATES_READY,
    ConditionType.FILES_IN_PLACE,
    ConditionType.CONTAINERS_RUNNING,
    ConditionType.ROUTES_PROGRAMMED,
)
"""What the summary is made of, in the order in which it comes to be true."""


def summarize(conditions: tuple[Condition, ...], generation: int) -> tuple[Status, Reason, str]:
    """The summary `Ready` of a service in `generation`: the first thing that is not as it should be.

    A condition that has not seen this generation counts as pending. A stopped
    service is summed up as False/Stopped, which is what its operator wants.
    """
    seen = {condition.type: condition for condition in conditions}
    for kind in _PARTS:
        condition = seen.get(kind)
        if condition is None or condition.observed_generation < generation:
            return Status.FALSE, Reason.PENDING, f"{kind} has not been looked at yet in generation {generation}"
        if condition.status is not Status.TRUE and condition.reason is not Reason.STOPPED:
            return condition.status, condition.reason, condition.message
    if any(condition.reason is Reason.STOPPED for condition in conditions if condition.type in _PARTS):
        return Status.FALSE, Reason.STOPPED, "stopped, as defined"
    return Status.TRUE, Reason.CONVERGED, "everything is as defined"
