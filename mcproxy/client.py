"""Asks a running mcproxyd, for its own command line."""

from datetime import UTC, datetime
from pathlib import Path

import grpc

from api.gen.mc_proxy.v1 import admin_pb2, admin_pb2_grpc

_TIMEOUT = 10.0


def read_status(admin_socket: Path) -> str:
    """Version, uptime and connections, then a line for each listener. Raises grpc.RpcError."""
    with grpc.insecure_channel(f"unix:{admin_socket}") as channel:
        answer = admin_pb2_grpc.ProxyAdminServiceStub(channel).GetStatus(admin_pb2.GetStatusRequest(), timeout=_TIMEOUT)
    uptime = datetime.now(UTC) - answer.started_at.ToDatetime(UTC)
    lines = [f"mc-proxy {answer.version}", f"uptime: {str(uptime).partition('.')[0]}"]
    lines.append(f"connections: {answer.total_connections}")
    lines.extend(_listener_line(listener) for listener in answer.listeners)
    return "\n".join(lines)


def _listener_line(listener: admin_pb2.ListenerStatus) -> str:
    limit = f" max={listener.max_connections}" if listener.max_connections else ""
    proxied = " proxy_protocol" if listener.proxy_protocol else ""
    return f"  {listener.addr}  routes={listener.route_count} active={listener.active_connections}{limit}{proxied}"
