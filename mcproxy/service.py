"""The admin API: checks requests, turns them into changes of the table, and reads the table and HAProxy for answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from api.gen.mc_proxy.v1 import admin_pb2 as pb
from api.gen.mc_proxy.v1 import admin_pb2_grpc
from mcproxy.certificate import load_bundle
from mcproxy.errors import FailedPrecondition, InvalidArgument, NotFound
from mcproxy.haproxy import HAProxy
from mcproxy.messages import policy_message, policy_of, route_message, route_of, rule_message, rule_of
from mcproxy.model import Entry, L7Policy, Mode, Route, RouteKey, State, Upstream
from mcproxy.render import Listener
from mcproxy.table import Table
from mcproxy.upstream import UpstreamWatch, assumed, find_out

if TYPE_CHECKING:
    import grpc

    _Context = grpc.aio.ServicerContext[Any, Any]

_MAX_CONNECTIONS = 1_000_000


class ProxyAdmin(admin_pb2_grpc.ProxyAdminServiceServicer):
    """mc_proxy.v1.ProxyAdminService. Methods raise Refused, which TranslateErrors answers with its code."""

    def __init__(
        self, table: Table, haproxy: HAProxy, watch: UpstreamWatch, listeners: Sequence[Listener], started: datetime
    ) -> None:
        self._table = table
        self._haproxy = haproxy
        self._watch = watch
        self._listeners = {listener.addr: listener for listener in listeners}
        self._started = started

    @override
    async def ListRoutes(self, request: pb.ListRoutesRequest, context: _Context) -> pb.ListRoutesResponse:
        addr = self._listener(request.listener_addr)
        entries = self._table.state.entries
        routes = [
            route_message(entries[key].route) for key in sorted(entries) if key.listener == addr and entries[key].served
        ]
        return pb.ListRoutesResponse(listener_addr=addr, routes=routes)

    @override
    async def AddRoute(self, request: pb.AddRouteRequest, context: _Context) -> pb.AddRouteResponse:
        addr = self._listener(request.listener_addr)
        route = route_of(request.route)
        bundle = load_bundle(route.tls_cert, route.tls_key) if route.mode is Mode.L7 else None
        key = RouteKey(addr, route.hostname)
        finding = await find_out(route, self._known_upstream(key, route))
        entry = Entry(route, bundle, finding.upstream)
        await self._table.apply(lambda state: state.with_entry(addr, entry))
        if not finding.certain:
            self._watch.doubt(key)
        return pb.AddRouteResponse()

    @override
    async def RemoveRoute(self, request: pb.RemoveRouteRequest, context: _Context) -> pb.RemoveRouteResponse:
        key = self._key(request.listener_addr, request.hostname)

        def without(state: State) -> State:
            _entry(state, key)
            return state.without_entry(key)

        await self._table.apply(without)
        return pb.RemoveRouteResponse()

    @override
    async def GetFirewallRules(
        self, request: pb.GetFirewallRulesRequest, context: _Context
    ) -> pb.GetFirewallRulesResponse:
        return pb.GetFirewallRulesResponse(rules=map(rule_message, self._table.state.firewall))

    @override
    async def AddFirewallRule(
        self, request: pb.AddFirewallRuleRequest, context: _Context
    ) -> pb.AddFirewallRuleResponse:
        rule = rule_of(request.rule)
        await self._table.apply(
            lambda state: state if rule in state.firewall else state.with_firewall((*state.firewall, rule))
        )
        return pb.AddFirewallRuleResponse()

    @override
    async def RemoveFirewallRule(
        self, request: pb.RemoveFirewallRuleRequest, context: _Context
    ) -> pb.RemoveFirewallRuleResponse:
        rule = rule_of(request.rule)

        def without(state: State) -> State:
            if rule not in state.firewall:
                raise NotFound(f"there is no firewall rule {rule.type} {rule.value}")
            return state.with_firewall(tuple(kept for kept in state.firewall if kept != rule))

        await self._table.apply(without)
        return pb.RemoveFirewallRuleResponse()

    @override
    async def SetListenerMaxConnections(
        self, request: pb.SetListenerMaxConnectionsRequest, context: _Context
    ) -> pb.SetListenerMaxConnectionsResponse:
        addr = self._listener(request.listener_addr)
        limit = request.max_connections
        if not 0 <= limit <= _MAX_CONNECTIONS:
            raise InvalidArgument(f"max_connections {limit} is not between 0 (unlimited) and {_MAX_CONNECTIONS}")
        await self._table.apply(lambda state: state.with_limit(addr, limit))
        return pb.SetListenerMaxConnectionsResponse()

    @override
    async def ListL7Policies(self, request: pb.ListL7PoliciesRequest, context: _Context) -> pb.ListL7PoliciesResponse:
        route = _entry(self._table.state, self._key(request.listener_addr, request.hostname)).route
        return pb.ListL7PoliciesResponse(policies=map(policy_message, route.l7_policies))

    @override
    async def AddL7Policy(self, request: pb.AddL7PolicyRequest, context: _Context) -> pb.AddL7PolicyResponse:
        key, policy = self._key(request.listener_addr, request.hostname), policy_of(request.policy)

        def with_policy(state: State) -> State:
            policies = _l7_route(state, key).l7_policies
            return state if policy in policies else _with_policies(state, key, (*policies, policy))

        await self._table.apply(with_policy)
        return pb.AddL7PolicyResponse()

    @override
    async def RemoveL7Policy(self, request: pb.RemoveL7PolicyRequest, context: _Context) -> pb.RemoveL7PolicyResponse:
        key, policy = self._key(request.listener_addr, request.hostname), policy_of(request.policy)

        def without_policy(state: State) -> State:
            policies = _l7_route(state, key).l7_policies
            if policy not in policies:
                raise NotFound(f"route {key.hostname!r} has no policy {policy.type} {policy.value!r}")
            return _with_policies(state, key, tuple(kept for kept in policies if kept != policy))

        await self._table.apply(without_policy)
        return pb.RemoveL7PolicyResponse()

    @override
    async def GetStatus(self, request: pb.GetStatusRequest, context: _Context) -> pb.GetStatusResponse:
        connections = await self._haproxy.connections()
        state = self._table.state
        response = pb.GetStatusResponse(
            version=version("metacircular-mcp"),
            listeners=[
                pb.ListenerStatus(
                    addr=addr,
                    route_count=sum(key.listener == addr for key in state.entries),
                    active_connections=connections[addr],
                    proxy_protocol=listener.proxy_protocol,
                    max_connections=state.limits.get(addr, listener.max_connections),
                )
                for addr, listener in self._listeners.items()
            ],
            total_connections=sum(connections.values()),
        )
        response.started_at.FromDatetime(self._started)
        return response

    def _listener(self, addr: str) -> str:
        if addr not in self._listeners:
            known = ", ".join(self._listeners)
            raise NotFound(f"there is no listener {addr!r}; the configuration file has {known}")
        return addr

    def _key(self, addr: str, hostname: str) -> RouteKey:
        return RouteKey(self._listener(addr), hostname.lower())

    def _known_upstream(self, key: RouteKey, route: Route) -> Upstream:
        entry, guess = self._table.state.entries.get(key), assumed(route)
        if entry is None:
            return guess
        # A new backend of a route most likely speaks as the one before it.
        return entry.upstream if entry.route.backend == route.backend else replace(guess, h2c=entry.upstream.h2c)


def _entry(state: State, key: RouteKey) -> Entry:
    if key not in state.entries:
        raise NotFound(f"listener {key.listener!r} has no route {key.hostname!r}")
    return state.entries[key]


def _l7_route(state: State, key: RouteKey) -> Route:
    route = _entry(state, key).route
    if route.mode is not Mode.L7:
        raise FailedPrecondition(f"route {key.hostname!r} is l4: its requests are not seen here")
    return route


def _with_policies(state: State, key: RouteKey, policies: tuple[L7Policy, ...]) -> State:
    entry = state.entries[key]
    route = entry.route.model_copy(update={"l7_policies": policies})
    return state.with_entry(key.listener, replace(entry, route=route))
