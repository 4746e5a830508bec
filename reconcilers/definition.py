"""A service's definition as reconcilers read it: complete, or the reason why nothing can be done."""

from api.conditions import Reason
from api.errors import InvalidSpec
from api.resolve import Defaults, ResolvedService, resolve
from api.service import Service
from reconcilers.base import Terminal


def resolved(service: Service, defaults: Defaults) -> ResolvedService:
    """The complete form of the service's definition. Raises Terminal where it is wrong on this node."""
    try:
        return resolve(service.spec, defaults)
    except InvalidSpec as error:
        raise Terminal(Reason.INVALID_SPEC, f"{error.field}: {error.message}") from error
