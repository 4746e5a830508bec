"""What is as it should be on a host, and what to do where it is not: one function a check. Each looks, and judges."""

import os
import pwd
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from api.inspection import Finding, FindingState
from api.service import Service, SnapshotStatus
from controller.alerts.command import Attempt, Outcome
from reconcilers.containers.model import ContainerObservation, Observation

_OLDEST_PODMAN: Final = (4, 0)
_FEWEST_IDS: Final = 65536
_SOON: Final = timedelta(days=30)
_MOST_SKEW: Final = 60.0
"""Seconds that two clocks may differ."""
_FEW_PORTS: Final = 1000
_WANTED_CONTROLLERS: Final = ("cpu", "memory", "pids")
_GIB: Final = 1 << 30


def ok(check: str, found: str) -> Finding:
    """All is well."""
    return Finding(check=check, state=FindingState.OK, found=found)


def warning(check: str, found: str, advice: str) -> Finding:
    """It works, and may not for long."""
    return Finding(check=check, state=FindingState.WARNING, found=found, advice=advice)


def problem(check: str, found: str, advice: str) -> Finding:
    """Something does not work."""
    return Finding(check=check, state=FindingState.PROBLEM, found=found, advice=advice)


# The engine. `info` is podman's own, GET /libpod/info.


def podman(info: Mapping[str, Any], socket: str) -> Finding:
    """Its version."""
    version = str(info["version"]["Version"])
    found = f"version {version} at {socket}, storage at {info['store']['graphRoot']}"
    numbers = tuple(int(part) for part in version.partition("-")[0].split(".")[:2] if part.isdecimal())
    if numbers < _OLDEST_PODMAN:
        return problem("podman", found, "install podman 4.0 or later")
    return ok("podman", found)


def runtime(info: Mapping[str, Any], exists: Callable[[str], bool]) -> Finding:
    """What runs containers."""
    name, path = info["host"]["ociRuntime"]["name"], info["host"]["ociRuntime"]["path"]
    if path and not exists(path):
        advice = "install it, or name another one in containers.conf: [engine] runtime"
        return problem("runtime", f"{name}: there is no {path}", advice)
    return ok("runtime", f"{name} at {path}")


def cgroups(info: Mapping[str, Any]) -> Finding:
    """Whether limits can be kept, and usage be measured."""
    version, rootless = info["host"]["cgroupVersion"], bool(info["host"]["security"]["rootless"])
    has = info["host"].get("cgroupControllers") or []
    found = f"{version}, controllers {', '.join(has) or 'none'}"
    if version == "v2":
        missing = [name for name in _WANTED_CONTROLLERS if name not in has]
        if not missing:
            return ok("cgroups", found)
        advice = (
            "delegate them: Delegate=cpu cpuset io memory pids in "
            "/etc/systemd/system/user@.service.d/delegate.conf, then systemctl daemon-reload and log in again"
        )
        return warning("cgroups", f"{found}: no {', '.join(missing)} for containers", advice)
    advice = "boot with systemd.unified_cgroup_hierarchy=1 for control groups v2"
    if rootless:
        return warning("cgroups", f"{found}: without root there are neither limits nor figures of usage", advice)
    return ok("cgroups", found)


# Rootless. `user` is whoever's podman it is.


def subordinate_ids(user: pwd.struct_passwd, files: Iterable[Path]) -> Finding:
    """The ids that containers of a user may have beside the user's own."""
    short = [str(path) for path in files if _ids(path, user) < _FEWEST_IDS]
    if not short:
        return ok("subordinate ids", f"{user.pw_name} has {_FEWEST_IDS} or more")
    advice = f"usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user.pw_name}; podman system migrate"
    return problem("subordinate ids", f"{user.pw_name} has too few in {' and '.join(short)}", advice)


def _ids(path: Path, user: pwd.struct_passwd) -> int:
    if not path.exists():
        return 0
    entries = (line.split(":") for line in path.read_text().splitlines() if line.count(":") == 2)
    own = (count for who, _, count in entries if who in (user.pw_name, str(user.pw_uid)))
    return sum(int(count) for count in own if count.strip().isdecimal())


def lingering(user: pwd.struct_passwd, systemd: Path, linger: Path) -> Finding:
    """Whether a user's services outlive the session, and start at boot."""
    if not systemd.exists():
        return ok("lingering", "there is no systemd that would end a user's services")
    if (linger / user.pw_name).exists():
        return ok("lingering", f"on for {user.pw_name}")
    advice = f"loginctl enable-linger {user.pw_name}"
    return problem("lingering", f"off: what {user.pw_name} runs ends with the last session", advice)


