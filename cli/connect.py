"""Opens connections to agents, in the name of whoever calls: to one, to all side by side, to each service's own."""

import asyncio
import getpass
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from api.client import Client
from api.errors import ExitCode, McpError, NotFound, Refused, Unreachable
from api.service import Service
from cli.config import Node, Nodes
from cli.credentials import read_token, token_path
from cli.definitions import definition, node_of
from cli.options import Settings
from cli.output import Output
from cli.reports.common import Unasked

T = TypeVar("T")


def client_for(node: Node) -> Client:
    """A client of that node's agent, to be entered. Raises Refused where its token or CA cannot be read."""
    certificate = (node.cert_file, node.key_file) if node.cert_file and node.key_file else None
    token = None if node.address.startswith("unix:") else read_token(token_path(node))
    return Client(node.address, actor=actor(), ca_file=node.ca_file, token=token, certificate=certificate)


@asynccontextmanager
async def connected(settings: Settings, service: str = "") -> AsyncIterator[Client]:
    """A client of the one agent that the options name, or that is the service's."""
    if service:
        settings = await placed(settings, service)
    async with client_for(Nodes(settings).choose()) as client:
        yield client


@asynccontextmanager
async def clients(nodes: Nodes) -> AsyncIterator[Callable[[str], Client]]:
    """Clients by their nodes' names, one each, made when it is asked for; asking raises as `client_for` does."""
    async with AsyncExitStack() as stack:
        made: dict[str, Client] = {}

        def to(name: str) -> Client:
            if name not in made:
                made[name] = client_for(nodes.named(name))
                stack.push_async_exit(made[name])
            return made[name]

        yield to


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What one node answered, about one service where it was asked about that, or why it did not."""

    node: str
    value: T | None = None
    error: McpError | None = None
    service: str = ""


async def _answer(work: Awaitable[T], node: str, service: str = "", *, alone: bool) -> Answer[T]:
    try:
        return Answer(node, await work, service=service)
    except McpError as error:
        if alone:
            raise
        return Answer(node, error=error, service=service)


async def ask(
    settings: Settings,
    question: Callable[[Client], Awaitable[T]],
    *,
    alone: bool = True,
    within: float | None = None,
) -> tuple[Answer[T], ...]:
    """What every node answers, asked side by side: one that fails is an answer, too, and so is one that takes longer.

    Where there is only one to ask, its error is raised; with `alone` false it is an answer there, too. `within` is in
    seconds; None: as long as a call may take.
    """
    nodes = Nodes(settings)
    names = nodes.every()

    async def one(name: str) -> T:
        try:
            async with asyncio.timeout(within), client_for(nodes.named(name)) as client:
                return await question(client)
        except TimeoutError as error:
            raise Unreachable(f"it did not answer within {within}s") from error

    alone = alone and len(names) == 1
    return tuple(await asyncio.gather(*(_answer(one(name), name, alone=alone) for name in names)))


async def ask_each(
    settings: Settings, services: Iterable[str], question: Callable[[Client, str], Awaitable[T]]
) -> tuple[Answer[T], ...]:
    """What each service's agent answers about it, asked side by side: one that fails is an answer, too.

    Where there is only one service to ask about, its error is raised.
    """
    return await ask_there(settings, (await places(settings, list(dict.fromkeys(services)))).items(), question)


async def ask_there(
    settings: Settings, them: Iterable[tuple[str, str | McpError]], question: Callable[[Client, str], Awaitable[T]]
) -> tuple[Answer[T], ...]:
    """As `ask_each`, of services and where they are, or why that is not known."""
    them = list(them)
    async with clients(Nodes(settings)) as to:

        async def one(name: str, place: str | McpError) -> T:
            if isinstance(place, McpError):
                raise place
            return await question(to(place), name)

        asked = (
            _answer(one(name, place), place if isinstance(place, str) else "", name, alone=len(them) == 1)
            for name, place in them
        )
        return tuple(await asyncio.gather(*asked))


async def follow_each(output: Output, nodes: Iterable[str], follow: Callable[[str], Awaitable[None]]) -> int:
    """Follows nodes side by side until interrupted; the exit status once none is left.

    One that refuses is told at once, and is not the end of the others. Where there is only one, its error is raised.
    """
    names = list(nodes)

    async def one(name: str) -> int:
        answer = await _answer(follow(name), name, alone=len(names) == 1)
        _, status = failures(output, [answer])
        return status

    return max(await asyncio.gather(*map(one, names)), default=ExitCode.DONE)


def away(output: Output, node: str = "") -> Callable[[McpError | None], None]:
    """Tells that a node cannot be heard and, with None, that it is again; `node` is empty where there is only one."""

    def tell(error: McpError | None) -> None:
        if error is None:
            output.note(f"{node or 'mcp'}: the agent answers again")
        else:
            output.error(f"{node or 'mcp'}: {error.message}; listening again as soon as it is back")

    return tell


async def services_of(client: Client, name: str | None) -> tuple[Service, ...]:
    """The service of that name; all where none is named. Raises NotFound."""
    return await client.services() if name is None else (await client.get(name),)


def failures(output: Output, answers: Iterable[Answer[Any]], undone: str = "") -> tuple[tuple[Unasked, ...], int]:
    """Tells which nodes, or services, got no answer and why, once for all that share it; them, and the exit status.

    `undone` says what was not done: `not deleted`.
    """
    failed = [(answer, answer.error) for answer in answers if answer.error is not None]
    alike: dict[tuple[str, str], list[str]] = {}
    for answer, error in failed:
        where = f" on {answer.node}" if answer.service and answer.node else ""
        later = "; once it answers, the same command does the rest" if undone and isinstance(error, Unreachable) else ""
        alike.setdefault((where, error.message + later), []).append(answer.service or answer.node or "mcp")
    for (where, message), subjects in alike.items():
        output.error(f"{', '.join(subjects)}{f' {undone}' if undone else ''}{where}: {message}")
    unasked = tuple(Unasked(node=one.node, service=one.service, error=error.message) for one, error in failed)
    return unasked, max((int(error.exit_code) for _, error in failed), default=0)


async def placed(settings: Settings, service: str) -> Settings:
    """The options with the service's node named. Raises what `places` says of it."""
    place = (await places(settings, [service]))[service]
    if isinstance(place, McpError):
        raise place
    return replace(settings, node=place) if place else settings


