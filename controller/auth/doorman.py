"""Says who calls: by the socket they came through, or by what they show. Who is not known is not let in."""

import asyncio
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

from api import metadata
from api.access import How, Identity, Role
from api.errors import Forbidden, McpError, TooMany, Unauthenticated
from api.server import Context
from controller.auth.authenticator import Authenticator, Credentials
from controller.auth.throttle import Throttle
from reconcilers.base import Clock

SOCKET: Final = "unix"
"""The address of who came through the Unix socket."""

_LONGEST_NAME: Final = 200

_TLS: Final = b"TLSv1.3"


class Doorman:
    """Asks the authenticators, in their order."""

    def __init__(self, authenticators: Sequence[Authenticator], recheck_seconds: float, clock: Clock) -> None:
        self._authenticators = authenticators
        self._recheck_seconds = recheck_seconds
        self._clock = clock
        self._throttle = Throttle()

    async def identify(self, context: Context) -> Identity:
        """Who calls. Raises Unauthenticated, Forbidden, TooMany, and Unreachable where nobody can say."""
        address = address_of(context)
        if address == SOCKET:
            actor = metadata.read(context.invocation_metadata(), metadata.ACTOR)
            return Identity(name=actor[:_LONGEST_NAME] or "unknown", role=Role.ADMIN, how=How.SOCKET)
        with self._throttle.asking(address) as may_ask:
            credentials = self._credentials(context, known_only=not may_ask)
            try:
                identity = await self._ask(credentials)
            except (Unauthenticated, Forbidden):
                self._throttle.failed(address)
                raise
        if identity is not None:
            return identity
        if credentials.known_only:
            raise TooMany(f"too many come from {address}, or were nobody we know: try again in a minute")
        self._throttle.failed(address)
        if not credentials.token:
            raise Unauthenticated("who are you? Log in with mcp login, or ask for a token")
        raise Unauthenticated("the token is nobody's here: log in again with mcp login, or ask for a token")

    async def until_refused(self, identity: Identity, context: Context) -> McpError:
        """Why `identity` is let in no longer, once that is so; it is looked at every few seconds, and at its end."""
        while True:
            left = self._recheck_seconds
            if identity.expires_at is not None:
                left = min(left, max(0.0, (identity.expires_at - self._clock()).total_seconds()))
            await asyncio.sleep(left)
            if identity.expires_at is not None and identity.expires_at <= self._clock():
                return Unauthenticated("what let you in has expired meanwhile: log in again")
            try:
                now = await self._ask(self._credentials(context, known_only=False))
            except McpError as error:
                return error
            if now is None or (now.name, now.role, now.how) != (identity.name, identity.role, identity.how):
                return Unauthenticated("what let you in does not hold any more: log in again")
            identity = now

    async def _ask(self, credentials: Credentials) -> Identity | None:
        for authenticator in self._authenticators:
            identity = await authenticator.identify(credentials)
            if identity is not None:
                return identity
        return None

    def _credentials(self, context: Context, known_only: bool) -> Credentials:
        proven = context.auth_context()
        # The handshake refuses older versions already; required for correctness where somebody's key is an RSA key.
        if list(proven.get("ssl_tls_version", [])) != [_TLS]:
            raise Unauthenticated("this door opens to TLS 1.3 alone")
        names = list(proven.get("x509_common_name", [])) or [b""]
        return Credentials(
            token=metadata.token(context.invocation_metadata()),
            common_name=names[0].decode(errors="replace"),
            known_only=known_only,
        )


def address_of(context: Context) -> str:
    """Where the call comes from: an IP address, or `unix`."""
    family, _, rest = unquote(context.peer()).partition(":")
    return SOCKET if family == SOCKET else rest.rpartition(":")[0].strip("[]")
