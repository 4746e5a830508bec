"""What the kernel says of TCP ports: whether one can be had, and which it hands out itself. See ip(7)."""

import errno
import socket
from pathlib import Path

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def is_bindable(port: int) -> bool:
    """Whether a container could listen on the port, on whatever address. Raises OSError where that cannot be known.

    Trying takes 20 microseconds; to read /proc/net/tcp makes the kernel walk
    its whole table of connections, for milliseconds. Without SO_REUSEADDR the
    port of a connection in TIME_WAIT counts as taken as well: there are others.
    """
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def ephemeral_ports() -> range:
    """The ports from which the kernel chooses those of outgoing connections. Raises OSError."""
    first, last = _EPHEMERAL.read_text().split()
    return range(int(first), int(last) + 1)
