"""Units for podman's systemd generator, podman-systemd.unit(5): one a component, and one a network.

Written with the keys that the first podman with the generator knows, 4.4;
what had no key then is an argument to podman. systemd replaces `%` and `$` in
what is made of them, so that both are doubled.
"""

from collections.abc import Iterable, Iterator
from math import ceil

from api.inspection import ExportedFile
from api.resolve import ResolvedComponent, ResolvedService
from api.secrecy import looks_secret
from api.spec import PullPolicy, RestartPolicy
from controller.export.parts import Part, PublishedPort, mounted

_RESTART = {
    RestartPolicy.NO: "no",
    RestartPolicy.ON_FAILURE: "on-failure",
    RestartPolicy.ALWAYS: "always",
    RestartPolicy.UNLESS_STOPPED: "always",
}
"""systemd leaves what a person stopped alone in any case."""

_HEAD = """\
# {what}
# Made by mcp export --format quadlet. Take the service from MCP first (mcp delete {service}), put these
# files into /etc/containers/systemd/, or ~/.config/containers/systemd/ without root, and then:
#   systemctl daemon-reload && systemctl start {unit}
"""


def render(
    resolved: ResolvedService, found: tuple[Part, ...], needed: tuple[str, ...]
) -> tuple[tuple[ExportedFile, ...], tuple[str, ...]]:
    """The files, and what they cannot say."""
    networks = dict.fromkeys(part.component.network for part in found if part.networked)
    files = [ExportedFile(name=f"{name}.network", content=_network(name, resolved.name)) for name in networks]
    names = {part.component.name: part.component.container_name for part in found}
    for part in found:
        waits = (*(names[other] for other in part.component.depends_on), *needed)
        content = "\n".join(_unit(resolved, part, waits)) + "\n"
        files.append(ExportedFile(name=f"{part.component.container_name}.container", content=content))
    return tuple(files), tuple(line for part in found for line in (*_withheld(part), *_lost(part.component)))


def _network(name: str, service: str) -> str:
    what = f"The network {name}: its containers know each other by their names."
    head = _HEAD.format(what=what, service=service, unit=f"{name}-network.service")
    return f"{head}[Network]\nDriver=bridge\n"


def _unit(resolved: ResolvedService, part: Part, waits: tuple[str, ...]) -> Iterator[str]:
    component = part.component
    name = component.container_name
    what = f"Component {component.name} of service {resolved.name}."
    yield _HEAD.format(what=what, service=resolved.name, unit=f"{name}.service") + "[Unit]"
    yield f"Description={resolved.name}/{component.name}"
    for other in waits:
        yield f"Requires={other}.service"
        yield f"After={other}.service"
    yield "\n[Container]"
    yield from _container(part)
    yield "\n[Service]"
    if component.derived_volume:
        yield f"ExecStartPre=/bin/mkdir -p {_word(component.derived_volume)}"
    yield f"Restart={_RESTART[component.restart]}"
    # The first start may have to bring the image.
    yield "TimeoutStartSec=900"
    if component.active:
        yield "\n[Install]\nWantedBy=default.target"


def _container(part: Part) -> Iterator[str]:
    component = part.component
    yield f"ContainerName={component.container_name}"
    yield f"Image={component.image}"
    user, _, group = component.user.partition(":")
    yield f"User={user}"
    if group:
        yield f"Group={group}"
    yield f"Network={component.network}.network" if part.networked else f"Network={component.network}"
    yield from (f"PublishPort={_published(port)}" for port in part.ports)
    for key, value in part.env.items():
        if looks_secret(key):
            yield "# Secret:"
        yield f"Environment={_word(f'{key}={value}')}"
    yield from (f"Volume={_volume(volume)}" for volume in component.volumes)
    yield from (f"Label={_word(f'{key}={value}')}" for key, value in component.labels.items())
    yield from (f"DropCapability={one}" for one in component.cap_drop)
    yield from (f"AddCapability={one}" for one in component.cap_add)
    if component.read_only:
        yield "ReadOnly=true"
    yield from (f"PodmanArgs={_words(words)}" for words in _arguments(part))
    if component.cmd:
        yield f"Exec={_words(component.cmd)}"


