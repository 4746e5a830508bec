"""Opens the connection to an agent, in the name of whoever calls."""

import asyncio
import getpass
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import click

from api.client import Client
from api.errors import McpError, NotFound
from api.manifest import load
from api.service import Service
from cli.config import Node, Nodes
from cli.credentials import read_token, token_path
from cli.definitions import definition
from cli.options import Settings
from cli.output import Output
from cli.reports import Unasked

T = TypeVar("T")


def client_for(node: Node) -> Client:
    """A client of that node's agent, to be entered."""
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


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What one node answered, or why it did not."""

    node: str
    value: T | None = None
    error: McpError | None = None


async def ask(
    settings: Settings, question: Callable[[Client], Awaitable[T]], *, alone: bool = True
) -> tuple[Answer[T], ...]:
    """What every node answers, asked side by side: one that fails is an answer, too.

    Where there is only one to ask, its error is raised; with `alone` false it is an answer there, too.
    """
    nodes = Nodes(settings)
    names = nodes.every()

    async def one(name: str) -> Answer[T]:
        try:
            async with client_for(nodes.named(name)) as client:
                return Answer(name, await question(client))
        except McpError as error:
            if alone and len(names) == 1:
                raise
            return Answer(name, error=error)

    return tuple(await asyncio.gather(*map(one, names)))


async def services_of(client: Client, name: str | None) -> tuple[Service, ...]:
    """The service of that name; all where none is named. Raises NotFound."""
    return await client.services() if name is None else (await client.get(name),)


def failures(output: Output, answers: Iterable[Answer[Any]]) -> tuple[tuple[Unasked, ...], int]:
    """Tells which nodes did not answer; they, and the exit status that says so."""
    failed = [(answer.node, answer.error) for answer in answers if answer.error is not None]
    for node, error in failed:
        output.error(f"{node}: {error.message}")
    unasked = tuple(Unasked(node=node, error=error.message) for node, error in failed)
    return unasked, max((int(error.exit_code) for _, error in failed), default=0)


async def placed(settings: Settings, service: str) -> Settings:
    """The options with the service's node named: that of its definition, or the one whose agent knows it.

    Raises click.UsageError where several nodes know it, and what kept nodes from answering where none does.
    """
    if settings.node or settings.address:
        return settings
    nodes = Nodes(settings)
    if len(nodes.every()) == 1:
        return settings
    path = definition(nodes.services, service)
    if path is not None:
        return replace(settings, node=nodes.name(load(path.read_bytes(), str(path)).spec.node))
    answers = await ask(settings, lambda client: client.services())
    found = [answer.node for answer in answers if any(one.name == service for one in answer.value or ())]
    if len(found) > 1:
        raise click.UsageError(f'service "{service}" is on {" and on ".join(found)}: say which with --node')
    if not found:
        unasked = "".join(
            f"; {answer.node} was not asked: {answer.error.message}" for answer in answers if answer.error
        )
        raise NotFound(f'no node has a service "{service}", and {nodes.services} no definition of it{unasked}')
    return replace(settings, node=found[0])


def actor() -> str:
    """Who is asking, for the timeline: `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"
