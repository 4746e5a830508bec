"""`make up` and `make down`: one host that stays, below .local/host of this clone."""

import sys
from pathlib import Path
from typing import Final

from stack import images
from stack.host import Host
from stack.layout import Layout
from stack.podman import PodmanHost
from stack.processes import StackError

LOCAL: Final = Path(__file__).resolve().parent.parent / ".local"


def host_at(root: Path) -> Host:
    """The host whose folder is `root`, with a podman of its own."""
    layout = Layout(root)
    return Host(layout, PodmanHost(layout))


def up() -> None:
    """Starts the host and says how to use it; harmless when it runs already."""
    host = host_at(LOCAL / "host")
    host.up()
    # What the examples name: no registry has them.
    images.build(host.podman)
    env = LOCAL / "env"
    env.unlink(missing_ok=True)
    env.symlink_to(host.env_file)
    print(f"{host.node} is up on {':'.join(map(str, host.address))}. Now: source .local/env && mcp status")


def down() -> None:
    """Removes the host, and a demo's if one was interrupted."""
    for root in (LOCAL / "host", LOCAL / "demo"):
        if root.exists():
            host_at(root).down()
    (LOCAL / "env").unlink(missing_ok=True)


def main() -> int:
    """Runs the command named first; returns the exit code."""
    commands = {"up": up, "down": down}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        print(f"usage: python -m stack {'|'.join(commands)}", file=sys.stderr)
        return 64
    try:
        commands[sys.argv[1]]()
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
