"""Recognises who logged in to MCIAS, by asking it. Its answers hold for half a minute; without any nobody gets in."""

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from api.access import How, Identity
from api.errors import Unauthenticated
from api.https import Server
from api.mcias import Account, Mcias
from controller.auth.authenticator import Credentials, role_of
from controller.auth.settings import MciasSettings
from controller.auth.tokens import PREFIX, sha256
from reconcilers.base import Clock

_REMEMBERED: Final = 1024
"""Answers, about tokens that hold and that do not."""

_AT_ONCE: Final = 8
"""Questions."""


@dataclass(frozen=True, slots=True)
class _Known:
    account: Account | None
    until: float
    """On the monotonic clock."""


class MciasTokens:
    """Asks MCIAS whose token that is. Implements controller.auth.authenticator.Authenticator."""

    def __init__(self, settings: MciasSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._mcias = Mcias(Server(settings.url, settings.ca_file, settings.timeout_seconds))
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._asking: dict[str, asyncio.Future[_Known]] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def identify(self, credentials: Credentials) -> Identity | None:
        """Whose token that is, as MCIAS said not long ago or says now."""
        token = credentials.token
        if not token or token.startswith(PREFIX):
            return None
        key = sha256(token)
        known = self._recall(key)
        if known is None:
            if credentials.known_only:
                return None
            known = await self._ask(key, token)
        account = known.account
        if account is None:
            return None
        if account.expires_at is not None and account.expires_at <= self._clock():
            raise Unauthenticated(f"the token of {account.name} expired: mcp login")
        roles = (role for role in account.roles if role != "guest")
        role = role_of(account.name, roles, self._settings.roles)
        return Identity(name=account.name, role=role, how=How.MCIAS, expires_at=account.expires_at)

    def _recall(self, key: str) -> _Known | None:
        known = self._known.get(key)
        if known is None or known.until <= time.monotonic():
            return None
        self._known.move_to_end(key)
        return known

    async def _ask(self, key: str, token: str) -> _Known:
        """What MCIAS says now; asked once by all who want to know at the same time."""
        asked = self._asking.get(key)
        if asked is None:
            asked = self._asking[key] = asyncio.ensure_future(self._answer(key, token))
            asked.add_done_callback(lambda done: self._answered(key, done))
        return await asyncio.shield(asked)

    def _answered(self, key: str, done: asyncio.Future[_Known]) -> None:
        del self._asking[key]
        if not done.cancelled():
            # Looked at, so that it is nobody's defect where all who asked have gone.
            done.exception()

    async def _answer(self, key: str, token: str) -> _Known:
        async with self._turns:
            account = await asyncio.to_thread(self._mcias.validate, token)
        known = _Known(account, time.monotonic() + self._settings.cache_seconds)
        self._known[key] = known
        self._known.move_to_end(key)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return known
