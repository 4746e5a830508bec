"""podman's API service with storage, networks, sockets and configuration of its own.

Rootful as root, rootless as a user, and for tests rootless as a throwaway user that root makes. Several such hosts
live side by side: each has its own pool of addresses and its own names of networks, since netavark names its chains
after the network.
"""

import json
import os
import resource
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Final

from stack import network, processes
from stack.layout import Layout, Owner
from stack.processes import StackError

_CAP_SYS_RESOURCE: Final = 24
_TUN: Final = Path("/dev/net/tun")
_PID_MAX: Final = Path("/proc/sys/kernel/pid_max")
# The programs that podman leaves behind when it is killed. A person's editor in our folder is none of them.
_HELPERS: Final = frozenset({"conmon", "podman", "catatonit", "slirp4netns", "rootlessport", "runc", "crun", "exe"})

_PAUSES: Final = frozenset({"catatonit", "podman pause"})


@dataclass(frozen=True)
class PodmanHost:
    """One podman: `socket` is its API, `run` its command line. Running `start` or `remove` twice is harmless."""

    layout: Layout

    @property
    def socket(self) -> Path:
        """The Unix socket of the API."""
        return self.layout.run / "podman.sock"

    @property
    def url(self) -> str:
        """The socket as podman's clients want it."""
        return f"unix://{self.socket}"

    @property
    def network(self) -> str:
        """The name of this host's own network, which `make_network` makes."""
        return f"mcpnet-{self.layout.tag}"

    @property
    def rootless(self) -> bool:
        """Whether containers run without root."""
        return self.layout.owner is not None or os.getuid() != 0

    @property
    def storage(self) -> Path:
        """The folder of images and containers."""
        return self.layout.root / "podman"

    def start(self) -> None:
        """Starts the API service and returns once it answers. Raises StackError when it does not."""
        self._prepare()
        if not processes.running(self.layout, "podman"):
            self.socket.unlink(missing_ok=True)
        command: list[str | Path] = [*self._command, "system", "service", "--time=0", self.url]
        owner = self.layout.owner
        if self.rootless and not owner and not os.access(_TUN, os.R_OK | os.W_OK):
            raise StackError(f"rootless podman needs {_TUN}, which is closed to you: as root, chmod 666 {_TUN}")
        if owner and not _everyone_may_use(_TUN):
            command, owner = _with_a_tun_of_its_own(command, owner), None
        processes.start(self.layout, "podman", command, env=self._environment, owner=owner)
        processes.wait_until(self.layout, "podman", lambda: _answers(self.socket), seconds=30)

    def stop(self) -> None:
        """Ends the API service alone: the containers run on."""
        processes.stop(self.layout, "podman", seconds=5)

    def run(self, *args: str | Path, check: bool = True) -> str:
        """What `podman ARGS` prints when it is asked through the API socket. Raises StackError with its reason."""
        return self._output(["podman", "--url", self.url, *args], check=check)

    def make_network(self) -> str:
        """Makes this host's own network, if it is missing; returns its name.

        podman would call the bridge podman1, and so would its neighbour on this machine: whichever stopped first
        would then take the other's bridge away.
        """
        if self.network not in self.run("network", "ls", "--quiet").split():
            from podman import PodmanClient  # here: `down` must work when the environment is gone

            bridge = {"name": self.network, "driver": "bridge", "network_interface": f"mcp-{self.layout.tag}"}
            with PodmanClient(base_url=self.url) as client:
                client.api.post("/networks/create", data=json.dumps(bridge)).raise_for_status()
        return self.network

    def wipe(self) -> None:
        """Removes every container there is, whoever made it."""
        self._output([*self._command, "rm", "--force", "--all", "--time", "0", "--volumes"], check=False)

    def remove(self) -> None:
        """Removes containers, networks, mounts, rules, processes and storage, also when half of it is dead."""
        if self.storage.exists() and self.layout.run.exists():
            self.wipe()
            names = self._output([*self._command, "network", "ls", "--quiet"], check=False).split()
            self._output([*self._command, "network", "rm", "--force", *names], check=False)
        self.stop()
        namespaces = _network_namespaces(self.storage)
        self._end_helpers()
        self._unmount(namespaces)
        if not self.rootless:
            network.remove_leftovers(network.pool(self.layout.tag))
        self._remove_storage()
        self.layout.remove_run()

    @property
    def words(self) -> list[str]:
        """This podman as a command line that needs no service and no environment, for whoever is its owner."""
        configuration = f"CONTAINERS_CONF={self._environment['CONTAINERS_CONF']}"
        return ["env", configuration, *map(str, self._command)]

    @cached_property
    def _command(self) -> list[str | Path]:
        run = self.layout.run
        return [
            "podman",
            *("--root", self.storage / "storage"),
            *("--runroot", run / "containers"),
            *("--tmpdir", run / "libpod"),
            *("--network-config-dir", self.storage / "networks"),
        ]

    @cached_property
    def _environment(self) -> dict[str, str]:
        """Nothing of the caller's but the path: no proxy, no other podman's configuration."""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.storage / "home"),
            "XDG_RUNTIME_DIR": str(self.layout.run),
            "TMPDIR": str(self.storage / "tmp"),
            "CONTAINERS_CONF": str(self.storage / "containers.conf"),
        }

    def _prepare(self) -> None:
        self.layout.make()
        for folder in (self.storage, *(self.storage / name for name in ("home", "tmp"))):
            folder.mkdir(mode=0o700, exist_ok=True)
            if owner := self.layout.owner:
                os.chown(folder, owner.uid, owner.gid)
        (self.storage / "containers.conf").write_text(_containers_conf(self.layout))

    def _output(self, argv: list[str | Path], *, check: bool) -> str:
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
                env=self._environment,
                **processes.identity(self.layout.owner),
            )
        except subprocess.TimeoutExpired as expired:
            if check:
                raise StackError(f"podman {argv[-1]} did not end within 120 s") from expired
            return ""
        if check and done.returncode != 0:
            raise StackError(f"podman: {done.stderr.strip()}")
        return done.stdout

    def _end_helpers(self) -> None:
        helpers = processes.working_in((self.layout.run, self.storage), names=_HELPERS)
        # Side by side: the monitors of commands that were run in containers heed no signal for five minutes.
        with ThreadPoolExecutor(32) as ends:
            left = (*helpers, *_inside_containers(self.storage), *self._pause())
            list(ends.map(partial(processes.end, seconds=2), left))

    def _pause(self) -> Iterator[processes.Process]:
        """The process that holds a rootless podman's namespaces; it says nothing of whose it is but in this file."""
        with suppress(OSError, ValueError):
            pid = int((self.layout.run / "libpod" / "pause.pid").read_text())
            is_one = Path(f"/proc/{pid}/comm").read_text().strip() in _PAUSES
            if is_one and (process := processes.identify(pid)):
                yield process

    def _unmount(self, namespaces: list[Path]) -> None:
        if os.getuid() != 0:
            return  # a user's mounts live in a namespace that ended with its last process
        for namespace in namespaces:
            subprocess.run(["umount", "--lazy", namespace], check=False, capture_output=True)
            namespace.unlink(missing_ok=True)
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for mount in reversed(mounts):
            if Path(mount).is_relative_to(self.storage) or Path(mount).is_relative_to(self.layout.run):
                subprocess.run(["umount", "--lazy", mount], check=False, capture_output=True)

    def _remove_storage(self) -> None:
        if os.getuid() != 0 and self.storage.exists():
            # Files that containers wrote belong to the subordinate ids of this user.
            self._output([*self._command, "unshare", "rm", "-rf", self.storage / "storage"], check=False)
            self._end_helpers()
        shutil.rmtree(self.storage, ignore_errors=True)


