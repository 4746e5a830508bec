"""What can be said of a node from here: whether its certificate is trusted, who one is there, and what time it is."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Final

from cryptography import x509

from api.access import Identity
from api.errors import McpError, Refused, Untrusted
from api.inspection import Finding, FindingState
from cli.config import Node

_CA_SOON: Final = timedelta(days=30)
_TOKEN_SOON: Final = timedelta(days=1)
_MOST_SKEW: Final = 30.0
"""Seconds; what agents forgive a JSON Web Token, unless they are told otherwise."""


def authority(node: Node) -> Iterator[Finding]:
    """The CA that the agent's certificate must lead to."""
    if node.ca_file is None or node.address.startswith("unix:"):
        return
    advice = "copy the node's CA anew: <state_dir>/ca/ca.pem"
    try:
        certificate = x509.load_pem_x509_certificate(Path(node.ca_file).read_bytes())
    except OSError as error:
        found = f"{node.ca_file} cannot be read: {error.strerror}"
        yield Finding(check="CA file", state=FindingState.PROBLEM, found=found, advice=advice)
        return
    except ValueError:
        found = f"{node.ca_file} holds no certificate in PEM"
        yield Finding(check="CA file", state=FindingState.PROBLEM, found=found, advice=advice)
        return
    end = certificate.not_valid_after_utc
    yield _ending("CA file", f"{node.ca_file}, until {end:%Y-%m-%d}", end - datetime.now(UTC), _CA_SOON, advice)


def kept(path: Path) -> Iterator[Finding]:
    """Whether others on this machine may read the token."""
    try:
        mode = path.stat().st_mode & 0o777
    except OSError:
        return
    if mode & 0o077:
        found, advice = (
            f"{path} can be read by others ({mode:04o})",
            f"chmod 600 {path}; if others are there: mcp login",
        )
        yield Finding(check="token file", state=FindingState.WARNING, found=found, advice=advice)


def identity(me: Identity) -> Finding:
    """Whom the agent takes the caller for, and for how long it will."""
    found = f"{me.name} ({me.role}, by {me.how})"
    if me.expires_at is None:
        return Finding(check="token", state=FindingState.OK, found=found)
    left = me.expires_at - datetime.now(UTC)
    advice = "mcp login, or ask for another token: what goes on when it ends is cut off"
    return _ending("token", f"{found}, until {me.expires_at:%Y-%m-%d %H:%M} UTC", left, _TOKEN_SOON, advice)


def versions(node: Node, theirs: str) -> Finding:
    """Whether both sides are of one version."""
    own = version("metacircular-mcp")
    if own == theirs:
        return Finding(check="agent", state=FindingState.OK, found=f"version {theirs} answers at {node.address}")
    found, advice = f"version {theirs}, and this command is {own}", "install the same version on both sides"
    return Finding(check="agent", state=FindingState.WARNING, found=found, advice=advice)


def clocks(there: datetime | None, took: float) -> Iterator[Finding]:
    """Whether both clocks agree; `there` was said at some moment of the last `took` seconds."""
    if there is None:
        return
    apart = (datetime.now(UTC) - there).total_seconds()
    surely = max(-apart, apart - took, 0.0)
    if surely <= _MOST_SKEW:
        yield Finding(
            check="clocks", state=FindingState.OK, found=f"the node's and this one's agree within {took:.1f} s"
        )
        return
    which = "behind" if apart > 0 else "ahead of"
    found = f"the node's clock is {surely:.0f} s {which} this one"
    advice = "have both kept, such as by chrony: tokens and certificates are judged by the time"
    yield Finding(check="clocks", state=FindingState.WARNING, found=found, advice=advice)


def stranger(node: Node, message: str) -> Finding:
    """The agent answers, and does not let the caller in."""
    advice = "mcp login, or ask for a token: mcp token create, by somebody whom the agent lets in"
    return Finding(check="token", state=FindingState.PROBLEM, found=f"{node.address}: {message}", advice=advice)


def unreachable(node: Node, error: McpError) -> Finding:
    """The agent does not answer, or not to the end."""
    advice = f"on the node: systemctl status mcp-agent; from here: is {node.address} the right address?"
    if isinstance(error, Refused):
        advice = "mend mcp.toml, or what it names: nobody was asked"
    if isinstance(error, Untrusted):
        advice = "copy <state_dir>/ca/ca.pem of the node, and name it as its ca_file in mcp.toml"
    return Finding(check="agent", state=FindingState.PROBLEM, found=error.message, advice=advice)


def _ending(check: str, found: str, left: timedelta, soon: timedelta, advice: str) -> Finding:
    if left > soon:
        return Finding(check=check, state=FindingState.OK, found=found)
    state = FindingState.WARNING if left > timedelta() else FindingState.PROBLEM
    return Finding(check=check, state=state, found=found, advice=advice)
