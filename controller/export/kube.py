"""YAML for `podman kube play`: a pod for each component, as each has ports and a network of its own."""

from collections.abc import Iterator
from math import ceil
from typing import Any

import yaml

from api.inspection import ExportedFile
from api.resolve import ResolvedComponent, ResolvedService
from api.spec import HostNamespace, PullPolicy, RestartPolicy
from api.units import size
from controller.export.parts import Part, mounted

_RESTART = {
    RestartPolicy.NO: "Never",
    RestartPolicy.ON_FAILURE: "OnFailure",
    RestartPolicy.ALWAYS: "Always",
    RestartPolicy.UNLESS_STOPPED: "Always",
}
_PULL = {
    PullPolicy.MISSING: "IfNotPresent",
    PullPolicy.NEVER: "Never",
    PullPolicy.ALWAYS: "Always",
    PullPolicy.NEWER: "Always",
}

_HEAD = """\
# Service {service}.
# Made by mcp export --format kube. Take the service from MCP first (mcp delete {service}), and then:
{commands}
"""


def render(
    resolved: ResolvedService, found: tuple[Part, ...], needed: tuple[str, ...]
) -> tuple[tuple[ExportedFile, ...], tuple[str, ...]]:
    """One file for each network, as podman is told of the network beside the file; and what they cannot say."""
    networks = tuple(dict.fromkeys(part.component.network if part.networked else "" for part in found))
    files = []
    for network in networks:
        pods = [_pod(resolved, part) for part in found if (part.component.network if part.networked else "") == network]
        name = f"{resolved.name}.yaml" if len(networks) == 1 else f"{resolved.name}-{network or 'host'}.yaml"
        files.append(ExportedFile(name=name, content=_head(resolved.name, name, network) + _documents(pods)))
    lost = [line for part in found for line in (*_withheld(part.component), *_lost(part.component))]
    lost += [f"{resolved.name}: nobody starts {name} first, which it depends on" for name in needed]
    return tuple(files), tuple(lost)


def _head(service: str, name: str, network: str) -> str:
    commands = [f"podman network exists {network} || podman network create {network}"] if network else []
    commands.append(f"podman kube play {f'--network {network} ' if network else ''}{name}")
    return _HEAD.format(service=service, commands="\n".join(f"#   {command}" for command in commands))


def _documents(pods: list[dict[str, Any]]) -> str:
    return str(yaml.safe_dump_all(pods, sort_keys=False, explicit_start=True, width=1000))


def _pod(resolved: ResolvedService, part: Part) -> dict[str, Any]:
    component = part.component
    volumes, mounts = _volumes(component)
    container = {
        "name": component.name,
        "image": component.image,
        "imagePullPolicy": _PULL[component.pull],
        "command": list(component.entrypoint or ()),
        "args": list(component.cmd),
        "workingDir": component.working_dir,
        "env": [*({"name": name, "value": value} for name, value in part.env.items()), *_secret_variables(component)],
        "ports": _ports(part),
        "resources": _resources(component),
        "securityContext": _security(component),
        "livenessProbe": _probe(component),
        "volumeMounts": mounts,
    }
    spec = {
        "restartPolicy": _RESTART[component.restart],
        "terminationGracePeriodSeconds": ceil(component.stop_timeout.total_seconds()),
        "hostNetwork": component.network == "host",
        "hostPID": HostNamespace.PID in component.host_namespaces,
        "hostIPC": HostNamespace.IPC in component.host_namespaces,
        "hostAliases": [_alias(host) for host in component.extra_hosts],
        "containers": [_given(container)],
        "volumes": volumes,
    }
    labels = {"app": resolved.name, **component.labels}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": component.container_name, "labels": labels},
        "spec": _given(spec),
    }


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in ("", [], {}, False, None)}


def _secret_variables(component: ResolvedComponent) -> Iterator[dict[str, Any]]:
    for name in component.secret_env:
        yield {"name": name, "valueFrom": {"secretKeyRef": {"name": component.container_name, "key": name}}}


