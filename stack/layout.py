"""Where everything lies: one folder holds a host, and a short private one its sockets.

A Unix socket's path may have at most 107 bytes and podman refuses a long run folder, so that what is bound to
the running machine goes below /tmp (or XDG_RUNTIME_DIR) when the host's own folder lies too deep.
"""

import hashlib
import os
import shutil
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

# podman refuses a run folder longer than 50 bytes; ours is `<run>/containers`.
_LONGEST_RUN = 39
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Owner:
    """The account that programs run as, when it is not our own; `home` is its private folder."""

    uid: int
    gid: int
    home: Path


@dataclass(frozen=True)
class Layout:
    """The paths of one host. `root` is absolute and holds all that lasts; `run` lasts no longer than the boot."""

    root: Path
    owner: Owner | None = None

    @cached_property
    def tag(self) -> str:
        """Eight hex digits that tell this host's networks and nodes from those of its neighbours."""
        return hashlib.sha256(os.fsencode(self.root)).hexdigest()[:8]

    @cached_property
    def run(self) -> Path:
        """The folder of sockets and of podman's run-time state: below `root` where that is short enough."""
        inside = self.root / "run"
        if len(os.fsencode(inside)) <= _LONGEST_RUN:
            return inside
        uid = self.owner.uid if self.owner else os.getuid()
        runtime = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
        short = runtime / f"mcp-{self.tag}"
        if (
            self.owner is None
            and runtime.is_dir()
            and runtime.is_absolute()
            and len(os.fsencode(short)) <= _LONGEST_RUN
        ):
            return short
        return Path(f"/tmp/mcp-{uid}-{self.tag}")  # `make` checks whose it is

    @property
    def log(self) -> Path:
        """The folder of the programs' logs."""
        return self.root / "log"

    @property
    def pid(self) -> Path:
        """The folder of the records that say which processes are ours."""
        return self.root / "pid"

    def make(self) -> None:
        """Makes the folders, private to their owner; a run folder left by an earlier boot is emptied first.

        Raises PermissionError when another account holds the run folder's name.
        """
        for folder in (self.root, self.log, self.pid):
            folder.mkdir(parents=True, exist_ok=True)
        self.run.mkdir(mode=0o700, exist_ok=True)
        self._check_run_is_ours()
        boot_id = _BOOT_ID.read_text()
        if _read(self.run / "boot-id") != boot_id:
            shutil.rmtree(self.run)
            self.run.mkdir(mode=0o700)
        (self.run / "boot-id").write_text(boot_id)
        inside = self.root / "run"
        if inside != self.run:
            inside.unlink(missing_ok=True)
            inside.symlink_to(self.run)
        if self.owner:
            for folder in (self.run, self.run / "boot-id"):
                os.chown(folder, self.owner.uid, self.owner.gid)

    def remove_run(self) -> None:
        """Removes the run folder and the link to it."""
        shutil.rmtree(self.run, ignore_errors=True)
        inside = self.root / "run"
        if inside.is_symlink():
            inside.unlink()

    def _check_run_is_ours(self) -> None:
        found = self.run.lstat()
        allowed = {os.getuid(), self.owner.uid if self.owner else os.getuid()}
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in allowed:
            raise PermissionError(f"{self.run} belongs to another account: remove it and try again")


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None
