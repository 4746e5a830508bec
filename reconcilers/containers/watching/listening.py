"""Which TCP ports a process listens on, in its own network namespace, and how many are connected to them.

The kernel tells it in two ways. sock_diag(7) looks at listening sockets alone,
in microseconds, but only within the asker's namespace, which takes root's
rights to enter. proc(5), /proc/<pid>/net/tcp, may be read by the process's
owner, and makes the kernel walk its table of all connections: that has a size
by the machine's memory, and takes up to 10 milliseconds.
"""

import ctypes
import os
import socket
import struct
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

_CLONE_NEWNET: Final = 0x40000000
_NETLINK_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_NLM_F_REQUEST_DUMP: Final = 0x301
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_LISTEN: Final = 10
_OPEN: Final = (1, 3, 4, 8, 9, 11)
"""States in which bytes may be on their way: ESTABLISHED, SYN_RECV, FIN_WAIT1, CLOSE_WAIT, LAST_ACK, CLOSING."""

_HEADER: Final = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence number, port."""
_REQUEST: Final = struct.Struct("=BBBBI48x")
"""struct inet_diag_req_v2: family, protocol, extensions, padding, states, and no socket in particular."""
_ANSWER: Final = struct.Struct("!4xHH16s")
"""The beginning of struct inet_diag_msg: source port, destination port, source address."""

_libc = ctypes.CDLL(None, use_errno=True)


def reachable_ports(pid: int) -> set[int]:
    """The ports that can be reached from outside the namespace, told in microseconds.

    Raises OSError: PermissionError where we may not enter it, and where the
    kernel was built without sock_diag.
    """
    with _diagnosis(pid) as diagnosis:
        return {
            port
            for family in (socket.AF_INET, socket.AF_INET6)
            for port, address in _sockets(diagnosis, family, (_LISTEN,))
            if not _is_loopback(address)
        }


def reachable_ports_by_table(pid: int) -> set[int]:
    """The same, told slowly to everybody who may look at the process. Blocks; raises OSError."""
    return {port for port, address in _tabled(pid, (_LISTEN,)) if not _is_loopback(address)}


def open_connections(pid: int, ports: Collection[int]) -> int:
    """How many connections to these ports of the namespace are not over. Blocks; raises OSError."""
    try:
        with _diagnosis(pid) as diagnosis:
            families = (socket.AF_INET, socket.AF_INET6)
            found = [port for family in families for port, _ in _sockets(diagnosis, family, _OPEN)]
    except OSError:
        found = [port for port, _ in _tabled(pid, _OPEN)]
    return sum(port in ports for port in found)


def _tabled(pid: int, states: Collection[int]) -> Iterator[tuple[int, IPv4Address | IPv6Address]]:
    """Local ports and addresses of the sockets in these states, as proc(5) shows them."""
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if int(state, 16) in states:
                address, port = local.split(":")
                yield int(port, 16), _from_hex(address)


def _diagnosis(pid: int) -> socket.socket:
    """A netlink socket that belongs to the namespace of the process: whoever holds it need not enter again."""
    # The thread ends with it: none of ours is ever left in a foreign namespace.
    with ThreadPoolExecutor(1, "sock-diag") as once:
        return once.submit(_open_inside, pid).result()


def _open_inside(pid: int) -> socket.socket:
    namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(namespace, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(namespace)
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)


def _sockets(
    diagnosis: socket.socket, family: int, states: Collection[int]
) -> Iterator[tuple[int, IPv4Address | IPv6Address]]:
    """Local ports and addresses of the sockets in these states."""
    request = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, sum(1 << state for state in states))
    header = _HEADER.pack(_HEADER.size + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 0, 0)
    diagnosis.send(header + request)
    while True:
        for kind, body in _messages(diagnosis.recv(1 << 16)):
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                number = -struct.unpack_from("=i", body)[0]
                raise OSError(number, os.strerror(number))
            port, _peer, address = _ANSWER.unpack_from(body)
            yield port, ip_address(address[:4] if family == socket.AF_INET else address)


def _messages(answer: bytes) -> Iterator[tuple[int, bytes]]:
    while answer:
        length, kind, *_ = _HEADER.unpack_from(answer)
        yield kind, answer[_HEADER.size : length]
        # Each message begins at a multiple of four.
        answer = answer[(length + 3) & ~3 :]


def _from_hex(address: str) -> IPv4Address | IPv6Address:
    """An address as /proc shows it: words of 32 bits in the host's byte order."""
    words = struct.unpack(f"!{len(address) // 8}I", bytes.fromhex(address))
    return ip_address(struct.pack(f"={len(words)}I", *words))


def _is_loopback(address: IPv4Address | IPv6Address) -> bool:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback
