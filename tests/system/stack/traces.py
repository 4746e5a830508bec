"""What a host left on the machine."""

import os
from pathlib import Path

from stack import network
from stack.layout import Layout


def traces(layout: Layout) -> list[str]:
    """What a host left on the machine: processes, mounts, bridges, rules, files."""
    paths = (str(layout.root), str(layout.run))
    found = [line for line in Path("/proc/self/mounts").read_text().splitlines() if any(p in line for p in paths)]
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        found += [command] if any(path in command for path in paths) else []
    if os.getuid() == 0:
        found += network.leftovers(network.pool(layout.tag))
    found += [str(path) for path in (layout.run, layout.root / "podman") if path.exists()]
    return found
