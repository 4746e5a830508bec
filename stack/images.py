"""Tiny images made of what Debian has, since a build machine reaches no registry.

Each is one layer that podman imports: some files, a command, an environment.

- hello: busybox's web server on $PORT; `/` tells name and version, `/cgi-bin/env` what the container was given,
  `/cgi-bin/slow?20` answers with a line each tenth of a second
- tls: HAProxy that terminates TLS itself on $PORT, with a certificate of its own
- exit: ends at once with the code $CODE
"""

import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from stack.podman import PodmanHost
from stack.processes import StackError

HELLO: Final = "localhost/mcp-hello:v1.0.0"
HELLO_NEXT: Final = "localhost/mcp-hello:v1.0.1"
TLS: Final = "localhost/mcp-tls:v1.0.0"
EXIT: Final = "localhost/mcp-exit:v1.0.0"

# busybox's server neither heeds SIGTERM as the first process nor ends by itself: the shell does it for it.
_SERVE: Final = """#!/bin/sh
trap 'exit 0' TERM INT
httpd -f -p "0.0.0.0:${PORT:-8080}" -h /www & wait
"""
_ENV: Final = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'; env
"""
_SLOW: Final = """#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
n=0; while [ $n -lt "${QUERY_STRING:-20}" ]; do echo "$n $VERSION"; n=$((n + 1)); sleep 0.1; done
"""
_HAPROXY: Final = """
global
  maxconn 100
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend tls
  bind "0.0.0.0:${PORT}" ssl crt /etc/tls.pem ssl-min-ver TLSv1.3 alpn h2,http/1.1
  http-request return status 200 content-type text/plain string "mcp-tls v1.0.0\\n"
"""


@dataclass(frozen=True)
class Image:
    """One layer: `files` by absolute path (a file ending in no suffix below /bin is executable), links, command."""

    command: tuple[str, ...]
    files: Mapping[str, bytes]
    links: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    def tar(self) -> bytes:
        """The layer as a tar archive; the same content gives the same bytes."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for path, data in self.files.items():
                entry = tarfile.TarInfo(path.lstrip("/"))
                entry.size, entry.mode = len(data), 0o755
                archive.addfile(entry, io.BytesIO(data))
            for path, target in self.links.items():
                entry = tarfile.TarInfo(path.lstrip("/"))
                entry.type, entry.linkname = tarfile.SYMTYPE, target
                archive.addfile(entry)
        return out.getvalue()


def build(podman: PodmanHost, references: Iterable[str] = (HELLO, HELLO_NEXT, TLS, EXIT)) -> None:
    """Builds those of our images that this podman lacks. Raises StackError when a program they need is missing."""
    known = set(podman.run("images", "--format", "{{.Repository}}:{{.Tag}}").split())
    for reference in references:
        if reference not in known:
            load(podman, reference, _RECIPES[reference](podman))


def hello(version: str) -> Image:
    """A web server that says its name and `version`."""
    return Image(
        command=("/bin/serve",),
        files={
            "/bin/busybox": _program("busybox"),
            "/bin/serve": _SERVE.encode(),
            "/www/index.html": f"mcp-hello {version}\n".encode(),
            "/www/healthz": b"ok\n",
            "/www/who.json": f'{{"backend": "{version}"}}\n'.encode(),
            "/www/cgi-bin/env": _ENV.encode(),
            "/www/cgi-bin/slow": _SLOW.encode(),
        },
        links={f"/bin/{applet}": "busybox" for applet in ("sh", "httpd", "env", "sleep", "cat", "ls")},
        env={"VERSION": version},
    )


def exiting() -> Image:
    """A container that ends at once with $CODE, 3 unless told."""
    return Image(
        command=("/bin/sh", "-c", "echo ending with ${CODE}; exit ${CODE}"),
        files={"/bin/busybox": _program("busybox")},
        links={"/bin/sh": "busybox"},
        env={"CODE": "3"},
    )


def tls(certificate: bytes) -> Image:
    """A server that terminates TLS itself; `certificate` is PEM, the chain and its key."""
    path = _which("haproxy")
    return Image(
        command=("/bin/haproxy", "-W", "-f", "/etc/haproxy.cfg"),
        files={
            "/bin/haproxy": path.read_bytes(),
            "/etc/haproxy.cfg": _HAPROXY.encode(),
            "/etc/tls.pem": certificate,
            **{str(library): library.read_bytes() for library in _libraries(path)},
        },
        env={"PORT": "8443"},
    )


def tls_certificate(podman: PodmanHost) -> Path:
    """The self-signed certificate of this host's tls image, for clients to trust; made when it is missing."""
    certificate, key = podman.layout.root / "tls.pem", podman.layout.root / "tls.key"
    if not certificate.exists():
        _openssl_self_signed(certificate, key)
    return certificate


def _openssl_self_signed(certificate: Path, key: Path) -> None:
    names = "DNS:localhost,DNS:*.mcp.metacircular.net,DNS:*.svc.mcp.metacircular.net,DNS:*.example.test"
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-days", "30", "-subj", "/CN=mcp-tls", "-addext", f"subjectAltName={names}"]
    subprocess.run(
        [*request, *subject, "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )


def _tls(podman: PodmanHost) -> Image:
    certificate = tls_certificate(podman)
    return tls(certificate.read_bytes() + certificate.with_suffix(".key").read_bytes())


_RECIPES: Final[Mapping[str, Callable[[PodmanHost], Image]]] = {
    HELLO: lambda _: hello("v1.0.0"),
    HELLO_NEXT: lambda _: hello("v1.0.1"),
    TLS: _tls,
    EXIT: lambda _: exiting(),
}


def load(podman: PodmanHost, reference: str, image: Image) -> None:
    """Has podman hold the image under that name."""
    changes = [f"ENV {name}={value}" for name, value in image.env.items()]
    command = ", ".join(f'"{word}"' for word in image.command)
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        archive.write(image.tar())
        archive.flush()
        Path(archive.name).chmod(0o644)
        options = [word for change in (f"CMD [{command}]", *changes) for word in ("--change", change)]
        podman.run("import", "--quiet", *options, archive.name, reference)


def _program(name: str) -> bytes:
    return _which(name).read_bytes()


def _which(name: str) -> Path:
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise StackError(f"{name} is missing: run scripts/setup")
    return Path(found)


def _libraries(program: Path) -> list[Path]:
    """The shared libraries of a program, its loader among them, as `ldd` names them."""
    shown = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    return [Path(path) for path in re.findall(r"(?:=> |^\s+)(/\S+) \(", shown, flags=re.MULTILINE)]
