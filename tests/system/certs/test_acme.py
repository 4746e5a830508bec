"""Certificates from Let's Encrypt's own test CA, which refuses half of all nonces; judged by openssl."""

import asyncio
import stat
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from api.conditions import Status
from reconcilers.certs.challenges import Responder
from stack.pebble import NOWHERE, Pebble, pebble
from tests.system.certs.acme_node import AcmeNode, spec

pytestmark = pytest.mark.system


async def test_full_chains_for_all_hostnames_that_openssl_accepts(tmp_path: Path, moody_pebble: Pebble) -> None:
    node = AcmeNode(tmp_path, moody_pebble)
    hostnames = ("one.test", "two.test", "three.test")
    async with node.agent() as agent:
        await agent.registry.apply(spec(*hostnames), actor="test")
        service = await agent.until(Status.TRUE)
    assert {record.issuer for record in service.certificates} == {f"ACME {moody_pebble.directory}"}
    root = tmp_path / "root.pem"
    root.write_text(moody_pebble.root())
    for hostname in hostnames:
        chain = node.certs_dir / f"{hostname}.pem"
        check = ["openssl", "verify", "-CAfile", root, "-untrusted", chain, "-verify_hostname", hostname, chain]
        assert (await asyncio.to_thread(subprocess.check_output, check, text=True)).endswith(": OK\n")
        key = load_pem_private_key((node.certs_dir / f"{hostname}.key").read_bytes(), password=None)
        assert key.public_key() == node.leaf(hostname).public_key()


async def test_what_it_keeps_is_for_nobody_else_to_read_and_no_key_stays(tmp_path: Path, moody_pebble: Pebble) -> None:
    node = AcmeNode(tmp_path, moody_pebble)
    async with node.agent() as agent:
        await agent.registry.apply(spec("shop.test"), actor="test")
        await agent.until(Status.TRUE)
    kept = {str(path.relative_to(node.state)): path for path in node.state.rglob("*") if path.is_file()}
    assert set(kept) == {"account.key", "account.json", "asked.json", "certificates/shop.test.json"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept.values()} == {0o600}
    assert "PRIVATE KEY" not in kept["certificates/shop.test.json"].read_text()


async def test_a_name_that_leads_elsewhere_is_the_ca_s_sentence(tmp_path: Path, moody_pebble: Pebble) -> None:
    moody_pebble.lead("gone.test", NOWHERE)
    node = AcmeNode(tmp_path, moody_pebble)
    async with node.agent() as agent:
        await agent.registry.apply(spec("gone.test"), actor="test")
        (record,) = (await agent.until(Status.FALSE)).certificates
        assert f"{NOWHERE}:{moody_pebble.challenge_port}: connect: connection refused" in record.error
        assert record.failures == 1
        assert record.retry_at is not None
        assert node.order("gone.test") == ""
        # Once the name leads here, the next attempt makes a new order.
        moody_pebble.lead("gone.test", "127.0.0.1")
        node.offset = timedelta(hours=1, minutes=1)
        await agent.until(Status.TRUE)


async def test_a_stranger_who_answers_for_a_name_gets_nothing_and_gives_nothing(
    tmp_path: Path, moody_pebble: Pebble
) -> None:
    moody_pebble.lead("theirs.test", "127.0.0.9")
    node = AcmeNode(tmp_path, moody_pebble)
    with Responder("127.0.0.9", moody_pebble.challenge_port).serving("/", "a page of theirs"):
        async with node.agent() as agent:
            await agent.registry.apply(spec("theirs.test"), actor="test")
            (record,) = (await agent.until(Status.FALSE)).certificates
    assert "Non-200 status code" in record.error


async def test_an_occupied_challenge_address_is_said_so(tmp_path: Path, moody_pebble: Pebble) -> None:
    # pebble's own port stands for whatever else listens there.
    node = AcmeNode(tmp_path, replace(moody_pebble, challenge_port=moody_pebble.port))
    async with node.agent() as agent:
        await agent.registry.apply(spec("busy.test"), actor="test")
        (record,) = (await agent.until(Status.FALSE)).certificates
    assert f"http-01 challenges cannot be answered on 127.0.0.1:{moody_pebble.port}: Address already" in record.error


async def test_no_more_is_asked_than_the_limit_allows(tmp_path: Path, moody_pebble: Pebble) -> None:
    node = AcmeNode(tmp_path, moody_pebble, per_hour=2)
    async with node.agent() as agent:
        await agent.registry.apply(spec("a.test", "b.test", "c.test"), actor="test")
        service = await agent.until(Status.FALSE)
        assert len(list(node.certs_dir.glob("*.pem"))) == 2
        (late,) = [record for record in service.certificates if not record.fingerprint]
        assert "the limit of 2 certificates an hour is reached" in late.error
        assert late.failures == 0
        node.offset = timedelta(hours=1)
        await agent.until(Status.TRUE)


async def test_an_account_can_be_bound_to_one_that_the_ca_knows(tmp_path: Path) -> None:
    secret = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
    with pebble({"externalAccountBindingRequired": True, "externalAccountMACKeys": {"kid-1": secret}}) as strict:
        stranger = AcmeNode(tmp_path / "stranger", strict)
        stranger.folder.mkdir()
        async with stranger.agent() as agent:
            await agent.registry.apply(spec("shop.test"), actor="test")
            (record,) = (await agent.until(Status.FALSE)).certificates
        assert "externalAccount" in record.error
        node = AcmeNode(tmp_path, strict, eab_key_id="kid-1")
        (tmp_path / "hmac").write_text(f"{secret}\n")
        async with node.agent() as agent:
            await agent.registry.apply(spec("shop.test"), actor="test")
            await agent.until(Status.TRUE)


async def test_a_ca_that_forgot_everything_is_met_anew_and_a_renewal_has_another_key(tmp_path: Path) -> None:
    with pebble({"certificateValidityPeriod": 3600}, {"PEBBLE_WFE_NONCEREJECT": "30"}) as ca:
        node = AcmeNode(tmp_path, ca)
        async with node.agent() as agent:
            await agent.registry.apply(spec("shop.test"), actor="test")
            (record,) = (await agent.until(Status.TRUE)).certificates
            # It was asked for 90 days, and gave an hour.
            assert record.not_after - record.not_before <= timedelta(hours=1)
            assert record.renew_at - node.now() <= timedelta(minutes=40)
            before = node.leaf("shop.test")
            ca.stop()
            ca.start()
            node.offset = timedelta(minutes=41)
            (renewed,) = (await agent.until(Status.TRUE)).certificates
            assert renewed.error == ""
            assert renewed.fingerprint != record.fingerprint
        assert node.leaf("shop.test").public_key() != before.public_key()
