"""Who may call what: one row for each method that is served. What is not here is answered to nobody.

The agent does not start while a method that it serves has no row, or a row no
method. A call that writes leaves a row in the audit.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from api.access import Role


@dataclass(frozen=True, slots=True)
class Rule:
    """What a method asks of its caller."""

    role: Role
    writes: bool = False


_READ: Final = Rule(Role.VIEWER)
_WRITE: Final = Rule(Role.OPERATOR, writes=True)

METHODS: Final[Mapping[str, Rule]] = {
    "/mcp.v1.ControlPlaneService/ApplyService": _WRITE,
    "/mcp.v1.ControlPlaneService/DeleteService": _WRITE,
    "/mcp.v1.ControlPlaneService/GetService": _READ,
    "/mcp.v1.ControlPlaneService/ListServices": _READ,
    "/mcp.v1.ControlPlaneService/WatchServices": _READ,
    "/mcp.v1.ControlPlaneService/ListEvents": _READ,
    "/mcp.v1.ControlPlaneService/WatchEvents": _READ,
    "/mcp.v1.ControlPlaneService/ListContainers": _READ,
    "/mcp.v1.ControlPlaneService/GetNodeStatus": _READ,
    "/mcp.v1.ControlPlaneService/SetNodeDrained": _WRITE,
    "/mcp.v1.ControlPlaneService/SuspendService": _WRITE,
    "/mcp.v1.ControlPlaneService/ResumeService": _WRITE,
    "/mcp.v1.ControlPlaneService/ReconcileService": _WRITE,
    "/mcp.v1.ControlPlaneService/SetServiceActive": _WRITE,
    "/mcp.v1.ControlPlaneService/RestartService": _WRITE,
    "/mcp.v1.ControlPlaneService/ListRevisions": _READ,
    "/mcp.v1.ControlPlaneService/RollbackService": _WRITE,
    "/mcp.v1.ControlPlaneService/AdoptService": _WRITE,
    "/mcp.v1.AccessService/WhoAmI": _READ,
    "/mcp.v1.AccessService/CreateToken": Rule(Role.ADMIN, writes=True),
    "/mcp.v1.AccessService/ListTokens": Rule(Role.ADMIN),
    "/mcp.v1.AccessService/RevokeToken": Rule(Role.ADMIN, writes=True),
    "/mcp.v1.AccessService/ListAudit": Rule(Role.OPERATOR),
    "/mcp.v1.InspectionService/StreamLogs": _READ,
    "/mcp.v1.InspectionService/WatchUsage": _READ,
    "/mcp.v1.InspectionService/Diagnose": _READ,
    # It holds what a service is given in secret.
    "/mcp.v1.InspectionService/ExportService": Rule(Role.OPERATOR),
    "/mcp.v1.FilesService/PushFile": _WRITE,
    "/mcp.v1.FilesService/RemoveFile": _WRITE,
    "/mcp.v1.FilesService/PullFile": Rule(Role.OPERATOR),
    "/mcp.v1.FilesService/ListFiles": _READ,
    "/grpc.health.v1.Health/Check": _READ,
    "/grpc.health.v1.Health/List": _READ,
    "/grpc.health.v1.Health/Watch": _READ,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _READ,
}
"""By the path that travels, compared exactly."""


def check(served: Collection[str]) -> None:
    """Raises RuntimeError unless there is a row for each method served, and no other."""
    known = set(METHODS)
    if missing := sorted(set(served) - known):
        raise RuntimeError(f"nobody said who may call {', '.join(missing)}: add rows to controller.auth.methods")
    if idle := sorted(known - set(served)):
        raise RuntimeError(f"nobody serves {', '.join(idle)}: take the rows from controller.auth.methods")
