"""What an issuer outside the agent was asked for, on disk: open orders, and which certificates came of them.

One file a hostname, for nobody else to read. It is how an agent that was
killed in the middle of an order goes on with it, and how it knows its own
certificates when the registry is lost.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from pydantic import ValidationError

from api.model import Model
from reconcilers.certs.files import Content, Files, read

log = structlog.get_logger("certs")

_SUFFIX = ".json"


class Entry(Model):
    """What is known of one hostname."""

    order: str = ""
    """URL of the order that is open, or whose certificate is not in its place yet."""
    body: Mapping[str, Any] = {}
    """The order as the server last gave it (RFC 8555, section 7.1.3)."""
    key: str = ""
    """The certificate's private key, in PEM, for as long as the order is needed."""
    fingerprints: tuple[str, ...] = ()
    """SHA-256 of the DER of the certificate issued last, and of the one before, which serves until that is in place."""


class Ledger:
    """The entries of one issuer, below a folder of its own."""

    def __init__(self, folder: Path) -> None:
        """Reads what is there; what is damaged counts as absent. Blocks. Raises OSError."""
        self._folder = folder
        self._files = Files()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._entries = {path.name.removesuffix(_SUFFIX): _read(path) for path in folder.glob(f"[!.]*{_SUFFIX}")}

    def entry(self, hostname: str) -> Entry:
        """What is known of the hostname."""
        return self._entries.get(hostname, Entry())

    def note(self, hostname: str, **changes: object) -> Entry:
        """Changes what is known of the hostname, and makes it last. Blocks. Raises OSError."""
        entry = self.entry(hostname).model_copy(update=changes)
        if entry != self._entries.get(hostname):
            path = self._folder / f"{hostname}{_SUFFIX}"
            self._files.replace([Content(path, entry.model_dump_json().encode(), 0o600)])
            self._entries[hostname] = entry
        return entry

    def note_issued(self, hostname: str, leaf: x509.Certificate) -> None:
        """Knows the certificate from now on. Blocks. Raises OSError."""
        known, new = self.entry(hostname).fingerprints, fingerprint_of(leaf)
        self.note(hostname, fingerprints=known if new in known else (new, *known[:1]))

    def close_order(self, hostname: str) -> None:
        """The order is over: its key is in its place, or of no use. Blocks. Raises OSError."""
        if hostname in self._entries:
            self.note(hostname, order="", body={}, key="")

    def issued(self, leaf: x509.Certificate) -> bool:
        """Whether this certificate is one of the last two of some hostname."""
        fingerprint = fingerprint_of(leaf)
        # Threads add to it meanwhile.
        return any(fingerprint in entry.fingerprints for entry in list(self._entries.values()))


def fingerprint_of(leaf: x509.Certificate) -> str:
    """SHA-256 of its DER, hexadecimal."""
    return leaf.fingerprint(hashes.SHA256()).hex()


def _read(path: Path) -> Entry:
    try:
        return Entry.model_validate_json(read(path) or b"")
    except ValidationError:
        log.warning("damaged", file=str(path))
        return Entry()
