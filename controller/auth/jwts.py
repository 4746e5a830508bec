"""Recognises who shows a JSON Web Token that an issuer of our choice signed (RFC 7519, 7517; OpenID Connect)."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.exceptions import PyJWTError

from api.access import How, Identity
from api.errors import Refused, Unauthenticated, Unreachable
from api.https import NoAnswer, Server
from controller.auth.authenticator import Credentials, role_of
from controller.auth.settings import JwtSettings

_ALGORITHMS: Final = (
    *("EdDSA", "ES256", "ES384", "ES512"),
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
)
"""Of key pairs alone: a public key must never serve as a shared secret."""

_LONGEST: Final = 16 * 1024
"""Characters of a token."""

_LONGEST_NAME: Final = 200

_END_OF_TIME: Final = 253_402_300_799
"""The last second that a datetime can say."""

_ASK_AGAIN: Final = 30.0
"""Seconds between two questions for keys, however many unknown ones are named."""


class Keys:
    """The issuer's public keys by their ids: of a file, or of a URL that is asked again when a new one signs."""

    def __init__(self, settings: JwtSettings, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Reads the file. Raises Refused where it holds no public key."""
        self._server = Server(settings.jwks_url, settings.ca_file, settings.timeout_seconds)
        self._refresh = settings.refresh_seconds
        self._monotonic = monotonic
        self._only = _key_of(settings.key_file) if settings.key_file else None
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._asked = -float("inf")
        self._turn = asyncio.Lock()

    async def key(self, kid: str | None, *, ask: bool = True) -> Any:
        """The key with that id, or the only one there is; None for none. Raises Unreachable."""
        if self._only is not None:
            return self._only
        if ask and (self._find(kid) is None or self._is_due(kid)):
            # Whoever comes while another asks waits for the same answer.
            async with self._turn:
                if self._is_due(kid):
                    await self._fetch(kid)
        return self._find(kid)

    def _is_due(self, kid: str | None) -> bool:
        age = self._monotonic() - self._asked
        return age >= self._refresh or (self._find(kid) is None and age >= min(_ASK_AGAIN, self._refresh))

    def _find(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid)

    async def _fetch(self, kid: str | None) -> None:
        self._asked = self._monotonic()
        try:
            answer = await asyncio.to_thread(self._server.ask)
            if answer.status != HTTPStatus.OK:
                raise NoAnswer(f"{self._server.url} answered {answer.status}")  # noqa: TRY301  # it is one
        except NoAnswer as error:
            # A key that is known does not end with the issuer's illness.
            if self._find(kid) is None:
                raise Unreachable(f"nobody can say who you are now: {error}") from error
            return
        self._keys = {key.key_id: key for key in _usable(answer.body)}


class Jwts:
    """Verifies tokens of one issuer. Implements controller.auth.authenticator.Authenticator."""

    def __init__(self, settings: JwtSettings, keys: Keys) -> None:
        self._settings = settings
        self._keys = keys

    async def identify(self, credentials: Credentials) -> Identity | None:
        """Whose token that is. One of another issuer is none of ours."""
        token, settings = credentials.token, self._settings
        if len(token) > _LONGEST or token.count(".") != 2 or _claimed(token).get("iss") != settings.issuer:
            return None
        key = await self._keys.key(_kid(token), ask=not credentials.known_only)
        if key is None:
            return None
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=list(_ALGORITHMS),
                issuer=settings.issuer,
                audience=settings.audience,
                leeway=settings.leeway_seconds,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the token expired: log in again") from None
        except (PyJWTError, ValueError, TypeError):
            return None
        return self._identity(claims)

    def _identity(self, claims: Mapping[str, Any]) -> Identity | None:
        name = _inner(claims, self._settings.name_claim)
        if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
            return None
        theirs = _inner(claims, self._settings.role_claim)
        roles = theirs.split() if isinstance(theirs, str) else map(str, theirs if isinstance(theirs, list) else ())
        role = role_of(name, roles, self._settings.roles)
        expires_at = datetime.fromtimestamp(min(int(claims["exp"]), _END_OF_TIME), UTC)
        return Identity(name=name, role=role, how=How.JWT, expires_at=expires_at)


def _claimed(token: str) -> Mapping[str, Any]:
    """What the token says of itself; nothing of it is proven yet."""
    try:
        claims: Mapping[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except (PyJWTError, ValueError, RecursionError):
        return {}
    return claims


def _kid(token: str) -> str | None:
    kid = jwt.get_unverified_header(token).get("kid")
    return kid if isinstance(kid, str) else None


def _inner(claims: Mapping[str, Any], path: str) -> Any:
    """The claim of that name, or where its dots lead: `realm_access.roles`."""
    found: Any = claims
    if path in claims:
        return claims[path]
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _usable(document: Mapping[str, Any]) -> list[jwt.PyJWK]:
    """The keys that sign and that we know how to use; others may be there for other purposes."""
    found = []
    entries = document.get("keys")
    for entry in entries if isinstance(entries, list) else ():
        with suppress(PyJWTError, ValueError, TypeError):
            found.append(_jwk(entry))
    return found


def _jwk(entry: Any) -> jwt.PyJWK:
    """A public key that signs. Raises ValueError, TypeError, PyJWTError."""
    if not isinstance(entry, dict) or entry.get("kty") not in ("OKP", "EC", "RSA"):
        raise ValueError("it is no JWK of a key pair")
    if entry.get("use", "sig") != "sig":
        raise ValueError("it does not sign")
    return jwt.PyJWK.from_dict(entry)


def _key_of(path: str) -> Any:
    """The public key in a file: PEM, or a JWK. Raises Refused."""
    try:
        data = Path(path).read_bytes()
        return load_pem_public_key(data) if b"-----BEGIN" in data else _jwk(json.loads(data))
    except OSError as error:
        raise Refused(f"jwt.key_file: {path} cannot be read: {error.strerror}") from error
    except (ValueError, PyJWTError, TypeError) as error:
        raise Refused(f"jwt.key_file: {path} holds no public key, neither as PEM nor as JWK: {error}") from error
