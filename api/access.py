"""Who may call, and what is known of those who did: one contract for the client, the server and the controller."""

from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Protocol

from pydantic import Field, StringConstraints

from api.model import Model

DEFAULT_RECORDS = 100

TokenName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._@-]{0,62}$")]


class Role(StrEnum):
    """What a caller may do; each may do all that the ones before it may."""

    VIEWER = "viewer"
    """Reads."""
    OPERATOR = "operator"
    """All but tokens and nodes."""
    ADMIN = "admin"

    def covers(self, needed: "Role") -> bool:
        """Whether who has this role may do what needs that one."""
        order = list(Role)
        return order.index(self) >= order.index(needed)


class How(StrEnum):
    """By what a caller was recognised."""

    SOCKET = "socket"
    """The Unix socket: whoever may open it may do everything."""
    TOKEN = "token"  # noqa: S105  # a kind, not a secret
    """A token that this agent made."""
    JWT = "jwt"
    MCIAS = "mcias"
    CERTIFICATE = "certificate"


class Identity(Model):
    """Whom the agent takes a caller for."""

    name: str
    role: Role
    how: How
    expires_at: datetime | None = None


class TokenRequest(Model):
    """A token that is to be made."""

    name: TokenName
    role: Role
    expires_at: datetime | None = None
    """None: never."""


class Token(Model):
    """What is known of a token: all but the token itself."""

    name: str
    role: Role
    created_by: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def holds(self, now: datetime) -> bool:
        """Whether it lets anybody in."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class AuditRecord(Model):
    """One call that wrote, or was refused."""

    id: int = 0
    """0 until it is written down."""
    at: datetime
    actor: str = ""
    """Empty where nobody knows who it was."""
    role: str = ""
    address: str
    """Where the call came from; `unix` for the socket."""
    how: str = ""
    method: str
    """Such as `mcp.v1.ControlPlaneService/ApplyService`."""
    service: str = ""
    generation: int = 0
    """The generation that the service has since then; 0 where it has none."""
    outcome: str
    """`OK`, or the name of the status code."""
    detail: str = ""


class AuditQuery(Model):
    """Which records are wanted."""

    service: str = ""
    """Empty: of all services, and of what concerns none."""
    actor: str = ""
    refused: bool = False
    """Only what did not end well."""
    limit: int = Field(default=DEFAULT_RECORDS, ge=0, le=10_000)
    """The newest so many; 0: 100."""


@dataclass(frozen=True, slots=True)
class MadeToken:
    """A new token, and the secret that nobody can tell again."""

    token: Token
    secret: str


class Access(Protocol):
    """What can be asked about access. All methods raise errors of api.errors."""

    async def create_token(self, request: TokenRequest, *, actor: str) -> MadeToken:
        """Makes a token. Raises Refused where one of that name is valid."""
        ...

    async def tokens(self) -> tuple[Token, ...]:
        """All of the node's tokens, by name, those that hold no more too."""
        ...

    async def revoke_token(self, name: str) -> Token:
        """Ends a token's validity. Raises NotFound."""
        ...

    async def audit(self, query: AuditQuery) -> tuple[AuditRecord, ...]:
        """The newest records, newest last."""
        ...


_CALLER: ContextVar[Identity | None] = ContextVar("caller", default=None)


def caller() -> Identity | None:
    """Who makes the call that this task answers; None where nobody stands at the door."""
    return _CALLER.get()


def set_caller(identity: Identity) -> None:
    """Says who makes the call that this task answers. Never undone: each call has a task of its own."""
    _CALLER.set(identity)
