"""Who we are to the registries of images: names and passwords, read anew at each pull, as tokens are exchanged.

What the agent's settings say of a registry comes first, then the file that
REGISTRY_AUTH_FILE names. Of a registry that neither speaks of we say nothing,
and podman looks into the files of its own account, as containers-auth.json(5)
lists them, credential helpers included. Passwords go nowhere but to the engine.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from reconcilers.containers.images.references import registry_of, repository_of

SHUT_OUT: Final = ("unauthorized", "authentication required", "invalid username/password", "access to the resource")
"""What podman says where a registry wants to know who asks, or does not like who does."""


class CredentialsUnreadable(Exception):
    """They are kept in a file that cannot be read; `message` names it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True)
class Login:
    """How one registry is reached."""

    username: str = ""
    password_file: str = ""
    """Holds the password, or a token that serves as one; empty: there is nothing to say."""
    setting: str = "password_file"
    """What names that file in the agent's settings."""
    tls_verify: bool = True


@dataclass(frozen=True, slots=True)
class Access:
    """What the engine is told for one pull."""

    registry: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    source: str = ""
    """Where the password came from, in words."""
    tls_verify: bool = True

    def headers(self) -> dict[str, str]:
        """Those of the pull; they speak of one registry, so that no other is ever shown the password."""
        if not self.source:
            return {}
        entry = {self.registry: {"username": self.username, "password": self.password}}
        return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(entry).encode()).decode()}

    def explain(self, problem: str) -> str:
        """The engine's words, or what to do about them where a registry does not let us in."""
        if not any(words in problem for words in SHUT_OUT):
            return problem
        if not self.source:
            here = f'registries."{self.registry}" of the agent\'s settings'
            return f"{self.registry or 'the registry'} asks who we are: say it in {here} or in podman's auth.json"
        return f'{self.registry} does not let user "{self.username}" in with the password of {self.source}'


class Credentials:
    """Those of all registries."""

    def __init__(self, logins: Mapping[str, Login], auth_file: Path | None = None) -> None:
        self._logins = logins
        self._auth_file = auth_file

    def access(self, reference: str) -> Access:
        """How the image is asked for. Raises CredentialsUnreadable."""
        registry = registry_of(reference)
        login = self._logins.get(registry, Login())
        if login.password_file:
            source = f'registries."{registry}".{login.setting}'
            password = _read(Path(login.password_file), source).strip()
            return Access(registry, login.username, password, source, login.tls_verify)
        if self._auth_file is not None and (found := _find(self._auth_file, repository_of(reference))):
            return Access(registry, *found, str(self._auth_file), login.tls_verify)
        return Access(registry, tls_verify=login.tls_verify)


def _find(path: Path, repository: str) -> tuple[str, str] | None:
    """Name and password in a file as containers-auth.json(5) describes it: the narrowest entry counts."""
    source = "REGISTRY_AUTH_FILE"
    try:
        entries = json.loads(_read(path, source)).get("auths", {})
        fitting = [key for key in entries if f"{repository}/".startswith(f"{key}/")]
        coded = entries[max(fitting, key=len)].get("auth", "") if fitting else ""
        username, _, password = base64.b64decode(coded, validate=True).decode().partition(":")
    except (ValueError, AttributeError) as error:
        raise CredentialsUnreadable(f"{path}, named by {source}, is no auth.json") from error
    return (username, password) if coded else None


def _read(path: Path, source: str) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise CredentialsUnreadable(f"{path}, named by {source}, cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CredentialsUnreadable(f"{path}, named by {source}, is no text") from error