def _arguments(part: Part) -> Iterator[tuple[str, ...]]:
    """What had no key of its own in podman 4.4."""
    component = part.component
    if component.entrypoint is not None:
        # As JSON it is a list of words, whatever is in them.
        words = ",".join(f'"{_json(word)}"' for word in component.entrypoint)
        yield "--entrypoint", f"[{words}]"
    given = {
        "--workdir": component.working_dir,
        "--memory": str(component.memory) if component.memory else "",
        "--memory-swap": str(component.memory) if component.memory else "",
        "--cpus": f"{component.cpus:g}" if component.cpus else "",
        "--pids-limit": str(component.pids) if component.pids else "",
        "--stop-signal": component.stop_signal,
        "--stop-timeout": str(ceil(component.stop_timeout.total_seconds())),
        "--pull": "" if component.pull is PullPolicy.MISSING else str(component.pull),
        "--privileged": "true" if component.privileged else "",
    }
    yield from ((f"{name}={value}",) for name, value in given.items() if value)
    yield from ((f"--{namespace}=host",) for namespace in component.host_namespaces)
    yield from (("--tmpfs", mount) for mount in component.tmpfs)
    yield from (("--add-host", host) for host in component.extra_hosts)
    for name, path in component.secrets:
        yield "--secret", f"{name},mode=0444" + (f",target={path}" if path else "")
    for variable, name in {**component.secret_variables, **part.secrets}.items():
        yield "--secret", f"{name},type=env,target={variable}"
    health = component.health
    if health and health.exec:
        yield "--health-cmd", "[" + ",".join(f'"{_json(word)}"' for word in ("CMD", *health.exec)) + "]"
        yield (f"--health-interval={health.interval:g}s", f"--health-timeout={health.timeout:g}s")
        yield (f"--health-retries={health.retries}", f"--health-start-period={health.start_period:g}s")


def _withheld(part: Part) -> Iterator[str]:
    for variable, name in part.secrets.items():
        yield (
            f"{part.component.container_name}: the value of {variable} is given out nowhere: before the start, "
            f"printf %s VALUE | podman secret create {name} -"
        )


def _lost(component: ResolvedComponent) -> Iterator[str]:
    name = component.container_name
    if component.health and not component.health.exec:
        yield f"{name}: its health check is made over the network, which podman cannot: nobody asks how it is"
    if component.health and component.health.exec and component.health.liveness:
        yield f"{name}: podman notes a failing health check, and restarts nothing because of it"
    if component.update.blue_green:
        yield f"{name}: a blue-green update is not carried over: it is replaced in place"
    for secret in dict.fromkeys([*(name for name, _ in component.secrets), *component.secret_variables.values()]):
        yield f"{name}: it needs podman's secret {secret}, which stays where it is"


def _published(port: PublishedPort) -> str:
    host = f"[{port.host}]:" if ":" in port.host else f"{port.host}:" if port.host else ""
    return f"{host}{port.host_port}:{port.container_port}/{port.protocol}"


def _volume(volume: str) -> str:
    source, destination, options = mounted(volume)
    return _doubled(":".join((source, destination, ",".join(("rbind", *options)))))


def _words(words: Iterable[str]) -> str:
    return " ".join(_word(word) for word in words)


def _word(word: str) -> str:
    """One word as systemd.syntax(7) quotes it."""
    return f'"{_doubled(_escaped(word))}"'


def _escaped(text: str) -> str:
    plain = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t"}
    return "".join(plain.get(c, f"\\x{ord(c):02x}" if ord(c) < 32 or ord(c) == 127 else c) for c in text)


def _json(text: str) -> str:
    plain = {"\\": "\\\\", '"': '\\"'}
    return "".join(plain.get(c, f"\\u{ord(c):04x}" if ord(c) < 32 else c) for c in text)


def _doubled(text: str) -> str:
    return text.replace("%", "%%").replace("$", "$$")
