"""What the proxy is asked to do, as frozen values: the admin API and the configuration file share these checks."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Annotated, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_HEADER_NAME = re.compile(r"[0-9A-Za-z_-]{1,128}")
_MAX_HOSTNAME = 253
# HAProxy cuts configuration lines at 2048 characters; quoting may double these.
_MAX_POLICY_VALUE = 512


class Frozen(BaseModel):
    """A strict immutable record: no unknown fields, no coercion between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_hostname(text: str) -> bool:
    # Some letters outside ASCII have an ASCII letter as their lower case.
    labels = text.lower().split(".") if text.isascii() and len(text) <= _MAX_HOSTNAME else [""]
    return all(_LABEL.fullmatch(label) for label in labels)


def _normal_hostname(text: str) -> str:
    """A DNS name in lower case. Raises ValueError for anything a ClientHello could not carry (RFC 6066, section 3)."""
    if _is_ip(text):
        raise ValueError(f"hostname {text!r} is an address, which SNI never carries")
    if not _is_hostname(text):
        raise ValueError(f"hostname {text!r} is not a DNS name")
    return text.lower()


def split_backend(text: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[v6]:port". Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 1 <= int(port[:6]) <= 65535:
        raise ValueError(f'backend {text!r} is not "host:port" with a port from 1 to 65535')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        good = ":" in host and "%" not in host and _is_ip(host)
    else:
        good = ":" not in host and (_is_ip(host) or _is_hostname(host))
    if not good:
        raise ValueError(f"backend {text!r} names neither an address nor a DNS name")
    return host, int(port)


def _checked_backend(text: str) -> str:
    split_backend(text)
    return text


def _checked_listener_addr(text: str) -> str:
    if not re.fullmatch(r":[1-9][0-9]{0,4}", text) or int(text[1:]) > 65535:
        raise ValueError(f'listener address {text!r} is not ":port" with a port from 1 to 65535')
    return text


ListenerAddr = Annotated[str, AfterValidator(_checked_listener_addr)]
Hostname = Annotated[str, AfterValidator(_normal_hostname)]
Backend = Annotated[str, AfterValidator(_checked_backend)]


class Mode(StrEnum):
    """Who terminates TLS: the backend (l4) or the proxy (l7)."""

    L4 = "l4"
    L7 = "l7"


class PolicyType(StrEnum):
    """What an L7 policy looks at."""

    BLOCK_USER_AGENT = "block_user_agent"
    REQUIRE_HEADER = "require_header"


class L7Policy(Frozen):
    """Answers 403 when User-Agent contains `value`, or when the header named `value` is absent or empty."""

    type: Annotated[PolicyType, Field(strict=False)]
    value: Annotated[str, StringConstraints(min_length=1, max_length=_MAX_POLICY_VALUE)]

    @model_validator(mode="after")
    def _value_fits_type(self) -> Self:
        if self.type is PolicyType.REQUIRE_HEADER and not _HEADER_NAME.fullmatch(self.value):
            raise ValueError(f"require_header needs a header's name, not {self.value!r}")
        if not self.value.isprintable() or not self.value.isascii():
            raise ValueError(f"policy value {self.value!r} has characters other than printable ASCII")
        return self


class Route(Frozen):
    """Where connections for `hostname` go; paths are on this host and required in l7 mode."""

    hostname: Hostname
    backend: Backend
    mode: Annotated[Mode, Field(strict=False)] = Mode.L4
    tls_cert: str = ""
    tls_key: str = ""
    backend_tls: bool = False
    send_proxy_protocol: bool = False
    l7_policies: Annotated[tuple[L7Policy, ...], Field(strict=False)] = ()

    @model_validator(mode="after")
    def _mode_has_its_parts(self) -> Self:
        if self.mode is Mode.L7 and not (self.tls_cert and self.tls_key):
            raise ValueError(f"l7 route {self.hostname!r} needs tls_cert and tls_key")
        if self.mode is Mode.L4 and self.l7_policies:
            raise ValueError(f"l4 route {self.hostname!r} cannot carry L7 policies: its requests are not seen here")
        return self


class FirewallRuleType(StrEnum):
    """What a firewall rule's value is. Countries would need a GeoIP database, which the stand-in has not."""

    IP = "ip"
    CIDR = "cidr"


class FirewallRule(Frozen):
    """Refuses connections whose source is `value` or inside it; the value is kept in its canonical form."""

    type: Annotated[FirewallRuleType, Field(strict=False)]
    value: str

    @model_validator(mode="before")
    @classmethod
    def _canonical(cls, data: object) -> object:
        if not isinstance(data, Mapping) or not isinstance(data.get("value"), str):
            return data
        parse = ipaddress.ip_address if data.get("type") == FirewallRuleType.IP else ipaddress.ip_network
        return {**data, "value": str(parse(data["value"]))}


class RouteKey(NamedTuple):
    """What identifies a route; the same hostname may be on several listeners."""

    listener: str
    hostname: str


@dataclass(frozen=True)
class Bundle:
    """A certificate chain and its key in one PEM text, as HAProxy reads it; named and compared by its digest."""

    digest: str
    pem: bytes = field(repr=False, compare=False)


@dataclass(frozen=True)
class Upstream:
    """What was found out about a backend.

    `address` is its IP address, None while its name does not resolve; `h2c` says that it speaks HTTP/2 without TLS.
    """

    address: str | None
    h2c: bool = False


@dataclass(frozen=True)
class Entry:
    """A route with everything that rendering it takes.

    An l7 route without a bundle has lost its certificate in every copy: it is kept, but neither served nor listed
    until it is added again.
    """

    route: Route
    bundle: Bundle | None
    upstream: Upstream

    @property
    def served(self) -> bool:
        """Whether connections for this route get anywhere."""
        return self.route.mode is Mode.L4 or self.bundle is not None


@dataclass(frozen=True)
class State:
    """All that is programmed. `limits` holds the listeners whose max_connections were set through the API."""

    entries: Mapping[RouteKey, Entry] = field(default_factory=dict)
    firewall: tuple[FirewallRule, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)

    def with_entry(self, listener: str, entry: Entry) -> "State":
        """The state with this route inserted or replaced."""
        return replace(self, entries={**self.entries, RouteKey(listener, entry.route.hostname): entry})

    def without_entry(self, key: RouteKey) -> "State":
        """The state without this route, which must be there."""
        return replace(self, entries={k: entry for k, entry in self.entries.items() if k != key})

    def with_firewall(self, rules: tuple[FirewallRule, ...]) -> "State":
        """The state with exactly these firewall rules."""
        return replace(self, firewall=rules)

    def with_limit(self, listener: str, max_connections: int) -> "State":
        """The state with this listener's limit; 0 is unlimited."""
        return replace(self, limits={**self.limits, listener: max_connections})


def sentence(error: ValidationError) -> str:
    """The first complaint of a validation as one sentence that names the field."""
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ")
    where = ".".join(str(part) for part in first["loc"])
    return message if first["type"] == "value_error" or not where else f"{where}: {message}"
