"""What the kernel says of TCP ports: who has one, and which it hands out itself. See proc(5) and ip(7)."""

from pathlib import Path

_SOCKET_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def ports_in_use() -> frozenset[int]:
    """The local port of every TCP socket in this network namespace.

    In whatever state: a port with a connection left in TIME_WAIT can refuse
    to be bound as well, and there are enough others. Raises OSError.
    """
    # A kernel without IPv6 has no second table.
    return frozenset(port for table in _SOCKET_TABLES if table.exists() for port in local_ports(table.read_text()))


def local_ports(table: str) -> set[int]:
    """The local ports in the text of /proc/net/tcp or tcp6: `sl  local_address rem_address ...`, in hexadecimal."""
    return {int(line.split(maxsplit=2)[1].rpartition(":")[2], 16) for line in table.splitlines()[1:]}


def ephemeral_ports() -> range:
    """The ports from which the kernel chooses those of outgoing connections. Raises OSError."""
    first, last = _EPHEMERAL.read_text().split()
    return range(int(first), int(last) + 1)
