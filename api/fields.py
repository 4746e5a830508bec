"""What the fields of a definition may hold: one type each, with the sentence that says what is wrong with a value."""

import re
from signal import Signals
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints

from api.model import Model
from api.units import size

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_]*"


def _hostname(value: str) -> str:
    value = value.lower()
    if len(value) > 253 or not re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", value):
        raise ValueError("is not a host name (labels of letters, digits and inner dashes, joined by dots)")
    return value


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def _image(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*", value):
        raise ValueError("is not an image reference such as registry:5000/name:v1.0.0 or name@sha256:...")
    return value


def _environment(value: str) -> str:
    if not re.match(rf"{_VARIABLE}=", value):
        raise ValueError('is not of the form "KEY=value"')
    return _without_nul(value)


def _variable(value: str) -> str:
    if not re.fullmatch(_VARIABLE, value):
        raise ValueError('is not the name of a variable such as "DB_PASSWORD"')
    return value


_PORT_NUMBER = r"\d{1,5}"
_ADDRESS = r"(?:\d{1,3}(?:\.\d{1,3}){3}|\[[0-9a-fA-F:]+\])"
_MAPPING = re.compile(
    rf"^(?:(?P<host>{_ADDRESS}):)?(?:(?P<host_port>{_PORT_NUMBER}):)?(?P<container_port>{_PORT_NUMBER})(?:/(?P<protocol>tcp|udp))?$"
)


def _port_mapping(value: str) -> str:
    PortMapping.parse(value)
    return value


def _volume(value: str) -> str:
    parts = value.split(":")
    if len(parts) not in (2, 3) or not parts[0].startswith("/") or not parts[1].startswith("/"):
        raise ValueError('is not of the form "/host/path:/container/path" with an optional ":ro"')
    if ".." in parts[0].split("/") or ".." in parts[1].split("/"):
        raise ValueError('must not contain ".."')
    return _without_nul(value)


RESERVED_LABELS = "net.metacircular.mcp."
"""Labels by which MCP knows its containers begin so."""


def _labels(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not name or name.startswith(RESERVED_LABELS):
            raise ValueError(f'names the label "{name}": labels need a name, and {RESERVED_LABELS}* are MCP\'s own')
    return value


def _absolute_path(value: str) -> str:
    if not value.startswith("/") or ".." in value.split("/"):
        raise ValueError('is not an absolute path without ".."')
    return _without_nul(value)


def _http_path(value: str) -> str:
    if not re.fullmatch(r"/[!-~]*", value):
        raise ValueError('is not a path such as "/healthz"')
    return value


def _tmpfs(value: str) -> str:
    path, *options = value.split(":", 1)
    _absolute_path(path)
    for option in (option for part in options for option in part.split(",")):
        name, _, amount = option.partition("=")
        if name == "size":
            size(amount)
        elif not re.fullmatch(r"(?:mode=[0-7]{3,4}|ro|rw|exec|noexec)", option):
            raise ValueError(f'has the option "{option}", which is not size=, mode=, ro, rw, exec or noexec')
    return value


def _capability(value: str) -> str:
    value = value.upper().removeprefix("CAP_")
    if not re.fullmatch(r"[A-Z_]+", value):
        raise ValueError('is not a capability such as "NET_BIND_SERVICE"')
    return value


_HOST = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*):(?P<address>\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F:]+)")


def _extra_host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise ValueError('is not of the form "name:address"')
    return value


def _signal(value: str) -> str:
    value = value.upper() if value.isdecimal() else "SIG" + value.upper().removeprefix("SIG")
    if value.isdecimal() and 1 <= int(value) <= 64:
        return value
    if value not in Signals.__members__ and not re.fullmatch(r"SIGRTM(IN|AX)([+-]\d{1,2})?", value):
        raise ValueError('is not a signal such as "SIGTERM"')
    return value


def _secret(value: str) -> str:
    name, *target = value.split(":", 1)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError('is not of the form "secret", "secret:/path/in/the/container" or "secret:env:NAME"')
    for place in target:
        if place.startswith("env:"):
            _variable(place.removeprefix("env:"))
        else:
            _absolute_path(place)
    return value


class PortMapping(Model):
    """One old-style `ports` entry: `[address:][host_port:]container_port[/tcp|udp]`."""

    host: str = ""
    host_port: int
    container_port: int
    protocol: str = "tcp"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads the podman notation; raises ValueError with what is wrong."""
        match = _MAPPING.match(text)
        if match is None:
            raise ValueError('is not of the form "[address:]host_port:container_port[/udp]"')
        container_port = int(match["container_port"])
        host_port = int(match["host_port"] or container_port)
        for port in (host_port, container_port):
            if not 1 <= port <= 65535:
                raise ValueError(f"names port {port}, which is not in 1-65535")
        return cls(
            host=(match["host"] or "").strip("[]"),
            host_port=host_port,
            container_port=container_port,
            protocol=match["protocol"] or "tcp",
        )


Name = Annotated[
    str,
    StringConstraints(pattern=rf"^{_LABEL}$"),
    Field(description="Lower case letters, digits and inner dashes, at most 63: it becomes part of DNS names."),
]
"""A DNS label (RFC 1123)."""
Hostname = Annotated[str, AfterValidator(_hostname)]
Image = Annotated[str, AfterValidator(_image)]
Text = Annotated[str, AfterValidator(_without_nul)]
Port = Annotated[int, Field(ge=1, le=65535)]
Version = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]
ImageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$")]
"""The last part of a repository's name, as registries have it (OCI distribution spec)."""
PortEntry = Annotated[str, AfterValidator(_port_mapping)]
VolumeEntry = Annotated[str, AfterValidator(_volume)]
EnvironmentEntry = Annotated[str, AfterValidator(_environment)]
VariableName = Annotated[str, AfterValidator(_variable)]
SecretEntry = Annotated[str, AfterValidator(_secret)]
HostEntry = Annotated[str, AfterValidator(_extra_host)]
TmpfsEntry = Annotated[str, AfterValidator(_tmpfs)]
Labels = Annotated[dict[str, Text], AfterValidator(_labels)]
AbsolutePath = Annotated[str, AfterValidator(_absolute_path)]
HttpPath = Annotated[str, AfterValidator(_http_path)]
Capability = Annotated[str, AfterValidator(_capability)]
Signal = Annotated[str, AfterValidator(_signal)]
