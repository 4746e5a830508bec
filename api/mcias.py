"""MCIAS' REST interface: the paths and fields are those of its client libraries' documentation, and all here."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from api.errors import Forbidden, Unauthenticated, Unreachable
from api.https import Answer, NoAnswer, Server

_SERVICE: Final = "mcp"


@dataclass(frozen=True, slots=True)
class Account:
    """Whose token it is."""

    name: str
    roles: tuple[str, ...]
    expires_at: datetime | None


class Mcias:
    """Asks an MCIAS. Every method blocks, and raises Unreachable."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def login(self, username: str, password: str, totp_code: str = "") -> tuple[str, datetime | None]:
        """A token and when it expires. Raises Unauthenticated, Forbidden."""
        body = {"username": username, "password": password, "service_name": _SERVICE, "tags": []}
        answer = self._ask("/v1/auth/login", body=body | ({"totp_code": totp_code} if totp_code else {}))
        match answer.status:
            case 200 if isinstance(token := answer.body.get("token"), str) and token.strip():
                return token.strip(), _time(answer.body.get("expires_at"))
            case 401:
                raise Unauthenticated(
                    f"{self._server.url} knows no such user and password; where the account has a second factor,"
                    " give it with --totp"
                )
            case 403:
                raise Forbidden(f"{self._server.url} does not let {username} log in to {_SERVICE}")
        raise self._unexpected(answer)

    def validate(self, token: str) -> Account | None:
        """Whose token it is; None where it is nobody's, or does not hold any more."""
        answer = self._ask("/v1/token/validate", token=token)
        match answer.status, answer.body.get("valid"):
            case (401, _) | (200, False):
                return None
            case 200, True:
                return self._account(answer)
        raise self._unexpected(answer)

    def logout(self, token: str) -> None:
        """Ends the token's validity."""
        answer = self._ask("/v1/auth/logout", token=token)
        if answer.status not in (200, 204, 401):
            raise self._unexpected(answer)

    def _account(self, answer: Answer) -> Account:
        body = answer.body
        name, roles = body.get("username") or body.get("sub"), body.get("roles") or []
        if not isinstance(name, str) or not isinstance(roles, list):
            raise self._unexpected(answer)
        return Account(name, tuple(map(str, roles)), _time(body.get("expires_at")))

    def _ask(self, path: str, *, token: str = "", body: Mapping[str, object] | None = None) -> Answer:
        try:
            return self._server.ask(path, token=token, body={} if body is None else body)
        except NoAnswer as error:
            raise Unreachable(str(error)) from error

    def _unexpected(self, answer: Answer) -> Unreachable:
        return Unreachable(f"{self._server.url} answered {answer.status}, which means nothing to us")


def _time(value: object) -> datetime | None:
    """A moment as RFC 3339 or in seconds since 1970; None for what is neither."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None