def tunnel(device: Path) -> Finding:
    """What rootless containers reach a network by."""
    try:
        mode = device.stat().st_mode
    except OSError as error:
        return warning("network device", f"{device}: {error.strerror}", "modprobe tun: without it none has a network")
    if mode & 0o006 == 0o006:
        return ok("network device", str(device))
    return warning("network device", f"{device} is not open to everyone", f"chmod 666 {device}, as udev leaves it")


def runtime_folder(user: pwd.struct_passwd, folder: str) -> Finding:
    """Where rootless podman keeps what it must lose at a reboot, as it says itself: what it was started with counts."""
    # What podman, or the library of its storage, falls back to.
    if f"-run-{user.pw_uid}/" not in folder:
        return ok("run-time folder", folder)
    advice = (
        f"have systemd start it as {user.pw_name} (systemctl --user enable --now podman.socket), or set"
        f" XDG_RUNTIME_DIR=/run/user/{user.pw_uid} in its unit"
    )
    return warning("run-time folder", f"{folder}: podman was started without XDG_RUNTIME_DIR", advice)


# Certificates.


def authority(path: Path, now: datetime) -> Finding:
    """The embedded CA's own end."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        return problem("CA", f"{path} cannot be read: {error}", "restore the folder of the CA from a snapshot")
    end = certificate.not_valid_after_utc
    found = f"{path}, until {end:%Y-%m-%d}"
    advice = (
        f"take {path.parent} away for a new CA, restart the agent, and give its ca.pem to all who trust the old one"
    )
    if now >= end:
        return problem("CA", f"{path} expired on {end:%Y-%m-%d}", advice)
    return warning("CA", found, advice) if end - now < _SOON else ok("CA", found)


def certificates(services: Iterable[Service], now: datetime) -> Finding:
    """Whether those that were laid down still serve."""
    all_of_them = [certificate for service in services for certificate in service.certificates]
    advice = "mcp certs says why they are not renewed"
    if ended := [one.hostname for one in all_of_them if one.fingerprint and now >= one.not_after]:
        return problem("certificates", f"expired: {', '.join(ended)}", advice)
    if failing := [one.hostname for one in all_of_them if one.error]:
        return warning("certificates", f"not renewed: {', '.join(failing)}", advice)
    return ok("certificates", f"{len(all_of_them)} laid down, none expired")


def api_certificate(not_after: datetime, kept: str, now: datetime, *, given: bool) -> Finding:
    """The one that callers over TCP are shown; `kept` says why it is not another one by now."""
    check, end = "API certificate", f"until {not_after:%Y-%m-%d}"
    advice = "mend the files of api.cert_file and api.key_file: they are read again as they change"
    if not given:
        advice = "see what CA says above: the agent renews it by itself, with the next connection"
    if now >= not_after:
        return problem(check, f"expired on {not_after:%Y-%m-%d}: nobody who verifies it comes in", advice)
    if kept:
        return warning(check, f"the one before, {end}, is shown: {kept}", advice)
    soon = given and not_after - now < _SOON / 3
    return warning(check, end, "put a new one in its place; the agent reads it by itself") if soon else ok(check, end)


def writable(check: str, folder: Path) -> Finding:
    """Whether the agent can put files there."""
    if not folder.is_dir():
        return problem(check, f"there is no folder {folder}", f"mkdir -p {folder}, writable for the agent's account")
    if not os.access(folder, os.W_OK | os.X_OK):
        return problem(check, f"{folder} cannot be written", f"chown it to the agent's account, uid {os.getuid()}")
    return ok(check, f"{folder} can be written")


# The clock.


def clock(now: datetime, newest: datetime | None, hardware: Path) -> Finding:
    """Whether the time can be right: by what was written before, and by the hardware's own clock."""
    advice = "set the clock, and have it kept: timedatectl set-ntp true, or chrony"
    if newest is not None and newest - now > timedelta(seconds=_MOST_SKEW):
        return problem(
            "clock", f"it is {now:%Y-%m-%dT%H:%M:%SZ}, and the registry knows of {newest:%Y-%m-%dT%H:%M:%SZ}", advice
        )
    try:
        apart = now.timestamp() - int(hardware.read_text())
    except (OSError, ValueError):
        return ok("clock", f"{now:%Y-%m-%dT%H:%M:%SZ}; there is no hardware clock to compare it with")
    if abs(apart) > _MOST_SKEW:
        return warning("clock", f"{abs(apart):.0f} s away from the hardware's clock", advice)
    return ok("clock", f"{now:%Y-%m-%dT%H:%M:%SZ}, as the hardware's clock says")


