"""The configuration file: what mcproxyd is told once, at its start. Routes live in the database, not here."""

import difflib
import ipaddress
import re
import tomllib
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, PositiveFloat, ValidationError, model_validator
from pydantic_core import ErrorDetails

from mcproxy.model import FirewallRule, Frozen, ListenerAddr, Route, sentence

_MAX_SIZE = 1 << 20
# HAProxy binds Unix sockets under a longer temporary name first, and sun_path ends at 107 bytes.
_MAX_RUNTIME_DIR = 75
_MAX_SOCKET = 107


class SettingsError(Exception):
    """The configuration file cannot be used; the message is one sentence that names the file."""


def _checked_host(text: str) -> str:
    return str(ipaddress.ip_address(text))


def _checked_runtime_dir(path: Path) -> Path:
    # The path is written into HAProxy's configuration, where white space and quotes have a meaning.
    if not re.fullmatch(r"[\w./-]+", str(path), re.ASCII):
        raise ValueError(f"{str(path)!r} has characters that HAProxy's configuration gives a meaning to")
    return path.absolute()


AbsolutePath = Annotated[Path, Field(strict=False), AfterValidator(Path.absolute)]


class ListenerSettings(Frozen):
    """One public port. `bind` is the host address to listen on, None for all; 0 connections means unlimited."""

    addr: ListenerAddr
    bind: Annotated[str, AfterValidator(_checked_host)] | None = None
    proxy_protocol: bool = False
    max_connections: Annotated[int, Field(ge=0)] = 0


class AdminSettings(Frozen):
    """Where the admin API is served: a Unix socket for its owner alone."""

    socket: AbsolutePath


class DatabaseSettings(Frozen):
    """Where routes, firewall rules and limits persist."""

    path: AbsolutePath


class HAProxySettings(Frozen):
    """The data plane: the program (looked up in PATH) and a folder that it has for itself."""

    runtime_dir: Annotated[Path, Field(strict=False), AfterValidator(_checked_runtime_dir)]
    binary: str = "haproxy"


class SeedRoute(Route):
    """A route for an empty database."""

    listener: ListenerAddr

    def route(self) -> Route:
        """The route without its listener."""
        return Route.model_validate(self.model_dump(exclude={"listener"}))


class Settings(Frozen):
    """The whole file. `shutdown_timeout` is in seconds; `routes` and `firewall` only seed a new database."""

    admin: AdminSettings
    database: DatabaseSettings
    haproxy: HAProxySettings
    listeners: Annotated[tuple[ListenerSettings, ...], Field(strict=False, min_length=1)]
    shutdown_timeout: Annotated[PositiveFloat, Field(strict=False)] = 30.0
    routes: Annotated[tuple[SeedRoute, ...], Field(strict=False)] = ()
    firewall: Annotated[tuple[FirewallRule, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        addrs = [listener.addr for listener in self.listeners]
        if len(set(addrs)) < len(addrs):
            raise ValueError("two listeners have the same addr")
        for route in self.routes:
            if route.listener not in addrs:
                raise ValueError(f"route {route.hostname!r} names the listener {route.listener!r}, which is not here")
        for path, limit in ((self.haproxy.runtime_dir, _MAX_RUNTIME_DIR), (self.admin.socket, _MAX_SOCKET)):
            if len(str(path).encode()) > limit:
                raise ValueError(f"{path} is too long for Unix sockets: at most {limit} bytes")
        return self

    @property
    def listener_addrs(self) -> frozenset[str]:
        """The addresses a route may name."""
        return frozenset(listener.addr for listener in self.listeners)


_TABLES: dict[str, type[Frozen]] = {
    "admin": AdminSettings,
    "database": DatabaseSettings,
    "haproxy": HAProxySettings,
    "listeners": ListenerSettings,
    "routes": SeedRoute,
    "firewall": FirewallRule,
}


def _explain(error: ErrorDetails) -> str | None:
    """For an unknown key: which one, where, and what was probably meant."""
    if error["type"] != "extra_forbidden":
        return None
    *table, key = error["loc"]
    model = _TABLES.get(str(table[0]), Settings) if table else Settings
    near = difflib.get_close_matches(str(key), model.model_fields, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(model.model_fields))}"
    where = f" in [{table[0]}]" if table else ""
    return f"unknown key {key!r}{where}: {hint}"


def load(path: Path) -> Settings:
    """Reads and checks the file. Raises SettingsError with one sentence."""
    try:
        data = path.read_bytes()
        if len(data) > _MAX_SIZE:
            raise SettingsError(f"{path}: larger than 1 MiB")
        tree = tomllib.loads(data.decode())
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from error
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        unknown = next(filter(None, map(_explain, error.errors(include_url=False))), None)
        raise SettingsError(f"{path}: {unknown or sentence(error)}") from error
