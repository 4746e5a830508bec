"""What a node lets containers have of its own: decided on what the engine is asked in the end, whoever asks.

Whoever may write a definition would otherwise be root on the host: a mount of
`/` or of podman's socket is all it takes. So everything that reaches out of a
container is forbidden until the node's settings say otherwise, and a few things
whatever they say. Pure: where links lead is looked up by the caller.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field

from api.fields import Name
from api.model import Model

Real = Callable[[str], str]
"""Where a path leads once all links in it are followed; empty where nobody may look."""

_ALWAYS_FINE: Final = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)
"""What engines give to every container unless it is taken away: all are confined to its namespaces."""

_KERNELS: Final = ("/proc", "/sys", "/dev")
"""The kernel's own: whoever can write there needs no other right."""
_TOO_MUCH: Final = ("/", "/etc")
"""Never as a whole; parts of them, by name, may be."""
_NAMESPACES: Final = ("netns", "pidns", "ipcns", "utsns", "userns", "cgroupns")


def _listed(value: object) -> object:
    """A variable is text, its entries divided by commas; a file has a list, which strict models do not take as such."""
    if isinstance(value, str):
        return tuple(entry.strip() for entry in value.split(",") if entry.strip())
    return tuple(value) if isinstance(value, list) else value


def _folder(value: str) -> str:
    _, path = _entry(value)
    if not path.startswith("/") or ".." in path.split("/"):
        raise ValueError('is not an absolute path, such as "/data" or "web:/data" for the service web alone')
    return value


def _capability(value: str) -> str:
    service, name = _entry(value)
    name = name.upper().removeprefix("CAP_")
    if not name.replace("_", "").isalpha():
        raise ValueError('is not a capability, such as "NET_ADMIN" or "web:NET_ADMIN" for the service web alone')
    return f"{service}:{name}" if service else name


Folders = Annotated[tuple[Annotated[str, AfterValidator(_folder)], ...], BeforeValidator(_listed)]
Capabilities = Annotated[tuple[Annotated[str, AfterValidator(_capability)], ...], BeforeValidator(_listed)]
Services = Annotated[tuple[Name, ...], BeforeValidator(_listed)]


class Policy(Model):
    """What containers may have of the host."""

    mounts: Folders = Field(
        default=(),
        description="Host folders that may be mounted, with all below, beside `defaults.service_root`; "
        "`service:/folder` for one service alone.",
    )
    capabilities: Capabilities = Field(
        default=(),
        description="Capabilities that may be added, beside those that engines give anyway; "
        "`service:NAME` for one service alone.",
    )
    privileged: Services = Field(default=(), description="Services that may have `privileged` components.")
    host_namespaces: Services = Field(
        default=(), description='Services that may share namespaces with the host, `network = "host"` among them.'
    )


@dataclass(frozen=True, slots=True)
class Private:
    """A path of MCP's own: neither it, nor what is in it, nor what holds it is ever mounted."""

    path: str
    what: str
    """What a person calls it: `podman's socket`."""
    shared: bool = False
    """Whether the service in whose folder it lies may mount it: mc-proxy reads the certificates."""


@dataclass(frozen=True, slots=True)
class Ground:
    """The host that is to be kept from containers."""

    service_root: str
    private: tuple[Private, ...] = ()


def violations(body: Mapping[str, Any], service: str, policy: Policy, ground: Ground, real: Real) -> tuple[str, ...]:
    """What the policy does not allow in a request to create a container of that service, a sentence each.

    `body` is libpod's SpecGenerator as it is sent.
    """
    return (
        *_privileges(body, service, policy),
        *mounts(_sources(body), service, policy, ground, real),
    )


def mounts(
    sources: Iterator[str] | tuple[str, ...], service: str, policy: Policy, ground: Ground, real: Real
) -> tuple[str, ...]:
    """What is forbidden in mounts of these host paths."""
    allowed = (ground.service_root, *_for_service(policy.mounts, service))
    folders = tuple(real(folder) for folder in allowed)
    private = tuple(_in_reach(ground, service, real))
    return tuple(
        f"volumes: {source}{f' (which is {target})' if target not in ('', source) else ''} {problem}"
        for source in sources
        for target in (real(source),)
        if (problem := _problem(target, folders, private))
    )


def _privileges(body: Mapping[str, Any], service: str, policy: Policy) -> Iterator[str]:
    if body.get("privileged") and service not in policy.privileged:
        yield f"privileged: not for service {service}, unless {_setting('privileged')} names it"
    allowed = _ALWAYS_FINE | set(_for_service(policy.capabilities, service))
    for name in body.get("cap_add", ()):
        if name.upper().removeprefix("CAP_") not in allowed and "ALL" not in allowed:
            yield f"cap_add: {name} may not be added, unless {_setting('capabilities')} names it"
    if service not in policy.host_namespaces:
        for namespace in _NAMESPACES:
            if body.get(namespace, {}).get("nsmode") == "host":
                yield f"{_said(namespace)}: not for service {service}, unless {_setting('host_namespaces')} names it"


def _said(namespace: str) -> str:
    """How a definition asks for it."""
    return 'network "host"' if namespace == "netns" else f'host_namespaces "{namespace.removesuffix("ns")}"'


def _sources(body: Mapping[str, Any]) -> Iterator[str]:
    return (mount["source"] for mount in body.get("mounts", ()) if mount["type"] != "tmpfs")


def _problem(target: str, folders: tuple[str, ...], private: tuple[Private, ...]) -> str:
    """Why the path, free of links, is not to be mounted; empty where it may be."""
    if not target:
        return "cannot be followed: the agent may not look into a folder on the way"
    for kernel in _KERNELS:
        if _within(target, kernel):
            return f"is never mounted: {kernel} is the kernel's own"
    if target in _TOO_MUCH:
        return "is never mounted as a whole: it is the host itself"
    for own in private:
        if _within(target, own.path) or _within(own.path, target):
            return f"is never mounted: {own.what} is there"
    if not any(_within(target, folder) for folder in folders):
        return f"may not be mounted, unless {_setting('mounts')} names it or a folder above"
    return ""


def _in_reach(ground: Ground, service: str, real: Real) -> Iterator[Private]:
    own_folder = real(f"{ground.service_root.rstrip('/')}/{service}")
    for private in ground.private:
        path = real(private.path) or private.path
        if not (private.shared and _within(path, own_folder)):
            yield Private(path, private.what)


def _for_service(entries: tuple[str, ...], service: str) -> Iterator[str]:
    return (what for owner, what in map(_entry, entries) if owner in ("", service))


def _entry(text: str) -> tuple[str, str]:
    """The service that it is for, empty for all, and what it allows."""
    service, divider, what = text.partition(":")
    return (service, what) if divider else ("", text)


def _setting(name: str) -> str:
    return f"policy.{name} in the agent's settings"


def _within(path: str, folder: str) -> bool:
    return PurePosixPath(path).is_relative_to(folder)
