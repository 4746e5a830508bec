"""A whole agent, as a program, whose CA comes and goes; its podman is away, which certificates do not need."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api.client import Client
from api.service import Certificate
from stack.pebble import Pebble, pebble
from tests.system.certs.acme_node import spec
from tests.unit.controller.test_app import Program

pytestmark = pytest.mark.system


@pytest.fixture
def ca() -> Iterator[Pebble]:
    with pebble() as running:
        yield running


@pytest.fixture
def program(ca: Pebble) -> Iterator[Program]:
    with tempfile.TemporaryDirectory(prefix="mcp-x") as folder:
        made = Program(Path(folder))
        made.environ |= {
            "MCP_CERTS_ISSUER": "acme",
            "MCP_CERTS_FALLBACK": "embedded",
            "MCP_CERTS_RETRY_FIRST_SECONDS": "0.5",
            "MCP_CERTS_RETRY_MOST_SECONDS": "1",
            "MCP_ACME_DIRECTORY": ca.directory,
            "MCP_ACME_CA_FILE": str(ca.ca_file),
            "MCP_ACME_CHALLENGE_LISTEN": f"127.0.0.1:{ca.challenge_port}",
        }
        yield made
        if made.running is not None and made.running.poll() is None:
            made.running.kill()
            made.running.communicate()


async def certificate(client: Client, holds: Callable[[Certificate], bool]) -> Certificate:
    """That of the service, once `holds` says so of it."""
    async for seen in client.watch(["shop"]):
        for found in seen.service.certificates if seen.service else ():
            if found.fingerprint and holds(found):
                return found
    raise AssertionError("the watch ended")


async def test_the_agent_s_own_ca_stands_in_until_the_other_is_back(program: Program, ca: Pebble) -> None:
    ca.stop()
    program.start()
    async with program.client() as client:
        await client.apply(spec("shop.test"))
        stand_in = await certificate(client, lambda found: found.issuer == "CN=MCP CA of rift")
        assert "Connection refused" in stand_in.error
        assert stand_in.retry_at is not None
        ca.start()
        final = await certificate(client, lambda found: found.issuer == f"ACME {ca.directory}")
        assert (final.error, final.failures, final.retry_at) == ("", 0, None)
        messages = [event.message for event in await client.events("shop", limit=100) if event.actor == "certs"]
        assert any("certificate for shop.test (there is none)" in message for message in messages)
        assert any("certificate for shop.test (CN=MCP CA of rift only stands in)" in message for message in messages)
    code, said = program.stop()
    assert code == 0
    assert "Traceback" not in said


async def test_an_agent_stops_at_once_while_its_ca_hangs(program: Program) -> None:
    program.environ["MCP_ACME_DIRECTORY"] = "https://192.0.2.1/directory"
    program.start()
    async with program.client() as client:
        await client.apply(spec("shop.test"))
        async for seen in client.watch(["shop"]):
            if seen.service and seen.service.certificates:
                break
    assert program.stop()[0] == 0
