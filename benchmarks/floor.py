"""The floor: the fewest calls that do the same, sent to podman and to the proxy by hand over lasting connections."""

import http.client
import json
import os
import select
import signal
import socket
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from api.gen.mc_proxy.v1 import admin_pb2, admin_pb2_grpc
from benchmarks.ground import Caller
from stack import images
from stack.host import Host
from stack.web import free_port

_API = "/v4.0.0/libpod"
ZONE = "floor.test"


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("podman", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


@dataclass
class Podman:
    """libpod's API, over one lasting connection for each thread."""

    path: Path
    _mine: threading.local = field(default_factory=threading.local)

    def create(self, name: str, network: str, port: int, **more: Any) -> str:
        """Creates the container that MCP would create, and returns its id."""
        mapping = {"host_ip": "127.0.0.1", "host_port": port, "container_port": port, "protocol": "tcp"}
        spec = {
            "name": name,
            "image": images.HELLO,
            "env": {"PORT": str(port)},
            "portmappings": [mapping],
            "netns": {"nsmode": "bridge"},
            "networks": {network: {}},
            "restart_policy": "no",
        }
        answer = self._call("POST", "/containers/create", spec | more)
        return str(answer["Id"])

    def start(self, container: str) -> None:
        """Starts a container."""
        self._call("POST", f"/containers/{container}/start")

    def stop(self, container: str) -> None:
        """Ends a container at once, and keeps it."""
        self._call("POST", f"/containers/{container}/stop?timeout=0")

    def remove(self, container: str) -> None:
        """Ends and removes a container, without grace."""
        self._call("DELETE", f"/containers/{container}?force=true&timeout=0")

    def started(self, container: str) -> datetime:
        """When a container was last started."""
        state = self._call("GET", f"/containers/{container}/json")["State"]
        return datetime.fromisoformat(state["StartedAt"])

    def kill(self, container: str) -> None:
        """Has the kernel end its first process, without the engine; returns when it and all in it ended."""
        pid = int(self._call("GET", f"/containers/{container}/json")["State"]["Pid"])
        pidfd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            select.select([pidfd], [], [], 10)
        finally:
            os.close(pidfd)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if not hasattr(self._mine, "connection"):
            self._mine.connection = _Connection(self.path)
        connection: _Connection = self._mine.connection
        connection.request(method, f"{_API}{path}", json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status >= 400:
            raise RuntimeError(f"podman answered {answer.status} to {method} {path}: {content!r}")
        return json.loads(content) if content else None


class Floor:
    """Containers and routes made by hand on a host, with one certificate for all of them, made beforehand."""

    def __init__(self, host: Host, network: str) -> None:
        self.podman = Podman(host.podman.socket)
        self._network = network
        self._listener = f":{host.address[1]}"
        folder = host.layout.root / "floor"
        folder.mkdir()
        self._certificate, self._key = _self_signed(folder)
        self.caller = Caller(host.address, self._certificate)
        self._channel = grpc.insecure_channel(f"unix:{host.proxy_socket}")
        self._proxy = admin_pb2_grpc.ProxyAdminServiceStub(self._channel)
        self._proxy.GetStatus(admin_pb2.GetStatusRequest(), timeout=10)
        self._ports: dict[str, int] = {}

    def __enter__(self) -> "Floor":
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def create(self, name: str, **more: Any) -> str:
        """Creates a container with a port of its own."""
        port = self._ports.setdefault(name, free_port())
        return self.podman.create(name, self._network, port, **more)

    def route(self, name: str, instead_of: str = "") -> None:
        """Has the proxy route the container's hostname to it, or that of another one."""
        route = admin_pb2.Route(
            hostname=self.hostname(instead_of or name),
            backend=f"127.0.0.1:{self._ports[name]}",
            mode="l7",
            tls_cert=str(self._certificate),
            tls_key=str(self._key),
        )
        self._proxy.AddRoute(admin_pb2.AddRouteRequest(listener_addr=self._listener, route=route), timeout=60)

    def start(self, name: str, **more: Any) -> str:
        """Creates a container and starts it; returns its id."""
        container = self.create(name, **more)
        self.podman.start(container)
        return container

    def listens(self, name: str) -> bool:
        """Whether connections to the container are accepted."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._ports[name])) == 0

    def serve(self, name: str, **more: Any) -> str:
        """All of it: a container and the route to it; returns the container's id."""
        container = self.start(name, **more)
        self.route(name)
        return container

    def hostname(self, name: str) -> str:
        """Under which the container is reached."""
        return f"{name}.{ZONE}"


def _self_signed(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ZONE)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(f"*.{ZONE}")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, private = folder / "floor.pem", folder / "floor.key"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pem, private
