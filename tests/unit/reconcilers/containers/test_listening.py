"""Both ways in which the kernel is asked what a process listens on, over sockets of our own."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from reconcilers.containers.watching.listening import reachable_ports, reachable_ports_by_table

REACHABLE = ["0.0.0.0", "::"]
LOOPBACK = ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"]


@pytest.fixture
def listeners() -> Iterator[dict[str, int]]:
    """A port by the address that it is listened to on."""
    with ExitStack() as stack:
        ports = {}
        for address in (*REACHABLE, *LOOPBACK):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listener = stack.enter_context(socket.socket(family))
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int("." not in address))
            listener.bind((address, 0))
            listener.listen()
            ports[address] = listener.getsockname()[1]
        yield ports


def test_the_table_shows_what_can_be_reached_from_outside(listeners: dict[str, int]) -> None:
    found = reachable_ports_by_table(os.getpid())
    assert [address for address, port in listeners.items() if port in found] == REACHABLE


def test_a_bound_port_that_is_not_listened_to_is_not_reachable() -> None:
    with socket.socket() as bound:
        bound.bind(("", 0))
        assert bound.getsockname()[1] not in reachable_ports_by_table(os.getpid())


def test_sock_diag_shows_the_same_to_root_and_refuses_everybody_else(listeners: dict[str, int]) -> None:
    if os.getuid() != 0:
        with pytest.raises(PermissionError):
            reachable_ports(os.getpid())
        return
    found = reachable_ports(os.getpid())
    assert [address for address, port in listeners.items() if port in found] == REACHABLE


def test_a_process_that_is_gone_is_an_error_both_ways() -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    with pytest.raises(OSError, match="No such"):
        reachable_ports(gone.pid)
    with pytest.raises(OSError, match="No such"):
        reachable_ports_by_table(gone.pid)
