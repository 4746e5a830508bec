"""Tells systemd that the agent is ready or stopping: sd_notify(3), which is one datagram."""

import os
import socket


def notify(state: str) -> None:
    """Sends `state`, such as READY=1, to whoever started us and wants to know."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.connect(address)
        channel.sendall(state.encode())
