"""A CA that is cut off, breaks, stammers or hangs at each step of an order: what it issued is never lost or doubled."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from api.conditions import Status
from stack.pebble import Pebble
from tests.system.certs.acme_node import AcmeNode, spec
from tests.system.certs.faulty_ca import faulty_ca
from tests.system.faults import Fault, breaks_off, fails_after_the_work, hangs, hangs_up

pytestmark = pytest.mark.system

STEPS = (
    "GET /dir",
    "HEAD /nonce-plz",
    "POST /sign-me-up",
    "POST /order-plz",
    "POST /authZ",
    "POST /chalZ",
    "POST /finalize-order",
    "POST /my-order",
    "POST /certZ",
)


WEIGHTY = ("POST /order-plz", "POST /chalZ", "POST /finalize-order", "POST /certZ")


@pytest.mark.parametrize(
    ("fault", "steps"), [(hangs_up, STEPS), (fails_after_the_work, WEIGHTY), (breaks_off, WEIGHTY), (hangs, WEIGHTY)]
)
async def test_each_step_can_fail_once(
    tmp_path: Path, calm_pebble: Pebble, fault: Fault, steps: tuple[str, ...]
) -> None:
    before = calm_pebble.log().count("Issued certificate")
    turn = asyncio.Lock()
    nodes = [
        AcmeNode(tmp_path / str(number), calm_pebble, challenge_host=f"127.0.0.{20 + number}", turn=turn)
        for number in range(len(steps))
    ]
    await asyncio.gather(*(_fail_once(node, step, fault) for node, step in zip(nodes, steps, strict=True)))
    assert calm_pebble.log().count("Issued certificate") == before + len(steps)


async def _fail_once(node: AcmeNode, step: str, fault: Fault) -> None:
    hostname = f"{fault.__name__.replace('_', '-')}-{step.rpartition('/')[2].lower()}.test"
    node.pebble.lead(hostname, node.challenge_host)
    with faulty_ca(node.pebble) as ca, ca.misbehaving(step, fault, times=1) as hits:
        node.directory, node.patience = ca.directory, timedelta(seconds=3)
        node.pauses = (timedelta(milliseconds=100), timedelta(seconds=1))
        async with node.agent() as agent:
            await agent.registry.apply(spec(hostname), actor="test")
            (record,) = (await agent.until(Status.TRUE)).certificates
        assert hits() == 1
    assert (record.error, record.failures) == ("", 0)


async def test_a_ca_that_is_away_is_said_so_and_holds_up_nothing_else(tmp_path: Path, calm_pebble: Pebble) -> None:
    away = AcmeNode(tmp_path, calm_pebble, "https://localhost:9/dir")
    async with away.agent() as agent:
        await agent.registry.apply(spec("shop.test"), actor="test")
        (record,) = (await agent.until(Status.FALSE)).certificates
    assert record.error == "ACME https://localhost:9/dir: [Errno 111] Connection refused"
    assert record.fingerprint == ""


async def test_retry_after_holds_for_all_services_and_across_a_restart(tmp_path: Path, calm_pebble: Pebble) -> None:
    def busy(client: object, ask: object) -> None:
        body = b'{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many orders"}'
        head = b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/problem+json\r\nRetry-After: 7200\r\n"
        client.sendall(head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))  # type: ignore[attr-defined]

    with faulty_ca(calm_pebble) as ca:
        node = AcmeNode(tmp_path, calm_pebble, ca.directory)
        with ca.misbehaving("POST /order-plz", busy):
            async with node.agent() as agent:
                await agent.registry.apply(spec("shop.test"), actor="test")
                (record,) = (await agent.until(Status.FALSE)).certificates
        assert record.error.endswith("too many orders (rateLimited)")
        assert record.retry_at is not None
        assert timedelta(minutes=119) < record.retry_at - node.now() <= timedelta(minutes=120)
        async with node.agent() as agent:
            await agent.registry.apply(spec("other.test", name="other"), actor="test")
            (held,) = (await agent.until(Status.FALSE, "other")).certificates
            assert "it asked to be left alone for a while" in held.error
            assert sum("/order-plz" in line for line in ca.requests) == 1
            node.offset = timedelta(hours=2)
            await asyncio.gather(agent.until(Status.TRUE), agent.until(Status.TRUE, "other"))
