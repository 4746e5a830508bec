"""Every error that MCP means to raise, each with its gRPC code and exit code, once.

    McpError
    ├── InvalidSpec         the definition is wrong                 INVALID_ARGUMENT     exit 5
    ├── Refused             the definition is right, but not here   FAILED_PRECONDITION  exit 5
    ├── StaleGeneration     somebody else changed it meanwhile      ABORTED              exit 5
    ├── NotFound            there is no such service                NOT_FOUND            exit 5
    ├── Unreachable         the agent does not answer               UNAVAILABLE          exit 4
    │   └── Untrusted       what answers may be somebody else       UNAVAILABLE          exit 4
    ├── Unauthenticated     nobody knows who calls                  UNAUTHENTICATED      exit 5
    ├── Forbidden           it is known who, who may not            PERMISSION_DENIED    exit 5
    ├── TooMany             more at once than one caller may        RESOURCE_EXHAUSTED   exit 5
    ├── TimedOut            it did not converge in time             DEADLINE_EXCEEDED    exit 3
    └── RegistryUnavailable the registry cannot be read or written  UNAVAILABLE          exit 4

Interceptors translate; handlers never do. Exit 1 is "failed" or "differs", 2 is wrong usage.
"""

from enum import IntEnum
from typing import ClassVar, Self

import grpc


class ExitCode(IntEnum):
    """What the command line's exit status means."""

    DONE = 0
    FAILED = 1
    """It did not converge; for `diff`: there are differences."""
    USAGE = 2
    TIMED_OUT = 3
    UNREACHABLE = 4
    REFUSED = 5


class McpError(Exception):
    """Base of all errors whose message is meant for a person."""

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN
    exit_code: ClassVar[ExitCode] = ExitCode.FAILED

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidSpec(McpError):
    """The definition is wrong in one field; `field` is its path, such as `components[0].routes[1].port`."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    exit_code = ExitCode.REFUSED

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Refused(McpError):
    """The definition is well-formed, but this agent cannot take it."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    exit_code = ExitCode.REFUSED

    @classmethod
    def deleting(cls, name: str) -> Self:
        """That nothing more can be wished of a service that is on its way out."""
        return cls(f'service "{name}" is being deleted: apply it again once it is gone')


class StaleGeneration(McpError):
    """The expected generation is not the current one."""

    code = grpc.StatusCode.ABORTED
    exit_code = ExitCode.REFUSED

    @classmethod
    def check(cls, name: str, current: int, expected: int | None) -> None:
        """Raises it unless nothing is expected, or just that; generation 0 is that of a service that is not there."""
        if expected is not None and expected != current:
            raise cls(
                f'service "{name}" is at generation {current}, not {expected}: look at it again before you change it'
            )


class NotFound(McpError):
    """There is no such service, or no such part of one."""

    code = grpc.StatusCode.NOT_FOUND
    exit_code = ExitCode.REFUSED

    @classmethod
    def service(cls, name: str, node: str) -> Self:
        """That there is no such service on that node."""
        return cls(f'there is no service "{name}" on node {node}: mcp list shows which there are')


class Unauthenticated(McpError):
    """The caller showed no credentials, or none that hold."""

    code = grpc.StatusCode.UNAUTHENTICATED
    exit_code = ExitCode.REFUSED


class Forbidden(McpError):
    """It is known who calls, and that role may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED
    exit_code = ExitCode.REFUSED


class TooMany(McpError):
    """The caller has as many calls open, or failed as often, as one caller may."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    exit_code = ExitCode.REFUSED


class Unreachable(McpError):
    """The agent does not answer."""

    code = grpc.StatusCode.UNAVAILABLE
    exit_code = ExitCode.UNREACHABLE


class Untrusted(Unreachable):
    """Somebody answers in the agent's place, or the agent under another name."""


class TimedOut(McpError):
    """It did not converge in time; the reconcilers go on."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    exit_code = ExitCode.TIMED_OUT


class RegistryUnavailable(McpError):
    """The registry cannot be read or written; nothing was changed."""

    code = grpc.StatusCode.UNAVAILABLE
    exit_code = ExitCode.UNREACHABLE


def named(name: str) -> type[McpError] | None:
    """The error class of that name, as it travels beside the status code; None for an unknown one."""
    return next((kind for kind in McpError.__subclasses__() if kind.__name__ == name), None)
