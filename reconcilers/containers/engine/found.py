"""Says of a container that exists what its definition would say: libpod's inspection, as a ComponentSpec. Pure.

What comes from the image, from the engine or from MCP itself is left out, as a
definition leaves it out. What an inspection does not tell (health, routes,
updates, order) is left out, too. The shapes are those of libpod's `GET
/containers/{id}/json` and `GET /images/{name}/json`, from podman 4.0 to 5.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from signal import Signals
from typing import Any, Final

from api.fields import RESERVED_LABELS
from api.spec import ComponentSpec, HostNamespace, RestartPolicy
from reconcilers.containers import model

Json = Mapping[str, Any]

_CAPABILITIES: Final = frozenset(
    {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE"}
    | {"SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"}
)
"""What every podman gives a container that asks for nothing; some give more."""

_ENGINES_PIDS: Final = 2048
_ENGINES_STOP_TIMEOUT: Final = 10
_ENGINES_STOP_SIGNAL: Final = "SIGTERM"
_ENGINES_ENVIRONMENT: Final = frozenset({"HOSTNAME", "HOME", "TERM", "container"})
_ENGINES_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ENGINES_LABELS: Final = ("io.podman.", "io.buildah.", "PODMAN_SYSTEMD_UNIT")

SECRETS_FOLDER: Final = "/run/secrets"
"""Is a tmpfs where the image's files cannot be written; no definition asks for it."""

