"""The settings of the door."""

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from api.access import Role
from api.model import Model
from controller.values import MaybePath, Seconds, https, listed, or_empty


def _mapping(value: str) -> str:
    name, _, role = value.rpartition(":")
    if not name or role not in list(Role):
        raise ValueError(f'is not a name and one of the roles {", ".join(Role)}, such as "staff:operator"')
    return value


def _mcias_mapping(value: str) -> str:
    if value.startswith("guest:"):
        raise ValueError("lets guests in, and they are refused always")
    return _mapping(value)


Roles = Annotated[tuple[Annotated[str, AfterValidator(_mapping)], ...], BeforeValidator(listed)]
"""What a name elsewhere stands for here, as `name:role`."""

MciasRoles = Annotated[tuple[Annotated[str, AfterValidator(_mcias_mapping)], ...], BeforeValidator(listed)]


class AuthSettings(Model):
    """Who is let in over TCP."""

    tokens: bool = Field(default=True, description="Tokens that this agent made let in.")
    client_ca_file: MaybePath = Field(
        default="", description="PEM of a CA: each caller over TCP must show a certificate of its; empty: none need to."
    )
    certificates: Roles = Field(
        default=(), description="`common name:role` of certificates that let in without a token."
    )
    recheck_seconds: Seconds = Field(
        default=5.0, description="So often it is looked whether the caller of an open stream is still let in."
    )


class MciasSettings(Model):
    """MCIAS."""

    url: Annotated[str, or_empty(https)] = Field(default="", description="Where it is; empty: nobody is asked of it.")
    ca_file: MaybePath = Field(
        default="", description="PEM that its TLS certificate leads to; empty: what this host trusts."
    )
    roles: MciasRoles = Field(
        default=("admin:admin", "user:operator"),
        description="`role of MCIAS:role here`. Who has none of them is refused, and guests always are.",
    )
    cache_seconds: float = Field(
        default=30.0, gt=0, le=30, description="So long an answer holds, and an account that was closed gets in."
    )
    timeout_seconds: Seconds = Field(default=5.0, description="Of one question; without an answer nobody is let in.")


class JwtSettings(Model):
    """JSON Web Tokens of any issuer, such as an OpenID Connect provider."""

    issuer: str = Field(default="", description="What `iss` says; empty: JWTs let nobody in.")
    audience: str = Field(default="", description="What `aud` has to name.")
    jwks_url: Annotated[str, or_empty(https)] = Field(
        default="", description="The issuer's keys, asked for again when a new one signs."
    )
    key_file: MaybePath = Field(default="", description="Instead of that, the one public key: PEM, or a JWK.")
    ca_file: MaybePath = Field(
        default="", description="PEM that the URL's TLS certificate leads to; empty: what this host trusts."
    )
    name_claim: str = Field(default="sub", min_length=1, description="The claim that names the caller.")
    role_claim: str = Field(
        default="roles", min_length=1, description="The claim with the caller's roles or groups; dots lead inward."
    )
    roles: Roles = Field(default=(), description="`role or group there:role here`. Who has none of them is refused.")
    leeway_seconds: float = Field(default=30.0, ge=0, le=300, description="By which clocks may differ.")
    refresh_seconds: Seconds = Field(default=3600.0, description="So often the keys are asked for anyway.")
    timeout_seconds: Seconds = Field(default=5.0, description="Of one question.")


class AuditSettings(Model):
    """What is kept of who wrote, and who was refused."""

    keep_days: float = Field(default=365.0, gt=0, le=36500, description="Older records are dropped.")
    keep_refused: int = Field(
        default=100_000,
        ge=1,
        description="So many refused or failed calls are kept, the newest: anybody can make some.",
    )
