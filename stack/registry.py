"""Debian's docker-registry below one folder: for everybody, behind a password, or behind tokens, over TLS or plain.

Beside a registry that wants tokens runs the server that gives them. It takes whatever is among its passwords for the
password of any user, as MCR takes a token of MCIAS.
"""

import base64
import json
import os
import shutil
import ssl
import tempfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, Literal
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from controller.registry import utc_now
from reconcilers.certs.ca import EmbeddedCa, private_pem
from stack import images, processes
from stack.layout import Layout
from stack.podman import PodmanHost
from stack.web import free_port

Auth = Literal["anonymous", "basic", "token"]

USER: Final = "ann"
PASSWORD: Final = "open-sesame"  # of a registry that lasts as long as a test
# The password's bcrypt, which nothing that we depend on makes; four rounds, as each request is checked anew.
_HTPASSWD: Final = f"{USER}:$2b$04$DKJ1JhO2mK1cHQxhOABfDOOO8ZoIxrtAq83ZoxR8nP3/2p.TLBgkO\n"

_ISSUER: Final = "tokens"
_HOSTNAME: Final = "localhost"


@dataclass(frozen=True)
class ImageRegistry:
    """A running registry."""

    layout: Layout
    port: int
    auth: Auth
    tls: bool
    passwords: set[str] = field(default_factory=lambda: {PASSWORD})
    """What the server of tokens takes as a password; the registry behind basic auth takes PASSWORD alone."""

    @property
    def address(self) -> str:
        """host:port, as references begin."""
        return f"{_HOSTNAME}:{self.port}"

    @property
    def ca_file(self) -> Path:
        """What its certificate leads to, where it speaks TLS."""
        return self.layout.root / "ca" / "ca.pem"

    def start(self) -> None:
        """Starts it, or leaves it running. Raises FileNotFoundError where it is not installed."""
        command: list[str | Path] = ["docker-registry", "serve", self.layout.root / "registry.json"]
        processes.start(self.layout, "registry", command, env={"PATH": os.environ.get("PATH", os.defpath)})
        processes.wait_until(self.layout, "registry", self._answers, seconds=20)

    def stop(self) -> None:
        """Ends it; what it holds stays."""
        processes.stop(self.layout, "registry")

    def publish(self, podman: PodmanHost, name: str, image: images.Image) -> str:
        """Has the registry hold the image as `name:tag`, whatever was there before, and not this podman."""
        reference, made_here = f"{self.address}/{name}", f"localhost/published:{uuid.uuid4().hex}"
        images.load(podman, made_here, image)
        credentials = () if self.auth == "anonymous" else ("--creds", f"{USER}:{PASSWORD}")
        podman.run("push", "--quiet", "--tls-verify=false", *credentials, made_here, reference)
        podman.run("rmi", made_here)
        return reference

    def digest(self, name: str) -> str:
        """The digest of `name:tag`, in a registry for everybody."""
        repository, _, tag = name.partition(":")
        url = f"http://{self.address}/v2/{repository}/manifests/{tag}"
        accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
        question = urllib.request.Request(url, headers=accept, method="HEAD")
        with urllib.request.urlopen(question, timeout=5) as answer:
            return str(answer.headers["Docker-Content-Digest"])

    def asked_for(self, name: str) -> int:
        """How often somebody fetched the manifest of `name:tag`."""
        repository, _, tag = name.partition(":")
        log = (self.layout.log / "registry.log").read_text()
        return log.count(f'"GET /v2/{repository}/manifests/{tag} HTTP/1.1" 200')

    def _answers(self) -> bool:
        trusting = ssl.create_default_context(cafile=str(self.ca_file)) if self.tls else None
        try:
            scheme = "https" if self.tls else "http"
            urllib.request.urlopen(f"{scheme}://{self.address}/v2/", timeout=1, context=trusting).close()
        except urllib.error.HTTPError:
            return True  # it wants to know who asks
        except OSError:
            return False
        return True


@contextmanager
def image_registry(auth: Auth = "anonymous", *, tls: bool = False) -> Iterator[ImageRegistry]:
    """A registry that is gone afterwards."""
    layout = Layout(Path(tempfile.mkdtemp(prefix="mcp-reg")))
    made = ImageRegistry(layout, free_port(), auth, tls)
    layout.make()
    try:
        with _authenticated(made) as how:
            (layout.root / "registry.json").write_text(json.dumps(_configuration(made) | how))
            made.start()
            yield made
    finally:
        made.stop()
        layout.remove_run()
        shutil.rmtree(layout.root)


