"""The proxy's table, read and changed behind the agent's back through the admin API that any mc-proxy has."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from api.gen.mc_proxy.v1 import admin_pb2, admin_pb2_grpc
from stack.processes import StackError

_SECONDS: Final = 10


@dataclass(frozen=True)
class Table:
    """The routes of the proxy whose admin socket this is. Every method raises grpc.RpcError when it refuses."""

    socket: Path

    def routes(self) -> list[tuple[str, admin_pb2.Route]]:
        """Each route with its listener, as the proxy names it."""
        with self._proxy() as proxy:
            status = proxy.GetStatus(admin_pb2.GetStatusRequest(), timeout=_SECONDS)
            found = []
            for listener in status.listeners:
                asked = admin_pb2.ListRoutesRequest(listener_addr=listener.addr)
                found += [(listener.addr, route) for route in proxy.ListRoutes(asked, timeout=_SECONDS).routes]
            return found

    def hostnames(self) -> list[str]:
        """The hostnames of all routes."""
        return [route.hostname for _, route in self.routes()]

    def listener_of(self, hostname: str) -> str:
        """The listener that has a route for the name. Raises StackError when none has."""
        for listener, route in self.routes():
            if route.hostname == hostname:
                return listener
        raise StackError(f"the proxy has no route for {hostname}")

    def add(self, listener: str, route: admin_pb2.Route) -> None:
        """Inserts or replaces a route."""
        with self._proxy() as proxy:
            proxy.AddRoute(admin_pb2.AddRouteRequest(listener_addr=listener, route=route), timeout=_SECONDS)

    def remove(self, listener: str, hostname: str) -> None:
        """Removes a route."""
        with self._proxy() as proxy:
            proxy.RemoveRoute(admin_pb2.RemoveRouteRequest(listener_addr=listener, hostname=hostname), timeout=_SECONDS)

    @contextmanager
    def _proxy(self) -> Iterator[admin_pb2_grpc.ProxyAdminServiceStub]:
        with grpc.insecure_channel(f"unix:{self.socket}") as channel:
            yield admin_pb2_grpc.ProxyAdminServiceStub(channel)
