"""As much of systemctl(1) as deploy/install asks for, over the units below $UNIT_ROOT: there is no systemd in a test.

Units are Type=notify, and a start ends when the service says READY=1 or is gone, as systemd's does.
"""

import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(os.environ["UNIT_ROOT"])
RUN = ROOT / "run" / "systemd" / "system"


def _pid(unit: str) -> int | None:
    file = RUN / f"{unit}.pid"
    return int(file.read_text()) if file.exists() else None


def _start(unit: str) -> int:
    lines = (ROOT / f"usr/local/lib/systemd/system/{unit}.service").read_text().splitlines()
    (command,) = (line.removeprefix("ExecStart=") for line in lines if line.startswith("ExecStart="))
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"{folder}/notify")
        environ = os.environ | {
            "NOTIFY_SOCKET": f"{folder}/notify",
            "MCP_AGENT_CONFIG": f"{ROOT}/etc/mcp/mcp-agent.toml",
        }
        with (RUN / f"{unit}.log").open("ab") as log:
            program = subprocess.Popen(f"{ROOT}{command}".split(), env=environ, stdout=log, stderr=log)
        ended = os.pidfd_open(program.pid)
        ready, _, _ = select.select([heard, ended], [], [], 60)
    if heard not in ready:
        program.kill()
        (RUN / f"{unit}.failed").touch()
        return 1
    (RUN / f"{unit}.pid").write_text(str(program.pid))
    return 0


def _stop(unit: str) -> int:
    (RUN / f"{unit}.failed").unlink(missing_ok=True)
    if (pid := _pid(unit)) is not None:
        ended = os.pidfd_open(pid)
        os.kill(pid, signal.SIGTERM)
        select.select([ended], [], [], 60)
        (RUN / f"{unit}.pid").unlink()
    return 0


def _state(unit: str) -> str:
    if _pid(unit) is not None:
        return "active"
    return "failed" if (RUN / f"{unit}.failed").exists() else "inactive"


def main() -> int:
    """Runs one command, and notes it."""
    command, *rest = (word for word in sys.argv[1:] if not word.startswith("-"))
    with (RUN / "calls").open("a") as calls:
        calls.write(f"{' '.join((command, *rest))}\n")
    match command:
        case "start":
            return _start(rest[0])
        case "stop":
            return _stop(rest[0])
        case "is-active":
            if "--quiet" not in sys.argv:
                sys.stdout.write(f"{_state(rest[0])}\n")
            return 0 if _state(rest[0]) == "active" else 3
        case "daemon-reload" | "reset-failed":
            return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