def _configuration(made: ImageRegistry) -> dict[str, object]:
    http: dict[str, object] = {"addr": f"127.0.0.1:{made.port}", "secret": uuid.uuid4().hex}
    if made.tls:
        certificate, key = _identity(made.layout)
        http["tls"] = {"certificate": str(certificate), "key": str(key)}
    storage = {"filesystem": {"rootdirectory": str(made.layout.root / "data")}, "delete": {"enabled": True}}
    return {"version": "0.1", "storage": storage, "http": http}


@contextmanager
def _authenticated(made: ImageRegistry) -> Iterator[dict[str, object]]:
    """What the registry's configuration says of who may come in; the server of tokens runs meanwhile."""
    match made.auth:
        case "anonymous":
            yield {}
        case "basic":
            path = made.layout.root / "htpasswd"
            path.write_text(_HTPASSWD)
            yield {"auth": {"htpasswd": {"realm": "images", "path": str(path)}}}
        case "token":
            signer = _Signer(made)
            with _serving(partial(_Tokens, signer)) as port:
                realm = f"http://127.0.0.1:{port}/token"
                token = {
                    "realm": realm,
                    "service": made.address,
                    "issuer": _ISSUER,
                    "rootcertbundle": str(signer.roots),
                }
                yield {"auth": {"token": token}}


@contextmanager
def _serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


class _Signer:
    """Makes the tokens that the registry takes (docker/distribution, docs/spec/auth/jwt.md)."""

    def __init__(self, made: ImageRegistry) -> None:
        ca = EmbeddedCa.open(made.layout.root / "tokens", "tokens", utc_now)
        self.passwords = made.passwords
        self.roots = made.layout.root / "tokens" / "ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._chain: list[x509.Certificate] = list(ca.sign(_HOSTNAME, self._key, timedelta(days=1)))

    def token(self, service: str, scopes: list[str]) -> str:
        """Allows what each scope, `repository:name:pull,push`, asks for."""
        chain = [base64.b64encode(link.public_bytes(Encoding.DER)).decode() for link in self._chain]
        access = [
            {"type": kind, "name": name, "actions": actions.split(",")}
            for kind, name, actions in (scope.split(":", 2) for scope in scopes)
        ]
        now = int(time.time())
        times = {"iat": now, "nbf": now - 10, "exp": now + 300, "jti": uuid.uuid4().hex}
        claims = {"iss": _ISSUER, "sub": "", "aud": service, "access": access, **times}
        signed = f"{_coded({'typ': 'JWT', 'alg': 'ES256', 'x5c': chain})}.{_coded(claims)}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(SHA256())))
        return f"{signed}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


class _Tokens(BaseHTTPRequestHandler):
    """Gives a token to whoever knows one of the passwords (docker/distribution, docs/spec/auth/token.md)."""

    def __init__(self, signer: _Signer, *request: object) -> None:
        self._signer = signer
        super().__init__(*request)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        if self._password() not in self._signer.passwords:
            self._answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "no such token"}]})
            return
        query = parse_qs(urlsplit(self.path).query)
        self._answer(200, {"token": self._signer.token(query["service"][0], query.get("scope", []))})

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def _password(self) -> str:
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        return base64.b64decode(value).decode().partition(":")[2] if kind == "Basic" else ""

    def _answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _identity(layout: Layout) -> tuple[Path, Path]:
    """A certificate for the registry, its chain below it, and its key."""
    certificate, key_file = layout.root / "tls.pem", layout.root / "tls.key"
    key = ec.generate_private_key(ec.SECP256R1())
    chain = EmbeddedCa.open(layout.root / "ca", "registry", utc_now).sign(_HOSTNAME, key, timedelta(days=1))
    key_file.write_bytes(private_pem(key))
    certificate.write_bytes(b"".join(link.public_bytes(Encoding.PEM) for link in chain))
    return certificate, key_file


def _coded(value: object) -> str:
    return _base64url(json.dumps(value).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