@contextmanager
def podman_host(layout: Layout) -> Iterator[PodmanHost]:
    """A running podman that is gone without a trace afterwards."""
    host = PodmanHost(layout)
    try:
        host.start()
        yield host
    finally:
        host.remove()


def _containers_conf(layout: Layout) -> str:
    """podman's configuration: independent of systemd, and fit for machines that withhold rights from root."""
    own = network.pool(layout.tag)
    first = next(own.subnets(new_prefix=24))
    limits, runtime = "", ""
    if not _has_capability(_CAP_SYS_RESOURCE):
        # podman would raise these limits, which the kernel then refuses. Its service lowers its own to pid_max.
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        tasks = min(resource.getrlimit(resource.RLIMIT_NPROC)[1], int(_PID_MAX.read_text()))
        limits = f'default_ulimits = ["nofile={files}:{files}", "nproc={tasks}:{tasks}"]\n'
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        runtime = 'runtime = "runc"\n'  # crun refuses a machine that mixes both versions of control groups
    return (
        f'[containers]\nlog_driver = "k8s-file"\n{limits}'
        f'[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nlock_type = "file"\n{runtime}'
        f'[network]\nnetwork_backend = "netavark"\n'
        f'default_network = "podman-{layout.tag}"\ndefault_subnet = "{first}"\n'
        f'default_subnet_pools = [{{"base" = "{own}", "size" = 24}}]\n'
    )


def _everyone_may_use(device: Path) -> bool:
    return device.stat().st_mode & 0o006 == 0o006


def _with_a_tun_of_its_own(command: list[str | Path], owner: Owner) -> list[str | Path]:
    """Runs `command` as `owner` where /dev/net/tun is open to it, in a mount namespace: the machine's stays closed."""
    tun = owner.home / "tun"
    if not tun.exists():
        os.mknod(tun, stat.S_IFCHR | 0o666, _TUN.stat().st_rdev)
        tun.chmod(0o666)
    script = f'mount --bind "$0" {_TUN} && cd "$HOME" && exec "$@"'
    become: list[str | Path] = ["setpriv", f"--reuid={owner.uid}", f"--regid={owner.gid}", "--clear-groups"]
    return ["unshare", "--mount", "sh", "-c", script, tun, *become, *command]


def _has_capability(number: int) -> bool:
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> number & 1)


def _inside_containers(storage: Path) -> Iterator[processes.Process]:
    """The processes whose own root is a container's: its mount names our storage."""
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            pid = int(entry.name)
            mounts = (line.split() for line in (entry / "mountinfo").read_text().splitlines())
            root = next((fields for fields in mounts if fields[4] == "/"), [])
            if f"{storage}/" in " ".join(root) and (process := processes.identify(pid)):
                yield process


def _network_namespaces(storage: Path) -> list[Path]:
    """The mounted network namespaces of the containers that still have files: each holds one end of a veth pair."""
    found = []
    for config in storage.glob("storage/overlay-containers/*/userdata/config.json"):
        with suppress(OSError, ValueError, KeyError):
            namespaces = json.loads(config.read_text())["linux"]["namespaces"]
            paths = (Path(space["path"]) for space in namespaces if space["type"] == "network" and "path" in space)
            found += [path for path in paths if path.is_relative_to("/run/netns") and path.exists()]
    return found


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.settimeout(1)
        probe.connect(str(path))
        probe.sendall(b"GET /libpod/_ping HTTP/1.0\r\n\r\n")
        return b" 200 " in probe.recv(64)
    return False