def _ports(part: Part) -> list[dict[str, Any]]:
    return [
        _given(
            {
                "containerPort": port.container_port,
                "hostPort": port.host_port,
                "hostIP": port.host,
                "protocol": port.protocol.upper(),
            }
        )
        for port in part.ports
    ]


def _resources(component: ResolvedComponent) -> dict[str, Any]:
    limits = {
        "memory": str(component.memory) if component.memory else "",
        "cpu": f"{ceil(component.cpus * 1000)}m" if component.cpus else "",
    }
    return {"limits": given} if (given := _given(limits)) else {}


def _security(component: ResolvedComponent) -> dict[str, Any]:
    user, _, group = component.user.partition(":")
    found = {
        "privileged": component.privileged,
        "readOnlyRootFilesystem": component.read_only,
        "capabilities": _given({"add": list(component.cap_add), "drop": list(component.cap_drop)}),
    }
    # Not by _given: 0 is root.
    ids = {"runAsUser": user, "runAsGroup": group}
    return {**{name: int(number) for name, number in ids.items() if number.isdecimal()}, **_given(found)}


def _probe(component: ResolvedComponent) -> dict[str, Any]:
    health = component.health
    if health is None or not health.exec or not health.liveness:
        return {}
    return {
        "exec": {"command": list(health.exec)},
        "periodSeconds": max(1, ceil(health.interval)),
        "timeoutSeconds": max(1, ceil(health.timeout)),
        "failureThreshold": health.retries,
        "initialDelaySeconds": ceil(health.start_period),
    }


def _alias(host: str) -> dict[str, Any]:
    name, _, address = host.partition(":")
    return {"ip": address, "hostnames": [name]}


def _volumes(component: ResolvedComponent) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    volumes: list[dict[str, Any]] = []
    mounts: list[dict[str, Any]] = []
    for index, volume in enumerate(component.volumes):
        source, destination, options = mounted(volume)
        path = {"path": source, **({"type": "DirectoryOrCreate"} if source == component.derived_volume else {})}
        volumes.append({"name": f"host-{index}", "hostPath": path})
        read_only = {"readOnly": True} if "ro" in options else {}
        mounts.append({"name": f"host-{index}", "mountPath": destination, **read_only})
    for index, mount in enumerate(component.tmpfs):
        destination, _, given = mount.partition(":")
        sizes = [option.partition("=")[2] for option in given.split(",") if option.startswith("size=")]
        limit = {"sizeLimit": str(size(sizes[0]))} if sizes else {}
        volumes.append({"name": f"memory-{index}", "emptyDir": {"medium": "Memory", **limit}})
        mounts.append({"name": f"memory-{index}", "mountPath": destination})
    return volumes, mounts


def _withheld(component: ResolvedComponent) -> Iterator[str]:
    if component.secret_env:
        name = component.container_name
        yield (
            f"{name}: the value of {', '.join(component.secret_env)} is given out nowhere: before the start, make the "
            f"Secret {name} with that under stringData, by podman kube play (since podman 4.4) or kubectl apply"
        )


def _lost(component: ResolvedComponent) -> Iterator[str]:
    name = component.container_name
    gone = {
        "pids": component.pids,
        "stop_signal": component.stop_signal,
        "the health check over the network": component.health and not component.health.exec,
        "the blue-green update": component.update.blue_green,
        "host_namespaces uts": HostNamespace.UTS in component.host_namespaces,
        "depends_on": component.depends_on,
        "an empty entrypoint": component.entrypoint == (),
        f"user {component.user}": not all(one.isdecimal() for one in component.user.split(":")),
    }
    lost = [what for what, given in gone.items() if given]
    secrets = [*(name for name, _ in component.secrets), *component.secret_variables.values()]
    lost += [f"podman's secret {secret}" for secret in dict.fromkeys(secrets)]
    if lost:
        yield f"{name}: not carried over: {', '.join(lost)}"
