"""What a component may use and do, and how it is started and ended, in the words of libpod's SpecGenerator.

A field that the definition leaves out is left out here as well: the image's or
the engine's own value stands, and older containers keep their hash. Pure.
"""

from math import ceil
from signal import Signals
from typing import Any, Final

from api.resolve import ResolvedComponent

_PERIOD: Final = 100_000
"""Microseconds over which processor time is shared out: the kernel's default."""
_READABLE: Final = 0o444
"""Mode of a secret's file; through the API the engine would take 0 for none given."""
_ENGINES_STOP_TIMEOUT: Final = 10
"""Seconds."""
_RTMIN: Final = 34
"""As the C libraries count, which keep the first two for themselves."""
_RTMAX: Final = 64


def limits(component: ResolvedComponent) -> dict[str, Any]:
    """The fields that the component gives a value."""
    # Whole seconds are all that the engine takes, and none would be an end by force at once.
    stop_timeout = ceil(component.stop_timeout.total_seconds())
    fields: dict[str, Any] = {
        "resource_limits": _resources(component),
        "read_only_filesystem": component.read_only,
        "cap_drop": list(component.cap_drop),
        "cap_add": list(component.cap_add),
        "privileged": component.privileged,
        "work_dir": component.working_dir,
        "labels": component.labels,
        "hostadd": list(component.extra_hosts),
        "stop_signal": signal_number(component.stop_signal) if component.stop_signal else 0,
        "secrets": [_secret(name, path) for name, path in component.secrets],
        "secret_env": component.secret_variables,
        **{f"{namespace}ns": {"nsmode": "host"} for namespace in component.host_namespaces},
    }
    given = {name: value for name, value in fields.items() if value}
    if component.entrypoint is not None:
        given["entrypoint"] = list(component.entrypoint)
    if stop_timeout != _ENGINES_STOP_TIMEOUT:
        given["stop_timeout"] = stop_timeout
    return given


def signal_number(name: str) -> int:
    """The number of `SIGTERM`, `SIGRTMIN+3` or `15`, on Linux."""
    if name.isdecimal():
        return int(name)
    if name in Signals.__members__:
        return Signals[name].value
    base = _RTMIN if name.startswith("SIGRTMIN") else _RTMAX
    return base + int(name[len("SIGRTMIN") :] or 0)


def _resources(component: ResolvedComponent) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if component.memory:
        # The same for both: beyond its memory it gets no swap either.
        found["memory"] = {"limit": component.memory, "swap": component.memory}
    if component.cpus:
        found["cpu"] = {"quota": round(component.cpus * _PERIOD), "period": _PERIOD}
    if component.pids:
        found["pids"] = {"limit": component.pids}
    return found


def _secret(name: str, path: str) -> dict[str, Any]:
    return {"Source": name, "Target": path, "UID": 0, "GID": 0, "Mode": _READABLE}
