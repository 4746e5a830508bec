"""What travels beside the messages: who calls, and which error came back."""

from collections.abc import Iterable
from typing import cast

ACTOR = "mcp-actor-bin"
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
