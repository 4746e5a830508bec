"""A door over real TLS and a real socket, with a control plane of memory behind it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from api.access import AuditQuery, AuditRecord, Role, TokenRequest
from api.client import Client
from controller import listen
from controller.auth.door import Door, open_door
from controller.certificate import make_tls, open_certificate
from controller.registry import Registry, utc_now
from controller.settings import Settings
from reconcilers.base import Clock
from reconcilers.certs.ca import EmbeddedCa, private_pem
from stack.web import free_port
from tests.unit.api.test_server import RecordingPlane
from tests.unit.cli.inspection import Seen
from tests.unit.controller.nofiles import NoFiles


@dataclass
class Served:
    """Where it is, and what is behind it."""

    folder: Path
    port: int
    door: Door
    registry: Registry
    plane: RecordingPlane
    seen: Seen
    files: NoFiles

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca" / "ca.pem"

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def client(self, token: str | None = None, **more: Any) -> Client:
        """A client over TLS."""
        return Client(self.address, actor="mallory", ca_file=str(self.ca_file), token=token, **more)

    def local(self, actor: str = "ann@sea") -> Client:
        """A client over the socket."""
        return Client(f"unix://{self.folder}/agent.sock", actor=actor)

    def channel(self) -> grpc.aio.Channel:
        """A bare connection over TLS."""
        return grpc.aio.secure_channel(self.address, grpc.ssl_channel_credentials(self.ca_file.read_bytes()))

    async def token(self, name: str = "ci", role: Role = Role.ADMIN, expires_at: datetime | None = None) -> str:
        """The secret of a new token."""
        request = TokenRequest(name=name, role=role, expires_at=expires_at)
        return (await self.door.access.create_token(request, actor="test")).secret

    async def audit(self, **query: Any) -> list[AuditRecord]:
        return list(await self.registry.doors.audit(AuditQuery(**query)))


@asynccontextmanager
async def serving(
    folder: Path, clock: Clock = utc_now, patience: float = 60.0, **sections: dict[str, Any]
) -> AsyncIterator[Served]:
    """Serves below `folder`, with the sections of settings on top of what every test needs.

    The clock is that of the agent's certificate alone. `patience` is how many
    seconds a connection has to greet, and may be idle.
    """
    port = free_port()
    document = {"node": "rift", "state_dir": str(folder), **sections}
    document["api"] = {"listen": f"127.0.0.1:{port}", **sections.get("api", {})}
    document["auth"] = {"recheck_seconds": 0.1, **sections.get("auth", {})}
    settings = Settings.model_validate(document)
    registry = await Registry.open(settings.registry_url, "rift")
    plane, seen, files = RecordingPlane(), Seen(), NoFiles()
    door = await open_door(settings, registry)
    ca = EmbeddedCa.open(folder / "ca", "rift", clock)
    tls = make_tls(settings, open_certificate(settings, ca, clock))
    api = settings.api
    bounds = listen.Bounds(api.max_message_bytes, api.max_streams, api.max_connections, patience, patience)
    server = await listen.start(plane, seen, files, door, folder / "agent.sock", tls, bounds)
    try:
        yield Served(folder, port, door, registry, plane, seen, files)
    finally:
        await server.stop(None)
        await registry.close()


def client_certificate(folder: Path, name: str) -> tuple[Path, tuple[str, str]]:
    """A CA's file, and the files of a certificate and key for a client of that name."""
    folder.mkdir()
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    subjects = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]) for subject in ("clients", name)]
    now = utc_now()
    for index, file in enumerate(("ca", "client")):
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subjects[index])
            .issuer_name(subjects[0])
            .public_key(keys[index].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=index == 0, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(keys[0], hashes.SHA256())
        )
        (folder / f"{file}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / f"{file}.key").write_bytes(private_pem(keys[index]))
    return folder / "ca.pem", (str(folder / "client.pem"), str(folder / "client.key"))
