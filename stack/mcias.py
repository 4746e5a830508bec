"""A stand-in for MCIAS over real HTTPS: the paths and fields that its clients' documentation names."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from stack import https


@dataclass
class Account:
    """Somebody who may log in."""

    password: str
    roles: tuple[str, ...] = ("user",)
    totp_code: str = ""
    denied: bool = False
    """Whether the login policy refuses them."""


@dataclass
class Mcias:
    """Who there is, whose tokens hold, and what was asked."""

    folder: Path
    accounts: dict[str, Account] = field(default_factory=dict)
    tokens: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    broken: bool = False
    """Answers 500 to everything."""
    url: str = ""

    @property
    def ca_file(self) -> Path:
        """What its certificate leads to."""
        return self.folder / "ca.pem"

    def issue(self, username: str, lifetime: timedelta = timedelta(hours=1)) -> str:
        """A token for that account."""
        token = f"eyJ.{secrets.token_urlsafe(24)}.sig"
        self.tokens[token] = (username, datetime.now(UTC) + lifetime)
        return token

    @contextmanager
    def serving(self, port: int = 0) -> Iterator["Mcias"]:
        """Answers on a port of its own until the block ends."""
        with https.serving(self.folder, self.answer, port) as self.url:
            yield self

    def answer(self, path: str, token: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """The status and the body of an answer."""
        self.asked.append(path)
        if self.broken:
            return 500, {"error": "out of order"}
        match path:
            case "/v1/auth/login":
                return self._login(body)
            case "/v1/token/validate":
                return self._validate(token)
            case "/v1/auth/logout":
                return (204, {}) if self.tokens.pop(token, None) else (401, {"error": "invalid token"})
        return 404, {"error": "not found"}

    def _login(self, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        username = str(body["username"])
        account = self.accounts.get(username)
        right = account and (account.password, account.totp_code) == (body["password"], body.get("totp_code", ""))
        if account is None or not right:
            return 401, {"error": "invalid credentials"}
        if account.denied:
            return 403, {"error": "denied by policy"}
        token = self.issue(username)
        return 200, {"token": token, "expires_at": self.tokens[token][1].isoformat()}

    def _validate(self, token: str) -> tuple[int, dict[str, Any]]:
        username, expires_at = self.tokens.get(token, ("", datetime.min.replace(tzinfo=UTC)))
        if expires_at <= datetime.now(UTC) or username not in self.accounts:
            return 200, {"valid": False}
        roles = list(self.accounts[username].roles)
        known = {"sub": f"id-of-{username}", "username": username, "roles": roles}
        return 200, {"valid": True, "expires_at": expires_at.isoformat(), **known}