_MOUNT_OPTIONS: Final = frozenset({"ro", "noexec", "nodev", "nosuid"})
"""Those that a listing shows as they were given; a relabelling is done once and forgotten."""
_TMPFS_OPTIONS: Final = re.compile(r"size=.*|mode=.*|ro|noexec|exec")
_VOLUMES_OF_NOBODY: Final = re.compile(r"[0-9a-f]{64}")
_UNITS: Final = ((1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K"))


def found(container: Json, image: Json) -> ComponentSpec:
    """What a container is, `image` being the inspection of the image it was made of; empty where that is gone.

    The answer is not validated: a stranger's container may be what no
    definition can ask for. Lists are in the order of their text, where the
    order means nothing.
    """
    config, host, made_of = container["Config"], container["HostConfig"], _config(image)
    cmd, entrypoint = _command(container, made_of)
    variables = dict(entry.split("=", 1) for entry in _listed(config, model.SECRET_VARIABLES) if "=" in entry)
    env = tuple(entry for entry in _environment(config, made_of) if entry.partition("=")[0] not in variables)
    privileged = bool(host.get("Privileged"))
    return ComponentSpec.model_construct(
        name=_labels_of(config).get(model.COMPONENT) or container["Name"],
        image=container.get("ImageName") or config.get("Image") or None,
        network=_network(container),
        user=_unless(config.get("User"), image.get("User")),
        restart=_restart(host),
        ports=tuple(sorted(_ports(host.get("PortBindings") or {}))),
        volumes=tuple(sorted(_volumes(container.get("Mounts") or (), made_of))),
        cmd=cmd,
        entrypoint=entrypoint,
        working_dir=_unless(config.get("WorkingDir"), made_of.get("WorkingDir") or "/"),
        env=env,
        secret_env=tuple(_marked(config, env)),
        secrets=secrets_text((secret["Name"] for secret in config.get("Secrets") or ()), variables),
        labels=_labels(config, made_of),
        extra_hosts=tuple(sorted(host.get("ExtraHosts") or ())),
        memory=size_text(host.get("Memory") or 0),
        cpus=(host.get("NanoCpus") or 0) / 1e9 or None,
        pids=_unless(max(host.get("PidsLimit") or 0, 0), _ENGINES_PIDS),
        read_only=bool(host.get("ReadonlyRootfs")),
        tmpfs=tuple(
            sorted(tmpfs_text(*mount) for mount in (host.get("Tmpfs") or {}).items() if mount[0] != SECRETS_FOLDER)
        ),
        cap_drop=() if privileged else capabilities(host.get("CapDrop") or ()),
        cap_add=() if privileged else capabilities(host.get("CapAdd") or ()),
        privileged=privileged,
        host_namespaces=tuple(_host_namespaces(host)),
        stop_signal=_stop_signal(config, made_of),
        stop_timeout=_stop_timeout(config),
    )


def size_text(amount: int) -> str | None:
    """An amount of bytes as one would write it; None for none."""
    unit, letter = next(((unit, letter) for unit, letter in _UNITS if amount and amount % unit == 0), (1, ""))
    return f"{amount // unit}{letter}" if amount else None


def tmpfs_text(path: str, options: str) -> str:
    """A tmpfs with those of its options that a definition can give."""
    kept = [option for option in options.split(",") if _TMPFS_OPTIONS.fullmatch(option)]
    return f"{path}:{','.join(map(_readable, kept))}" if kept else path


def volume_text(source: str, destination: str, options: Iterable[str]) -> str:
    """A mount of a host's folder, with those of its options that an inspection tells."""
    kept = sorted(_MOUNT_OPTIONS.intersection(options))
    return ":".join([source, destination, ",".join(kept)] if kept else [source, destination])


def secrets_text(files: Iterable[str], variables: Mapping[str, str]) -> tuple[str, ...]:
    """Secrets of podman's: those that are files, whose paths no inspection tells, and those that are variables."""
    return tuple(sorted([*files, *(f"{name}:env:{variable}" for variable, name in variables.items())]))


def port_text(host: str, host_port: int, container_port: int, protocol: str) -> str:
    """A published port in podman's notation."""
    address = f"[{host}]:" if ":" in host else f"{host}:" if host else ""
    return f"{address}{host_port}:{container_port}" + ("" if protocol == "tcp" else f"/{protocol}")


def capabilities(names: Iterable[str]) -> tuple[str, ...]:
    """Capabilities by their short names; all that a podman gives, and more, are ALL."""
    short = {name.upper().removeprefix("CAP_") for name in names}
    return ("ALL",) if short >= _CAPABILITIES else tuple(sorted(short))


def signal_text(value: int | str) -> str:
    """A signal by its name where it has one."""
    text = str(value).upper()
    if not text.isdecimal():
        return "SIG" + text.removeprefix("SIG")
    number = int(text)
    return Signals(number).name if number in [known.value for known in Signals] else text


def _config(image: Json) -> Json:
    config: Json = image.get("Config") or {}
    return config


def _unless(value: Any, default: Any) -> Any:
    """The value, or None where it is the default or none at all."""
    return None if not value or value == default else value


def _network(container: Json) -> str:
    joined = sorted((container.get("NetworkSettings") or {}).get("Networks") or {})
    return ",".join(joined) or str(container["HostConfig"].get("NetworkMode") or "")


def _restart(host: Json) -> RestartPolicy | None:
    name = (host.get("RestartPolicy") or {}).get("Name") or ""
    return RestartPolicy(name) if name in list(RestartPolicy) else None


def _ports(bindings: Mapping[str, Any]) -> Iterator[str]:
    for inside, outside in bindings.items():
        port, _, protocol = inside.partition("/")
        for binding in outside or ():
            host = binding.get("HostIp") or ""
            # podman 5 says where an unnamed address is.
            host = "" if host in ("0.0.0.0", "::") else host  # noqa: S104  # it is read, not bound
            yield port_text(host, int(binding["HostPort"]), int(port), protocol or "tcp")


def _volumes(mounts: Iterable[Json], made_of: Json) -> Iterator[str]:
    for mount in mounts:
        by_image = mount["Destination"] in (made_of.get("Volumes") or {})
        if mount["Type"] == "tmpfs" or (by_image and _VOLUMES_OF_NOBODY.fullmatch(mount.get("Name") or "")):
            continue
        options = [*(mount.get("Options") or ()), *([] if mount.get("RW", True) else ["ro"])]
        # An engine's own bookkeeping gives named volumes these.
        own = {"nodev", "nosuid"} if mount["Type"] == "volume" else set()
        yield volume_text(mount["Source"], mount["Destination"], set(options) - own)


def _command(container: Json, made_of: Json) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    """Command and entry point, as far as they are not the image's."""
    cmd = tuple(container["Config"].get("Cmd") or ())
    entrypoint = _entrypoint(container, cmd)
    own, given = tuple(made_of.get("Entrypoint") or ()), tuple(made_of.get("Cmd") or ())
    if entrypoint == own:
        return (() if cmd == given else cmd), None
    return cmd, entrypoint


def _entrypoint(container: Json, cmd: tuple[str, ...]) -> tuple[str, ...]:
    entrypoint = container["Config"].get("Entrypoint") or ()
    if not isinstance(entrypoint, str):
        return tuple(entrypoint)
    # podman 4 joins its words; what is run is told word by word.
    words = (container.get("Path") or "", *(container.get("Args") or ()))
    before = words[: len(words) - len(cmd)]
    return before if " ".join(before) == entrypoint else tuple(entrypoint.split())


def _environment(config: Json, made_of: Json) -> Iterator[str]:
    given = set(made_of.get("Env") or ())
    for entry in sorted(config.get("Env") or ()):
        if entry not in given and entry != _ENGINES_PATH and entry.partition("=")[0] not in _ENGINES_ENVIRONMENT:
            yield entry


def _marked(config: Json, env: Iterable[str]) -> Iterator[str]:
    """Those of the variables of which its labels say that they are secret."""
    secret = _listed(config, model.SECRET_ENV)
    return (name for name in sorted(entry.partition("=")[0] for entry in env) if name in secret)


def _listed(config: Json, label: str) -> list[str]:
    return str(_labels_of(config).get(label) or "").split(",")


def _labels_of(config: Json) -> Mapping[str, str]:
    labels: Mapping[str, str] = config.get("Labels") or {}
    return labels


def _labels(config: Json, made_of: Json) -> dict[str, str]:
    given = (made_of.get("Labels") or {}).items()
    foreign = (RESERVED_LABELS, *_ENGINES_LABELS)
    return {
        name: value
        for name, value in sorted(_labels_of(config).items())
        if (name, value) not in given and not name.startswith(foreign)
    }


def _readable(option: str) -> str:
    name, _, amount = option.partition("=")
    return f"size={size_text(int(amount))}" if name == "size" and amount.isdecimal() else option


def _host_namespaces(host: Json) -> Iterator[HostNamespace]:
    for namespace, field in zip(HostNamespace, ("PidMode", "IpcMode", "UTSMode"), strict=True):
        if host.get(field) == "host":
            yield namespace


def _stop_signal(config: Json, made_of: Json) -> str | None:
    given = config.get("StopSignal")
    return (
        _unless(signal_text(given), signal_text(made_of.get("StopSignal") or _ENGINES_STOP_SIGNAL)) if given else None
    )


def _stop_timeout(config: Json) -> str | None:
    seconds = config.get("StopTimeout", _ENGINES_STOP_TIMEOUT)
    return None if seconds == _ENGINES_STOP_TIMEOUT else f"{seconds}s"
