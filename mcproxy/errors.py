"""Why a call can fail, each reason with its gRPC code, so that one interceptor translates them all.

Refused
├── InvalidArgument     the request can never be carried out as it stands
├── NotFound            the listener, route or rule is not there
├── FailedPrecondition  the request is sound but not for what is programmed now
├── Unimplemented       this stand-in cannot do what mc-proxy can
├── Unavailable         HAProxy is not running just now; the same request may succeed later
└── Internal            HAProxy or the database failed us; the message carries their own reason
"""

from typing import ClassVar

import grpc


class Refused(Exception):
    """A request that was not carried out; its message is a sentence for the caller."""

    code: ClassVar[grpc.StatusCode]


class InvalidArgument(Refused):
    """The request can never be carried out as it stands."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(Refused):
    """The listener, route, policy or rule that the request names is not there."""

    code = grpc.StatusCode.NOT_FOUND


class FailedPrecondition(Refused):
    """The request is sound, but not for what is programmed now."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class Unimplemented(Refused):
    """mc-proxy can do this, its stand-in cannot."""

    code = grpc.StatusCode.UNIMPLEMENTED


class Unavailable(Refused):
    """HAProxy is not running just now; the same request may succeed later."""

    code = grpc.StatusCode.UNAVAILABLE


class Internal(Refused):
    """HAProxy or the database failed; the message carries their own reason."""

    code = grpc.StatusCode.INTERNAL
