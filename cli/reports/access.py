"""Who calls, and who called."""

from datetime import datetime

from api.access import AuditRecord, Identity, Token
from api.model import Model
from cli.reports.common import Unasked


class LoginReport(Model):
    """`mcp login`"""

    user: str
    """Empty where nobody could say whose token was taken over."""
    token_file: str
    """Where the token is; the token itself is printed nowhere."""
    expires_at: datetime | None = None
    unchecked: str = ""
    """Why the node's agent could not be asked whether it lets in; empty: it does."""


class LogoutReport(Model):
    """`mcp logout`"""

    token_file: str
    removed: bool
    """Whether there was a token."""


class MadeTokenReport(Model):
    """`mcp token create`"""

    token: Token
    secret: str
    """Shown this once."""


class NodeToken(Token):
    """A token, and the node whose agent lets it in."""

    node: str
    """Empty where --address named the agent."""


class TokensReport(Model):
    """`mcp token list` and `mcp token revoke`"""

    tokens: tuple[NodeToken, ...]
    unasked: tuple[Unasked, ...] = ()


class NodeRecord(AuditRecord):
    """A line of the audit, and where it is kept."""

    node: str
    """Empty where --address named the agent."""


class AuditReport(Model):
    """`mcp audit`"""

    records: tuple[NodeRecord, ...]
    """The newest last."""
    unasked: tuple[Unasked, ...] = ()


class NodeIdentity(Identity):
    """Whom a node's agent takes the caller for."""

    node: str
    """Empty where --address named the agent."""


class WhoamiReport(Model):
    """`mcp whoami`"""

    identities: tuple[NodeIdentity, ...]
    unasked: tuple[Unasked, ...] = ()
