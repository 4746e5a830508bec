"""Tokens that the agent makes itself: 256 random bits, of which it keeps only a hash."""

import hashlib
import secrets
from typing import Final

from api.access import How, Identity, MadeToken, Token, TokenRequest
from api.errors import InvalidSpec, Unauthenticated
from controller.auth.authenticator import Credentials
from controller.registry import Registry
from reconcilers.base import Clock

PREFIX: Final = "mcp_"
"""By which they are recognised, here and by programs that look for secrets where none should be."""

_BYTES: Final = 32


class LocalTokens:
    """Makes tokens and recognises who shows one. Implements controller.auth.authenticator.Authenticator."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._doors = registry.doors
        self._clock = clock

    async def create(self, request: TokenRequest, *, actor: str) -> MadeToken:
        """Makes a token. Raises Refused where one of that name holds, InvalidSpec where it would never hold."""
        now = self._clock()
        if request.expires_at is not None and request.expires_at <= now:
            raise InvalidSpec("expires_at", "lies in the past")
        secret = f"{PREFIX}{secrets.token_urlsafe(_BYTES)}"
        token = Token(
            name=request.name, role=request.role, created_by=actor, created_at=now, expires_at=request.expires_at
        )
        await self._doors.add_token(token, sha256(secret))
        return MadeToken(token, secret)

    async def identify(self, credentials: Credentials) -> Identity | None:
        """Whose token that is; read anew each time, so that a revoked one ends at once."""
        if not credentials.token.startswith(PREFIX):
            return None
        # Looked up by its hash, so that how long it takes tells nothing of the tokens there are.
        token = await self._doors.token(sha256(credentials.token))
        if token is None:
            return None
        if token.revoked_at is not None:
            raise Unauthenticated(f'the token "{token.name}" was revoked: ask for another')
        if not token.holds(self._clock()):
            raise Unauthenticated(f'the token "{token.name}" expired on {token.expires_at:%Y-%m-%d}: ask for another')
        return Identity(name=token.name, role=token.role, how=How.TOKEN, expires_at=token.expires_at)


def sha256(secret: str) -> str:
    """The hash that stands for a token; its 256 random bits need no salt and no slowness."""
    return hashlib.sha256(secret.encode()).hexdigest()
