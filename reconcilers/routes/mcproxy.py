"""mc-proxy's admin API: messages and status codes on one side, our own types on the other."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from typing import TypeVar

import grpc
import grpc.aio

from api.conditions import Reason
from api.gen.mc_proxy.v1 import admin_pb2 as pb
from api.gen.mc_proxy.v1.admin_pb2_grpc import ProxyAdminServiceStub
from api.spec import RouteMode
from reconcilers.base import Terminal, Transient
from reconcilers.routes.model import Listing, ProxyRoute

Answer = TypeVar("Answer")

# By default gRPC waits up to two minutes before it tries again to connect; a Unix socket costs nothing to try.
_RECONNECT_MS = {"initial": 50, "max": 100}


class McProxy:
    """One mc-proxy behind its Unix socket. Made and used on one event loop.

    Every call ends within `timeout` and raises Transient or Terminal.
    """

    def __init__(self, socket: str, timeout: timedelta = timedelta(seconds=10)) -> None:
        self.socket = socket
        self._timeout = timeout.total_seconds()
        # What gRPC calls the least backoff is how long an attempt may take: a slow proxy is a proxy all the same.
        waits = {**_RECONNECT_MS, "min": round(self._timeout * 1000)}
        self._channel = grpc.aio.insecure_channel(
            f"unix://{socket}", [(f"grpc.{which}_reconnect_backoff_ms", value) for which, value in waits.items()]
        )
        self._stub = ProxyAdminServiceStub(self._channel)

    async def listing(self) -> Listing:
        """All routes of all listeners."""
        status = await self._call(self._stub.GetStatus(pb.GetStatusRequest(), timeout=self._timeout))
        addresses = [listener.addr for listener in status.listeners]
        requests = [pb.ListRoutesRequest(listener_addr=address) for address in addresses]
        answers = await asyncio.gather(
            *(self._call(self._stub.ListRoutes(request, timeout=self._timeout)) for request in requests)
        )
        routes = [
            _from_message(address, route)
            for address, answer in zip(addresses, answers, strict=True)
            for route in answer.routes
        ]
        return Listing(frozenset(addresses), {route.key: route for route in routes})

    async def add(self, route: ProxyRoute) -> None:
        """Inserts or replaces a route; traffic flows once this returns."""
        request = pb.AddRouteRequest(listener_addr=route.listener, route=_to_message(route))
        try:
            await self._call(self._stub.AddRoute(request, timeout=self._timeout))
        except _NotFound as error:
            message = f"{route.hostname}{route.listener}: {error.message}"
            raise Terminal(Reason.LISTENER_MISSING, message) from error

    async def remove(self, listener: str, hostname: str) -> None:
        """Removes a route; one that is not there is removed already."""
        request = pb.RemoveRouteRequest(listener_addr=listener, hostname=hostname)
        try:
            await self._call(self._stub.RemoveRoute(request, timeout=self._timeout))
        except _NotFound:
            return

    async def connections(self) -> AsyncIterator[None]:
        """One None each time a connection stands; connects by itself and never ends."""
        while True:
            state = self._channel.get_state(try_to_connect=True)
            if state is grpc.ChannelConnectivity.READY:
                yield None
            await self._channel.wait_for_state_change(state)

    async def close(self) -> None:
        """Ends the connection."""
        await self._channel.close(None)

    async def _call(self, call: Awaitable[Answer]) -> Answer:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from error

    def _translated(self, error: grpc.aio.AioRpcError) -> Exception:
        details = error.details() or error.code().name
        if details.startswith("failed to connect"):
            # gRPC repeats the address three times before it comes to the reason.
            details = details.rpartition(": ")[2]
        match error.code():
            case grpc.StatusCode.NOT_FOUND:
                return _NotFound(details)
            case grpc.StatusCode.INVALID_ARGUMENT | grpc.StatusCode.FAILED_PRECONDITION:
                return Terminal(Reason.ROUTE_REFUSED, f"mc-proxy refuses: {details}")
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
                return Transient(Reason.PROXY_UNREACHABLE, f"mc-proxy at {self.socket} does not answer: {details}")
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                message = f"mc-proxy at {self.socket} did not answer within {self._timeout:g} s"
                return Transient(Reason.PROXY_UNREACHABLE, message)
            case code:
                return Transient(Reason.PROXY_ERROR, f"mc-proxy answers {code.name}: {details}")


class _NotFound(Transient):
    """The listener or route is not there; where nobody minds in particular, it went just now."""

    def __init__(self, details: str) -> None:
        super().__init__(Reason.PROXY_ERROR, f"mc-proxy does not know it: {details}")


def _from_message(listener: str, route: pb.Route) -> ProxyRoute:
    return ProxyRoute(
        listener=listener,
        hostname=route.hostname.lower(),
        backend=route.backend,
        mode=RouteMode.L7 if route.mode == RouteMode.L7 else RouteMode.L4,
        cert_path=route.tls_cert,
        key_path=route.tls_key,
        backend_tls=route.backend_tls,
        send_proxy_protocol=route.send_proxy_protocol,
        policies=tuple((policy.type, policy.value) for policy in route.l7_policies),
    )


def _to_message(route: ProxyRoute) -> pb.Route:
    return pb.Route(
        hostname=route.hostname,
        backend=route.backend,
        mode=route.mode,
        tls_cert=route.cert_path,
        tls_key=route.key_path,
        backend_tls=route.backend_tls,
        send_proxy_protocol=route.send_proxy_protocol,
        l7_policies=[pb.L7Policy(type=kind, value=value) for kind, value in route.policies],
    )