async def places(settings: Settings, services: Collection[str]) -> Mapping[str, str | McpError]:
    """Where each service is: on the node of its definition, or the one whose agent knows it.

    Empty where --address named the agent. Where that cannot be known: why not, and what kept nodes from answering.
    """
    nodes = Nodes(settings)
    every = nodes.every()
    if len(every) == 1:
        return dict.fromkeys(services, every[0])
    found = {service: _written(nodes, service) for service in services}
    unknown = [service for service, place in found.items() if not place]
    if unknown:
        answers = await ask(settings, lambda client: _known(client, unknown))
        found |= {service: _sought(service, answers, nodes) for service in unknown}
    return found


def _written(nodes: Nodes, service: str) -> str | McpError:
    """The node of the service's definition; empty where that does not say."""
    path = definition(nodes.services, service)
    if path is None:
        return ""
    try:
        return nodes.meant(node_of(path))
    except McpError as error:
        return error


async def _known(client: Client, services: Iterable[str]) -> frozenset[str]:
    """Those of the services that the agent knows."""

    async def knows(name: str) -> bool:
        try:
            await client.get(name)
        except NotFound:
            return False
        return True

    names = list(services)
    known = await asyncio.gather(*map(knows, names))
    return frozenset(name for name, yes in zip(names, known, strict=True) if yes)


def _sought(service: str, answers: Collection[Answer[frozenset[str]]], nodes: Nodes) -> str | McpError:
    found = [answer.node for answer in answers if service in (answer.value or ())]
    if len(found) == 1:
        return found[0]
    if found:
        return Refused(f'service "{service}" is on {" and on ".join(found)}: say which with --node')
    return NotFound(
        f'no node has a service "{service}", and {nodes.services} no definition that says where it is{unheard(answers)}'
    )


def unheard(answers: Iterable[Answer[Any]]) -> str:
    """The nodes that were not asked and why, to be appended to what the others said."""
    return "".join(f"; {answer.node} was not asked: {answer.error.message}" for answer in answers if answer.error)


def actor() -> str:
    """Who is asking, for the timeline: `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
