"""A throwaway account, with subordinate ids, for running a rootless podman in a test that runs as root."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from pwd import getpwnam

from stack import processes
from stack.layout import Layout, Owner


@contextmanager
def throwaway_user() -> Iterator[Owner]:
    """An account with a private home below /tmp, gone with its processes and files afterwards. Needs root."""
    home = Path(tempfile.mkdtemp(prefix="mcp-u"))
    name = home.name.lower().replace("_", "-").removesuffix("-")
    subprocess.run(
        ["useradd", "--home-dir", home, "--no-create-home", "--shell", "/bin/sh", name], check=True, capture_output=True
    )
    try:
        account = getpwnam(name)
        os.chown(home, account.pw_uid, account.pw_gid)
        yield Owner(uid=account.pw_uid, gid=account.pw_gid, home=home)
    finally:
        _end_all(getpwnam(name).pw_uid)
        subprocess.run(["userdel", name], check=True, capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def rootless_layout() -> Iterator[Layout]:
    """A place for a host that runs without root: ours, or as root that of a throwaway account."""
    if os.getuid() != 0:
        with tempfile.TemporaryDirectory(prefix="mcp-r") as folder:
            yield Layout(Path(folder))
    else:
        with throwaway_user() as owner:
            yield Layout(owner.home / "host", owner)


def _end_all(uid: int) -> None:
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(FileNotFoundError, ProcessLookupError):
                if folder.stat().st_uid == uid and (process := processes.identify(int(folder.name))):
                    processes.end(process, sig=signal.SIGKILL)
