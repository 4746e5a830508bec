"""In which fields a container is not as it is wanted, with both values. Pure.

A container's labels hold only hashes: they say which part of the request
changed. What it was is what the engine says of the container, so that a person
sees values. Asked for by people only, never on the way to an action.
"""

import json
from collections.abc import Mapping
from typing import Final

from api.diff import diff
from api.fields import RESERVED_LABELS
from api.notation import toml_value
from api.service import FieldChange
from api.spec import ComponentSpec, HostNamespace, RestartPolicy, ServiceSpec
from reconcilers.containers.engine.found import (
    SECRETS_FOLDER,
    Json,
    capabilities,
    found,
    port_text,
    secrets_text,
    signal_text,
    size_text,
    tmpfs_text,
    volume_text,
)
from reconcilers.containers.engine.request import MARKS, ContainerRequest

_SPECS: Final[Mapping[str, tuple[str, ...]]] = {
    "cap_add": ("cap_add",),
    "cap_drop": ("cap_drop",),
    "command": ("cmd",),
    "entrypoint": ("entrypoint", "cmd"),
    "env": ("env",),
    "hostadd": ("extra_hosts",),
    "image": ("image",),
    "ipcns": ("host_namespaces",),
    "labels": ("labels",),
    MARKS: ("secret_env",),
    "mounts": ("volumes", "tmpfs"),
    "name": (),
    "netns": ("network",),
    "networks": ("network",),
    "pidns": ("host_namespaces",),
    "portmappings": ("ports",),
    "privileged": ("privileged",),
    "read_only_filesystem": ("read_only",),
    "resource_limits": ("memory", "cpus", "pids"),
    "restart_policy": ("restart",),
    "secret_env": ("secrets",),
    "secrets": ("secrets",),
    "stop_signal": ("stop_signal",),
    "stop_timeout": ("stop_timeout",),
    "user": ("user",),
    "utsns": ("host_namespaces",),
    "work_dir": ("working_dir",),
}
"""By a field of libpod's SpecGenerator: those of a definition that it carries."""


def state(component: str, found: str, wanted: str = "running") -> FieldChange:
    """That a container is not in the state in which it is wanted."""
    return FieldChange(path=f"components[{component}].state", old=toml_value(found), new=toml_value(wanted))


def differences(request: ContainerRequest, container: Json, image: Json) -> tuple[FieldChange, ...]:
    """Field by field: `old` as the container has it, `new` as `request` wants it; secrets are masked.

    `container` and `image` are what the engine says of the container and of
    its image. Only fields that the container's labels say were asked for
    differently are compared. Raises LookupError, TypeError, ValueError or
    AttributeError where the engine says it in another way than is known here.
    """
    changed = request.changes_since(container["Config"].get("Labels") or {})
    fields = {field for name in changed for field in _SPECS.get(name, ())}
    is_, wanted = found(container, image), asked(request)
    # What the image gives as well is asked for and there, though `found` leaves it out.
    had = set(container["Config"].get("Env") or ()) - set(is_.env)
    env = tuple(entry for entry in wanted.env if entry not in had)
    wanted = wanted.model_copy(update={"env": env})
    # Always both: what is a secret in one of the two is none to show in the other.
    known = {field: getattr(is_, field) for field in (*fields, "secret_env")}
    return diff(_alone(request, wanted.model_copy(update=known)), _alone(request, wanted))


def asked(request: ContainerRequest) -> ComponentSpec:
    """What a request asks for, in the words of `found`."""
    body: Json = json.loads(request.body)
    limits = body.get("resource_limits") or {}
    cpu = limits.get("cpu") or {}
    mounts = body.get("mounts") or ()
    return ComponentSpec.model_construct(
        name=request.component,
        image=body["image"],
        network=",".join(sorted(body.get("networks") or {})) or body["netns"]["nsmode"],
        user=body.get("user") or None,
        restart=RestartPolicy(body["restart_policy"]),
        ports=tuple(sorted(_port(mapping) for mapping in body.get("portmappings") or ())),
        volumes=tuple(
            sorted(volume_text(m["source"], m["destination"], m["options"]) for m in mounts if m["type"] == "bind")
        ),
        cmd=tuple(body.get("command") or ()),
        entrypoint=tuple(body["entrypoint"]) if "entrypoint" in body else None,
        working_dir=body.get("work_dir") or None,
        env=tuple(sorted(f"{key}={value}" for key, value in (body.get("env") or {}).items())),
        secret_env=request.secret_env,
        secrets=secrets_text((secret["Source"] for secret in body.get("secrets") or ()), body.get("secret_env") or {}),
        labels=_labels(body),
        extra_hosts=tuple(sorted(body.get("hostadd") or ())),
        memory=size_text((limits.get("memory") or {}).get("limit") or 0),
        cpus=cpu["quota"] / cpu["period"] if cpu else None,
        pids=(limits.get("pids") or {}).get("limit"),
        read_only=bool(body.get("read_only_filesystem")),
        tmpfs=tuple(
            sorted(
                tmpfs_text(mount["destination"], ",".join(mount["options"]))
                for mount in mounts
                if mount["type"] == "tmpfs" and mount["destination"] != SECRETS_FOLDER
            )
        ),
        cap_drop=capabilities(body.get("cap_drop") or ()),
        cap_add=capabilities(body.get("cap_add") or ()),
        privileged=bool(body.get("privileged")),
        host_namespaces=tuple(name for name in HostNamespace if (body.get(f"{name}ns") or {}).get("nsmode") == "host"),
        stop_signal=signal_text(body["stop_signal"]) if body.get("stop_signal") else None,
        stop_timeout=f"{body['stop_timeout']}s" if "stop_timeout" in body else None,
    )


def _port(mapping: Json) -> str:
    return port_text(mapping["host_ip"], mapping["host_port"], mapping["container_port"], mapping["protocol"])


def _labels(body: Json) -> dict[str, str]:
    labels = body.get("labels") or {}
    return {name: value for name, value in sorted(labels.items()) if not name.startswith(RESERVED_LABELS)}


def _alone(request: ContainerRequest, component: ComponentSpec) -> ServiceSpec:
    return ServiceSpec.model_construct(name=request.service, components=(component,))
