"""Between the admin API's messages and our own frozen values."""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import ValidationError

from api.gen.mc_proxy.v1 import admin_pb2 as pb
from mcproxy.errors import InvalidArgument, Unimplemented
from mcproxy.model import FirewallRule, FirewallRuleType, Frozen, L7Policy, Mode, Route, sentence

_M = TypeVar("_M", bound=Frozen)
_RULE_TYPES = {
    FirewallRuleType.IP: pb.FIREWALL_RULE_TYPE_IP,
    FirewallRuleType.CIDR: pb.FIREWALL_RULE_TYPE_CIDR,
}


def _validated(model: type[_M], fields: Mapping[str, object]) -> _M:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise InvalidArgument(sentence(error)) from error


def route_of(message: pb.Route) -> Route:
    """The route that a message describes. Raises InvalidArgument."""
    return _validated(
        Route,
        {
            "hostname": message.hostname,
            "backend": message.backend,
            "mode": message.mode or Mode.L4,
            "tls_cert": message.tls_cert,
            "tls_key": message.tls_key,
            "backend_tls": message.backend_tls,
            "send_proxy_protocol": message.send_proxy_protocol,
            "l7_policies": [{"type": policy.type, "value": policy.value} for policy in message.l7_policies],
        },
    )


def route_message(route: Route) -> pb.Route:
    """The message for a route, as ListRoutes gives it."""
    return pb.Route(
        hostname=route.hostname,
        backend=route.backend,
        mode=route.mode,
        tls_cert=route.tls_cert,
        tls_key=route.tls_key,
        backend_tls=route.backend_tls,
        send_proxy_protocol=route.send_proxy_protocol,
        l7_policies=map(policy_message, route.l7_policies),
    )


def policy_of(message: pb.L7Policy) -> L7Policy:
    """The policy that a message describes. Raises InvalidArgument."""
    return _validated(L7Policy, {"type": message.type, "value": message.value})


def policy_message(policy: L7Policy) -> pb.L7Policy:
    """The message for a policy."""
    return pb.L7Policy(type=policy.type, value=policy.value)


def rule_of(message: pb.FirewallRule) -> FirewallRule:
    """The firewall rule that a message describes. Raises InvalidArgument, or Unimplemented for countries."""
    if message.type == pb.FIREWALL_RULE_TYPE_COUNTRY:
        raise Unimplemented("country rules need a GeoIP database, which this stand-in for mc-proxy does not have")
    kinds = {number: kind for kind, number in _RULE_TYPES.items()}
    if message.type not in kinds:
        raise InvalidArgument("a firewall rule needs a type: IP or CIDR")
    return _validated(FirewallRule, {"type": kinds[message.type], "value": message.value})


def rule_message(rule: FirewallRule) -> pb.FirewallRule:
    """The message for a firewall rule."""
    return pb.FirewallRule(type=_RULE_TYPES[rule.type], value=rule.value)
