"""What travels beside the messages: who calls, and which error came back."""

import re
from collections.abc import Iterable
from typing import cast

from api.errors import Refused

ACTOR = "mcp-actor-bin"
CREDENTIALS = "authorization"
ERROR = "mcp-error"
FIELD = "mcp-field-bin"


def read(metadata: object, key: str) -> str:
    """The value under `key` as text; empty where there is none.

    `metadata` is what gRPC hands out: None, or an iterable of pairs. Its stubs
    disagree with each other about the type.
    """
    pairs = cast("Iterable[tuple[str, str | bytes]]", metadata or ())
    value = dict(pairs).get(key, "")
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def bearer(token: str) -> str:
    """How a token travels (RFC 6750). Raises Refused for what is none."""
    if not re.fullmatch(r"[A-Za-z0-9._~+/=-]+", token):
        raise Refused("the token holds what no token does: log in again")
    return f"Bearer {token}"


def token(metadata: object) -> str:
    """The bearer token of a call; empty where there is none."""
    scheme, _, value = read(metadata, CREDENTIALS).partition(" ")
    return value.strip() if scheme.lower() == "bearer" else ""
