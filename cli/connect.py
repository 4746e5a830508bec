"""Opens the connection to an agent, in the name of whoever calls."""

import getpass
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from api.client import Client
from cli.config import Node, Nodes
from cli.credentials import read_token, token_path
from cli.options import Settings


def client_for(node: Node) -> Client:
    """A client of that node's agent, to be entered."""
    certificate = (node.cert_file, node.key_file) if node.cert_file and node.key_file else None
    token = None if node.address.startswith("unix:") else read_token(token_path(node))
    return Client(node.address, actor=actor(), ca_file=node.ca_file, token=token, certificate=certificate)


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Client]:
    """A client of the one agent that the options name."""
    async with client_for(Nodes(settings).choose()) as client:
        yield client


def actor() -> str:
    """Who is asking, for the timeline: `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
