"""Tokens of an issuer are verified by its keys, whatever kind these are of, and nothing less than that lets in."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api.access import How, Role
from api.errors import Forbidden, Refused, Unauthenticated, Unreachable
from controller.auth.authenticator import Credentials
from controller.auth.jwts import Jwts, Keys
from controller.auth.settings import JwtSettings
from stack import https

ISSUER = "https://id.example"
RSA = rsa.generate_private_key(65537, 2048)
KINDS: dict[str, Any] = {
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "RS256": RSA,
    "PS512": RSA,
}


def claims(**more: Any) -> dict[str, Any]:
    return {"iss": ISSUER, "aud": "mcp", "sub": "ann", "exp": time.time() + 60, "roles": ["staff"]} | more


def jwk(key: Any, algorithm: str, kid: str) -> dict[str, Any]:
    return {
        **jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True),
        "kid": kid,
        "alg": algorithm,
        "use": "sig",
    }


def public_pem(key: Any) -> bytes:
    data: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return data


@dataclass
class Issuer:
    """Its keys, and how often it was asked for them."""

    folder: Path
    keys: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0
    status: int = 200
    url: str = ""

    def answer(self, path: str, token: str, body: Any) -> tuple[int, dict[str, Any]]:
        self.asked += 1
        return self.status, {"keys": self.keys}

    def jwts(self, clock: Any = time.monotonic, **more: Any) -> Jwts:
        place = {"jwks_url": f"{self.url}/jwks", "ca_file": str(self.folder / "ca.pem")}
        settings = settings_of(**place, **more)
        return Jwts(settings, Keys(settings, clock))


def settings_of(**more: Any) -> JwtSettings:
    known = {"issuer": ISSUER, "audience": "mcp", "roles": ["staff:operator", "boss:admin"]}
    return JwtSettings.model_validate(known | more)


def with_file(path: Path, data: bytes, **more: Any) -> Jwts:
    path.write_bytes(data)
    settings = settings_of(key_file=str(path), **more)
    return Jwts(settings, Keys(settings))


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[Issuer]:
    issuer = Issuer(tmp_path / "issuer")
    with https.serving(issuer.folder, issuer.answer) as issuer.url:
        yield issuer


@pytest.mark.parametrize("algorithm", KINDS)
async def test_each_kind_of_key_serves_from_a_url_and_from_a_file(
    issuer: Issuer, tmp_path: Path, algorithm: str
) -> None:
    key = KINDS[algorithm]
    issuer.keys = [jwk(KINDS["EdDSA"], "EdDSA", "other"), jwk(key, algorithm, "k1"), {"kty": "oct", "k": "eA"}]
    token = jwt.encode(claims(), key, algorithm, headers={"kid": "k1"})
    found = await issuer.jwts().identify(Credentials(token))
    assert found is not None
    assert (found.name, found.role, found.how) == ("ann", Role.OPERATOR, How.JWT)
    assert found.expires_at is not None
    assert await with_file(tmp_path / "k.pem", public_pem(key)).identify(Credentials(token)) == found
    assert await with_file(tmp_path / "k.jwk", json.dumps(jwk(key, algorithm, "k1")).encode()).identify(
        Credentials(token)
    )


def signed(**more: Any) -> str:
    return jwt.encode(claims(**more), KINDS["ES256"], "ES256")


def by_the_public_key_as_a_secret() -> str:
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")
    body = base64.urlsafe_b64encode(json.dumps(claims()).encode()).rstrip(b"=")
    proof = hmac.new(public_pem(KINDS["ES256"]), header + b"." + body, hashlib.sha256).digest()
    return b".".join((header, body, base64.urlsafe_b64encode(proof).rstrip(b"="))).decode()


def without(claim: str) -> str:
    return jwt.encode({k: v for k, v in claims().items() if k != claim}, KINDS["ES256"], "ES256")


WRONG = {
    "another audience": lambda: signed(aud="other"),
    "no audience": lambda: without("aud"),
    "another issuer": lambda: signed(iss="https://evil.example"),
    "no end": lambda: without("exp"),
    "not yet": lambda: signed(nbf=time.time() + 600),
    "another key": lambda: jwt.encode(claims(), ec.generate_private_key(ec.SECP256R1()), "ES256"),
    "no signature": lambda: jwt.encode(claims(), None, "none"),
    "a signature by the public key": by_the_public_key_as_a_secret,
    "a changed body": lambda: ".".join(
        (signed().split(".")[0], signed(sub="root").split(".")[1], signed().split(".")[2])
    ),
    "no name": lambda: without("sub"),
    "a name that is none": lambda: signed(sub=""),
    "a name without end": lambda: signed(sub="x" * 1000),
    "no token": lambda: "a.b.c",
    "nothing": lambda: "",
    "far too much": lambda: signed(more="x" * 20_000),
}


@pytest.mark.parametrize("kind", WRONG)
async def test_what_proves_nothing_lets_nobody_in(tmp_path: Path, kind: str) -> None:
    jwts = with_file(tmp_path / "key.pem", public_pem(KINDS["ES256"]))
    assert await jwts.identify(Credentials(signed())) is not None
    assert await jwts.identify(Credentials(WRONG[kind]())) is None


async def test_an_end_holds_but_for_the_leeway(tmp_path: Path) -> None:
    jwts = with_file(tmp_path / "key.pem", public_pem(KINDS["ES256"]), leeway_seconds=10)
    assert await jwts.identify(Credentials(signed(exp=time.time() - 5))) is not None
    with pytest.raises(Unauthenticated, match="expired"):
        await jwts.identify(Credentials(signed(exp=time.time() - 15)))


async def test_roles_are_found_where_the_settings_say(tmp_path: Path) -> None:
    async def role(jwts: Jwts, **more: Any) -> Role | None:
        found = await jwts.identify(Credentials(signed(**more)))
        return found.role if found else None

    jwts = with_file(tmp_path / "key.pem", public_pem(KINDS["ES256"]))
    assert await role(jwts, roles=["boss", "staff"]) is Role.ADMIN
    assert await role(jwts, roles="x staff") is Role.OPERATOR
    for none in (["else"], {}, 7, None, [["boss"]]):
        with pytest.raises(Forbidden, match="ann has no role here"):
            await role(jwts, roles=none)
    inner = with_file(tmp_path / "key.pem", public_pem(KINDS["ES256"]), role_claim="realm_access.roles")
    assert await role(inner, realm_access={"roles": ["staff"]}) is Role.OPERATOR
    flat = with_file(tmp_path / "key.pem", public_pem(KINDS["ES256"]), role_claim="https://x.example/groups")
    assert await role(flat, **{"https://x.example/groups": ["staff"]}) is Role.OPERATOR
    named = with_file(tmp_path / "key.pem", public_pem(KINDS["ES256"]), name_claim="email")
    found = await named.identify(Credentials(signed(email="ann@example")))
    assert found is not None
    assert found.name == "ann@example"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_new_key_is_asked_for_when_it_signs_and_not_too_often(issuer: Issuer) -> None:
    clock = Clock()
    jwts = issuer.jwts(clock)
    old, new = KINDS["EdDSA"], KINDS["ES256"]
    issuer.keys = [jwk(old, "EdDSA", "old")]
    first = Credentials(jwt.encode(claims(), old, "EdDSA", headers={"kid": "old"}))
    second = Credentials(jwt.encode(claims(), new, "ES256", headers={"kid": "new"}))
    assert await jwts.identify(first) is not None
    issuer.keys = [jwk(new, "ES256", "new")]
    for _ in range(5):
        assert await jwts.identify(second) is None
    assert issuer.asked == 1
    clock.now = 31
    assert all(await asyncio.gather(*(jwts.identify(second) for _ in range(5))))
    assert issuer.asked == 2
    assert await jwts.identify(first) is None
    clock.now = 31 + 3601
    assert await jwts.identify(second) is not None
    assert issuer.asked == 3


async def test_a_key_that_is_known_outlives_an_issuer_that_is_not_there(issuer: Issuer) -> None:
    clock = Clock()
    jwts = issuer.jwts(clock)
    issuer.keys = [jwk(KINDS["ES256"], "ES256", "k")]
    known = Credentials(jwt.encode(claims(), KINDS["ES256"], "ES256", headers={"kid": "k"}))
    assert await jwts.identify(known) is not None
    issuer.status = 503
    issuer.keys = []
    clock.now = 4000
    assert await jwts.identify(known) is not None


async def test_without_the_issuers_keys_nobody_is_let_in(tmp_path: Path) -> None:
    settings = settings_of(jwks_url="https://localhost:1/jwks")
    jwts = Jwts(settings, Keys(settings))
    with pytest.raises(Unreachable, match="nobody can say who you are now"):
        await jwts.identify(Credentials(signed()))
    assert await jwts.identify(Credentials(signed(), known_only=True)) is None


@pytest.mark.parametrize(
    "data", [b"", b"-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----", b"{}", b"[]", b'{"kty":"oct","k":"eA"}']
)
def test_a_file_without_a_key_is_one_sentence(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(Refused, match=r"jwt\.key_file: .* holds no public key"):
        with_file(tmp_path / "k", data)
    with pytest.raises(Refused, match=r"jwt\.key_file: .* cannot be read"):
        Keys(settings_of(key_file=str(tmp_path / "none")))
