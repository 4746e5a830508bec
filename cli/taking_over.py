"""Finds the node on which there is something that `mcp adopt` can take over."""

from collections.abc import Mapping
from dataclasses import replace

from api.client import Client
from api.errors import McpError, NotFound, Refused
from cli.config import Nodes
from cli.connect import ask, placed, unheard
from cli.definitions import definition, node_of
from cli.options import Settings


async def found(settings: Settings, service: str, containers: Mapping[str, str], routes: Mapping[str, str]) -> Settings:
    """The options with the node named that a definition of it says, or else the only one that has such containers.

    Raises Refused where several have them, NotFound where none does.
    """
    nodes = Nodes(settings)
    path = definition(nodes.services, service)
    if len(nodes.every()) == 1 or (path is not None and node_of(path)):
        return await placed(settings, service)

    async def refusal(client: Client) -> McpError | None:
        try:
            await client.adopt(service, containers, routes, dry_run=True)
        except Refused as error:
            return error
        return None

    answers = await ask(settings, refusal)
    heard = [answer for answer in answers if answer.error is None]
    there = [answer for answer in heard if answer.value is None] or heard
    if len(there) == 1:
        # Where it is refused there, too, it is said why.
        return replace(settings, node=there[0].node)
    if there:
        names = " and on ".join(answer.node for answer in there)
        raise Refused(f"containers of {service} are on {names}: say which with --node")
    unasked = unheard(answer for answer in answers if not isinstance(answer.error, NotFound))
    missing = [answer.error.message for answer in answers if isinstance(answer.error, NotFound)]
    raise NotFound(f"{missing[0] if missing else f'no node was asked for {service}'}{unasked}")
