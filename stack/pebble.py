"""Let's Encrypt's own test CA below one folder: pebble, and the resolver that tells it where names lead.

Every start has a new root, as pebble keeps nothing.
"""

import json
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from controller.registry import utc_now
from reconcilers.certs.ca import EmbeddedCa, private_pem
from stack import processes
from stack.layout import Layout
from stack.processes import StackError
from stack.web import fetch, free_port

NOWHERE: Final = "127.0.0.77"
"""An address of this machine that nobody listens on."""

_HOSTNAME = "localhost"


@dataclass(frozen=True)
class Pebble:
    """A running pebble. Names lead to 127.0.0.1, where `challenge_port` is asked; its TLS leads to `ca_file`."""

    layout: Layout
    port: int
    management_port: int
    challenge_port: int
    dns_port: int
    dns_management_port: int
    config: Path
    environment: Mapping[str, str]

    @property
    def directory(self) -> str:
        """URL of the ACME directory."""
        return f"https://{_HOSTNAME}:{self.port}/dir"

    @property
    def ca_file(self) -> Path:
        """What pebble's own TLS certificate leads to."""
        return self.layout.root / "ca" / "ca.pem"

    def root(self) -> str:
        """The root, in PEM, that what it issues leads to."""
        return fetch(("127.0.0.1", self.management_port), _HOSTNAME, self.ca_file, "/roots/0")

    def lead(self, hostname: str, address: str) -> None:
        """Has the name lead to that address."""
        for order in ("clear-a", "add-a"):
            body = json.dumps({"host": hostname, "addresses": [address]}).encode()
            url = f"http://127.0.0.1:{self.dns_management_port}/{order}"
            urllib.request.urlopen(url, data=body, timeout=5).close()

    def start(self) -> None:
        """Starts both programs, and returns once they answer. Raises FileNotFoundError where they are not installed."""
        resolver: list[str | Path] = ["pebble-challtestsrv", "-defaultIPv6", "", "-defaultIPv4", "127.0.0.1"]
        for kind in ("http01", "https01", "tlsalpn01"):
            resolver += [f"-{kind}", ""]
        resolver += ["-dns01", f"127.0.0.1:{self.dns_port}", "-management", f"127.0.0.1:{self.dns_management_port}"]
        environment = {"PATH": os.environ.get("PATH", os.defpath), **self.environment}
        processes.start(self.layout, "resolver", resolver, env=environment)
        command: list[str | Path] = ["pebble", "-config", self.config, "-dnsserver", f"127.0.0.1:{self.dns_port}"]
        processes.start(self.layout, "pebble", command, env=environment)
        processes.wait_until(self.layout, "pebble", self._answers, seconds=20)

    def stop(self) -> None:
        """Ends both; harmless when they do not run."""
        processes.stop(self.layout, "pebble")
        processes.stop(self.layout, "resolver")

    def log(self) -> str:
        """What pebble said."""
        return (self.layout.log / "pebble.log").read_text()

    def _answers(self) -> bool:
        try:
            fetch(("127.0.0.1", self.port), _HOSTNAME, self.ca_file, "/dir", seconds=1)
            urllib.request.urlopen(f"http://127.0.0.1:{self.dns_management_port}/", timeout=1)
        except (urllib.error.HTTPError, StackError):
            return True
        except OSError:
            return False
        return True


@contextmanager
def pebble(
    settings: Mapping[str, object] | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Pebble]:
    """A pebble that is gone afterwards; `settings` are its own, `environment` its PEBBLE_* variables."""
    folder = Path(tempfile.mkdtemp(prefix="mcp-acme"))
    layout = Layout(folder)
    layout.make()
    port, management, challenge, dns, dns_management = (free_port() for _ in range(5))
    made = Pebble(
        layout,
        port,
        management,
        challenge,
        dns,
        dns_management,
        folder / "pebble.json",
        {"PEBBLE_VA_NOSLEEP": "1"} | dict(environment or {}),
    )
    _configure(made, settings or {})
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)


def _configure(made: Pebble, settings: Mapping[str, object]) -> None:
    key_file, certificate_file = made.layout.root / "tls.key", made.layout.root / "tls.pem"
    ca = EmbeddedCa.open(made.layout.root / "ca", "pebble", utc_now)
    key = ec.generate_private_key(ec.SECP256R1())
    chain = ca.sign(_HOSTNAME, key, timedelta(days=1))
    key_file.write_bytes(private_pem(key))
    certificate_file.write_bytes(b"".join(link.public_bytes(Encoding.PEM) for link in chain))
    document = {
        "listenAddress": f"127.0.0.1:{made.port}",
        "managementListenAddress": f"127.0.0.1:{made.management_port}",
        "certificate": str(certificate_file),
        "privateKey": str(key_file),
        "httpPort": made.challenge_port,
        "tlsPort": free_port(),
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
        **settings,
    }
    made.config.write_text(json.dumps({"pebble": document}))
