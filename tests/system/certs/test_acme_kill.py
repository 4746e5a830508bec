"""Agents that are killed with -9 in the middle of an order, again and again: it goes on where it was."""

import asyncio
import random
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from api.conditions import Status
from api.service import Certificate
from reconcilers.certs.ca import private_pem
from reconcilers.certs.ledger import Ledger
from stack.pebble import Pebble
from stack.web import wait_for
from tests.system.certs.acme_node import AcmeNode, spec
from tests.system.certs.faulty_ca import faulty_ca
from tests.system.faults import hangs

pytestmark = pytest.mark.system

STEPS = ("POST /chalZ", "POST /finalize-order", "POST /certZ")


def nodes(folder: Path, pebble: Pebble, count: int) -> list[AcmeNode]:
    """Several that can run side by side: each answers challenges at an address of its own."""
    turn = asyncio.Lock()
    return [AcmeNode(folder / str(n), pebble, challenge_host=f"127.0.0.{10 + n}", turn=turn) for n in range(count)]


async def test_the_next_agent_goes_on_with_the_order_wherever_it_was(tmp_path: Path, calm_pebble: Pebble) -> None:
    before = [calm_pebble.log().count(said) for said in ("Added order", "Issued certificate")]
    some = nodes(tmp_path, calm_pebble, len(STEPS))
    await asyncio.gather(*(_die_at(node, step) for node, step in zip(some, STEPS, strict=True)))
    after = [calm_pebble.log().count(said) for said in ("Added order", "Issued certificate")]
    assert after == [count + len(STEPS) for count in before]


async def _die_at(node: AcmeNode, step: str) -> None:
    hostname = f"at-{step.rpartition('/')[2].lower()}.test"
    node.pebble.lead(hostname, node.challenge_host)
    with faulty_ca(node.pebble) as ca:
        node.directory = ca.directory
        with ca.misbehaving(step, hangs) as hits:
            victim = await node.victim(hostname)
            await asyncio.to_thread(wait_for, lambda: hits() > 0, seconds=20, what=step)
            victim.kill()
            await victim.communicate()
        begun = Ledger(node.state / "certificates").entry(hostname)
        async with node.agent() as agent:
            await agent.until(Status.TRUE)
    key = load_pem_private_key(begun.key.encode(), password=None)
    assert node.leaf(hostname).public_key() == key.public_key()
    assert node.order(hostname) == ""


async def test_a_pair_of_which_half_was_laid_down_is_mended_by_the_same_certificate(
    tmp_path: Path, calm_pebble: Pebble
) -> None:
    (node,) = nodes(tmp_path, calm_pebble, 1)
    calm_pebble.lead("half.test", node.challenge_host)
    issued = await node.issuer().issue("half.test", timedelta(days=90))
    async with node.agent() as agent:
        await agent.registry.apply(spec("half.test"), actor="test")
        cert_path, key_path = (str(node.certs_dir / f"half.test{suffix}") for suffix in (".pem", ".key"))
        times = dict.fromkeys(("not_before", "not_after", "renew_at"), node.now())
        intent = {"hostname": "half.test", "issuer": "", "serial": "", "fingerprint": ""}
        await agent.registry.record_certificate(
            "shop", Certificate(cert_path=cert_path, key_path=key_path, **intent, **times)
        )
        node.certs_dir.mkdir()
        (node.certs_dir / "half.test.key").write_bytes(private_pem(issued.key))
        await agent.until(Status.TRUE)
    assert node.leaf("half.test") == issued.chain[0]


async def test_killed_at_any_moment_it_has_one_certificate_in_the_end(tmp_path: Path, calm_pebble: Pebble) -> None:
    before = calm_pebble.log().count("Issued certificate")
    await asyncio.gather(*(_die_twice(node, seed) for seed, node in enumerate(nodes(tmp_path, calm_pebble, 2))))
    assert calm_pebble.log().count("Issued certificate") == before + 2


async def _die_twice(node: AcmeNode, seed: int) -> None:
    chance, hostname = random.Random(seed), f"kill{seed}.test"
    node.pebble.lead(hostname, node.challenge_host)
    for _ in range(2):
        victim = await node.victim(hostname)
        # The account is the first thing that it makes.
        await asyncio.to_thread(wait_for, (node.state / "account.key").exists, seconds=20, what="a start")
        await asyncio.sleep(chance.uniform(0, 1.5))
        victim.kill()
        await victim.communicate()
    async with node.agent() as agent:
        (record,) = (await agent.until(Status.TRUE)).certificates
    assert record.fingerprint
    assert {path.name for path in node.certs_dir.iterdir()} == {f"{hostname}.pem", f"{hostname}.key"}