def synchronised(said: str) -> Finding:
    """What `timedatectl show --property=NTPSynchronized --value` says; empty where nobody could be asked."""
    if said == "yes":
        return ok("time synchronisation", "on")
    if not said:
        return ok("time synchronisation", "nobody here can say: see to it that something keeps the clock")
    advice = "timedatectl set-ntp true: certificates and tokens fail when the clock is wrong"
    return warning("time synchronisation", "off", advice)


# Room.


def room(check: str, folder: Path, space: os.statvfs_result) -> Finding:
    """Space and inodes of the file system below a folder."""
    free, whole = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
    share = free / whole if whole else 1.0
    inodes = space.f_favail / space.f_files if space.f_files else 1.0
    found = f"{folder}: {free / _GIB:.1f} GiB free of {whole / _GIB:.1f}, {inodes:.0%} of the inodes"
    advice = (
        f"make room: mcp ps shows foreign containers, podman system prune removes what nobody uses, du -xh {folder}"
    )
    if free < _GIB / 4 or share < 0.01 or inodes < 0.01:
        return problem(check, found, advice)
    if free < 2 * _GIB or share < 0.05 or inodes < 0.05:
        return warning(check, found, advice)
    return ok(check, found)


def ports(low: int, high: int, given: int, ephemeral: range) -> Finding:
    """Whether the range of ports for routes holds enough that nobody else takes."""
    overlap = max(0, min(high + 1, ephemeral.stop) - max(low, ephemeral.start))
    left = high - low + 1 - overlap - given
    found = f"{low}-{high}, {given} given; outgoing connections take {ephemeral.start}-{ephemeral.stop - 1}"
    if left >= _FEW_PORTS:
        return ok("ports", found)
    advice = (
        "set ports.low and ports.high outside of it, or sysctl net.ipv4.ip_local_port_range: "
        "connections may take a port before a container does"
    )
    return warning("ports", f"{found}: {max(0, left)} are left to routes alone", advice)


# The way back.


def snapshots(found: SnapshotStatus, folder: Path) -> Finding:
    """Whether what the agent keeps could be had again."""
    if found.problem:
        advice = "systemctl enable --now mcp-agent-snapshot.timer, and try: mcp-agent snapshot"
        return warning("snapshots", f"{folder}: {found.problem}", advice)
    last = f"the last one is of {found.taken_at:%Y-%m-%d %H:%M} UTC" if found.taken_at else "none yet, as all is new"
    return ok("snapshots", f"{folder}: {last}")


# Who is told.


def alerts(command: Sequence[str], last: Attempt | None) -> Finding:
    """Whether the command is there, and told of the last event."""
    if not command:
        return ok("alerts", "none are configured: look at mcp events")
    path = Path(command[0])
    if not path.is_file():
        return problem("alerts", f"there is no {path}", "put the command there, or set alerts.command")
    if not os.access(path, os.X_OK):
        return problem("alerts", f"{path} cannot be run", f"chmod +x it, for the agent's account, uid {os.getuid()}")
    if last is None:
        return ok("alerts", f"{path}: there was nothing to tell yet")
    which = f"of {last.event.service} ({last.event.kind})"
    if last.outcome is not Outcome.TOLD:
        advice = "journalctl -u mcp-agent shows what it said; try it with one line of mcp events --follow -o json"
        return warning("alerts", f"{path}: the last one, {which}, {last.outcome}: it {last.detail}", advice)
    return ok("alerts", f"{path}: the last one was told, {which}")


# What is left.


def leftovers(observation: Observation, services: Mapping[str, Service], node: str) -> Finding:
    """Containers that carry our labels, and that no definition speaks of."""
    left = [one.name for one in observation if one.owned_by(node) and not _wanted(one, services)]
    if not left:
        return ok("leftovers", "each container of ours has a definition")
    advice = "apply the definitions they came from, or remove them: podman rm --force NAME"
    return warning("leftovers", f"ours, and in no definition: {', '.join(sorted(left))}", advice)


def _wanted(container: ContainerObservation, services: Mapping[str, Service]) -> bool:
    service = services.get(container.service)
    return service is not None and (
        # What is not defined any more is taken away by the reconciler, which may just be at it.
        service.deleting
        or service.component(container.component) is not None
        or any(component.name == container.component for component in service.spec.components)
    )
