"""Puts the door together as the settings say, and says where they leave it without anybody who knows people."""

from api.access import Access, AuditQuery, AuditRecord, MadeToken, Token, TokenRequest
from api.errors import Refused
from controller.auth.audit import Audit
from controller.auth.authenticator import Authenticator
from controller.auth.certificates import Certificates
from controller.auth.doorman import Doorman
from controller.auth.gate import Gate
from controller.auth.jwts import Jwts, Keys
from controller.auth.mcias import MciasTokens
from controller.auth.methods import METHODS
from controller.auth.tokens import LocalTokens
from controller.registry import Registry, utc_now
from controller.settings import Settings


class LocalAccess:
    """Access to this node; implements api.access.Access."""

    def __init__(self, registry: Registry, tokens: LocalTokens) -> None:
        self._doors = registry.doors
        self._tokens = tokens

    async def create_token(self, request: TokenRequest, *, actor: str) -> MadeToken:
        """Makes a token."""
        return await self._tokens.create(request, actor=actor)

    async def tokens(self) -> tuple[Token, ...]:
        """All tokens, by name."""
        return await self._doors.tokens()

    async def revoke_token(self, name: str) -> Token:
        """Ends a token's validity."""
        return await self._doors.revoke_token(name)

    async def audit(self, query: AuditQuery) -> tuple[AuditRecord, ...]:
        """The newest records."""
        return await self._doors.audit(query)


class Door:
    """The gate before every method, and what can be asked of who passes it."""

    def __init__(self, gate: Gate, access: Access) -> None:
        self.gate = gate
        self.access = access


async def open_door(settings: Settings, registry: Registry) -> Door:
    """The door that the settings describe. Raises Refused, RegistryUnavailable."""
    check(settings)
    tokens = LocalTokens(registry, utc_now)
    doorman = Doorman(_authenticators(settings, tokens), settings.auth.recheck_seconds, utc_now)
    audit = Audit(registry, settings.audit)
    await audit.prune()
    gate = Gate(METHODS, doorman, audit, utc_now, calls_per_caller=settings.api.max_calls_per_caller)
    return Door(gate, LocalAccess(registry, tokens))


def check(settings: Settings) -> None:
    """Raises Refused where the settings cannot make a door."""
    jwt, auth = settings.jwt, settings.auth
    if jwt.issuer:
        if not jwt.audience:
            raise Refused("jwt.audience is missing: without it a token for anybody else would open this door")
        if bool(jwt.jwks_url) == bool(jwt.key_file):
            raise Refused("[jwt] needs one of jwks_url and key_file: where the issuer's keys are")
        if not jwt.roles:
            raise Refused('[jwt] needs roles, such as ["staff:operator"]: without them nobody would be let in')
    if auth.certificates and not auth.client_ca_file:
        raise Refused("auth.client_ca_file is missing: without it nobody is asked for a certificate")
    if settings.api.listen and not (auth.tokens or jwt.issuer or settings.mcias.url or auth.certificates):
        raise Refused("api.listen: nobody could come in: say auth.tokens, [mcias], [jwt] or auth.certificates")


def _authenticators(settings: Settings, tokens: LocalTokens) -> list[Authenticator]:
    found: list[Authenticator] = []
    if settings.auth.certificates:
        found.append(Certificates(settings.auth))
    if settings.auth.tokens:
        found.append(tokens)
    if settings.jwt.issuer:
        found.append(Jwts(settings.jwt, Keys(settings.jwt)))
    if settings.mcias.url:
        found.append(MciasTokens(settings.mcias, utc_now))
    return found
