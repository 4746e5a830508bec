"""The seam between the door and those who know people: one protocol, however they are recognised."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from api.access import Identity, Role
from api.errors import Forbidden


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a caller shows."""

    token: str = ""
    common_name: str = ""
    """Of a certificate that TLS has verified; empty: none was shown."""
    known_only: bool = False
    """Answer from what is known; ask nobody: too many that came from there were nobody's."""


class Authenticator(Protocol):
    """One way to recognise callers."""

    async def identify(self, credentials: Credentials) -> Identity | None:
        """Who shows these; None where they are nothing that this way knows.

        Raises Unauthenticated where they are of its kind but do not hold any
        more, Forbidden where their owner has no role here, and Unreachable
        where it cannot be found out: then nobody is let in.
        """
        ...


def role_of(name: str, theirs: Iterable[str], mapping: Iterable[str]) -> Role:
    """The highest role that the names `theirs` stand for, by `their name:role here`. Raises Forbidden for none."""
    there = set(theirs)
    meant = {entry.rpartition(":")[0]: Role(entry.rpartition(":")[2]) for entry in mapping}
    found = [role for role in Role if any(meant.get(one) is role for one in there)]
    if not found:
        raise Forbidden(
            f"{name} has no role here: whoever sets up this agent says which role of theirs stands for what"
        )
    return found[-1]
