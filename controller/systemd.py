"""Tells systemd that the agent is ready or stopping: sd_notify(3), which is one datagram."""

import os
import socket
from contextlib import suppress


def notify(state: str) -> None:
    """Sends `state`, such as READY=1, to whoever started us and wants to know."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    # Whoever wants to know may be gone, which is no reason to go as well.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, suppress(OSError):
        channel.connect(address)
        channel.sendall(state.encode())
