"""Asks a node whether a token lets in, before `mcp login` keeps it."""

from dataclasses import dataclass

from api.access import Identity
from api.client import Client
from api.errors import Forbidden, McpError, Unauthenticated
from cli.config import Node
from cli.connect import actor


@dataclass(frozen=True, slots=True)
class Tried:
    """What the node's agent says of whoever shows the token."""

    me: Identity | None = None
    doubt: str = ""
    """Why it could not be asked; empty: it was, or there is nothing to ask, as a socket wants no token."""


async def tried(node: Node, token: str) -> Tried:
    """Shows the token to the node's agent. Raises Unauthenticated or Forbidden where it does not let it in."""
    if node.address.startswith("unix:"):
        return Tried()
    pair = (node.cert_file, node.key_file) if node.cert_file and node.key_file else None
    try:
        async with Client(node.address, actor=actor(), ca_file=node.ca_file, token=token, certificate=pair) as client:
            return Tried(me=await client.access.whoami())
    except (Unauthenticated, Forbidden) as error:
        raise type(error)(
            f"the agent at {node.address} lets nobody in with this token, which is not kept: {error.message}"
        ) from error
    except McpError as error:
        return Tried(doubt=error.message)
