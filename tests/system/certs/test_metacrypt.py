"""Metacrypt's REST interface over real HTTPS: what it is asked, and what is made of each of its answers."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from reconcilers.certs.issuer import Issued, IssueFailed
from reconcilers.certs.issuers import Issuers
from reconcilers.certs.metacrypt import Metacrypt, MetacryptSettings
from reconcilers.certs.remote import RemoteSettings
from tests.system.certs.https_stand_in import StandIn

pytestmark = pytest.mark.system

LIFE = timedelta(days=90)


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[StandIn]:
    (tmp_path / "token").write_text(" open-sesame\n")
    with StandIn(tmp_path).serving() as running:
        yield running


def metacrypt(stand_in: StandIn, *, ahead: timedelta = timedelta(), **changes: object) -> Metacrypt:
    settings = {"ca_file": str(stand_in.ca_file), "root_file": str(stand_in.ca_file)} | changes
    remote = RemoteSettings(stand_in.folder / "state", stand_in.url, **settings)  # type: ignore[arg-type]
    made = MetacryptSettings(remote, "infra", str(stand_in.folder / "token"))
    return Metacrypt(made, lambda: datetime.now(UTC) + ahead)


async def obtain(issuer: Metacrypt) -> Issued:
    return (await Issuers(issuer).obtain("shop.test", LIFE, urgent=True)).issued


async def test_it_is_asked_as_its_documentation_says_and_what_it_gives_is_known_again(stand_in: StandIn) -> None:
    issuer = metacrypt(stand_in)
    issued = await obtain(issuer)
    data = {"issuer": "infra", "common_name": "shop.test", "profile": "server", "dns_names": ["shop.test"]}
    body = {"mount": "pki", "operation": "issue", "path": "infra", "data": data | {"ip_addresses": [], "ttl": "2160h"}}
    assert stand_in.requests == [("Bearer open-sesame", body)]
    assert issued.key.public_key() == issued.chain[0].public_key()
    assert issued.chain[1] == stand_in.ca.certificate
    assert metacrypt(stand_in).issued(issued.chain[0])
    assert issuer.name == f"Metacrypt {stand_in.url} infra"


async def test_an_rsa_key_will_do(stand_in: StandIn) -> None:
    stand_in.rsa = True
    assert isinstance((await obtain(metacrypt(stand_in))).key, rsa.RSAPrivateKey)


async def test_a_changed_token_counts_at_once(stand_in: StandIn) -> None:
    issuer, stand_in.token = metacrypt(stand_in), "changed"
    with pytest.raises(IssueFailed, match="HTTP 401: unauthorized"):
        await obtain(issuer)
    (stand_in.folder / "token").write_text("changed")
    await obtain(issuer)


def other_key(stand_in: StandIn) -> bytes:
    (one, two) = (
        json.loads(stand_in.post("Bearer open-sesame", {"data": {"dns_names": ["shop.test"]}})[2]) for _ in "12"
    )
    return json.dumps(one | {"key": two["key"]}).encode()


def other_name(stand_in: StandIn) -> bytes:
    return stand_in.post("Bearer open-sesame", {"data": {"dns_names": ["other.test"]}})[2]


def without_chain(stand_in: StandIn) -> bytes:
    one = json.loads(stand_in.post("Bearer open-sesame", {"data": {"dns_names": ["shop.test"]}})[2])
    return json.dumps(one | {"chain": ""}).encode()


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (other_key, "is for another key"),
        (other_name, "it is for other names"),
        (without_chain, "its answer holds no certificate with chain and key"),
        (lambda _: b"<html>", "its answer holds no certificate with chain and key"),
        (lambda _: b"[]", "its answer holds no certificate with chain and key"),
        (lambda _: b'{"certificate": 7}', "its answer holds no certificate with chain and key"),
    ],
)
async def test_what_cannot_serve_is_refused(stand_in: StandIn, answer: object, complaint: str) -> None:
    assert callable(answer)
    stand_in.answers = [(200, {}, answer(stand_in))]
    with pytest.raises(IssueFailed, match=complaint):
        await obtain(metacrypt(stand_in))


async def test_one_that_is_over_is_refused(stand_in: StandIn) -> None:
    with pytest.raises(IssueFailed, match="does not hold"):
        await obtain(metacrypt(stand_in, ahead=timedelta(days=91)))


async def test_its_wish_to_be_left_alone_is_kept_across_a_restart(stand_in: StandIn) -> None:
    stand_in.answers = [(503, {"Retry-After": "3600"}, b"sealed")]
    with pytest.raises(IssueFailed, match="HTTP 503: sealed") as caught:
        await obtain(metacrypt(stand_in))
    assert caught.value.retry_after == timedelta(hours=1)
    with pytest.raises(IssueFailed, match="left alone") as held:
        await obtain(metacrypt(stand_in))
    assert held.value.counts is False
    assert len(stand_in.requests) == 1


async def test_our_token_follows_no_redirect(stand_in: StandIn) -> None:
    stand_in.answers = [(307, {"Location": f"{stand_in.url}/v1/engine/request"}, b"")]
    with pytest.raises(IssueFailed, match="HTTP 307"):
        await obtain(metacrypt(stand_in))
    assert len(stand_in.requests) == 1


async def test_it_must_prove_who_it_is(stand_in: StandIn) -> None:
    with pytest.raises(IssueFailed, match="CERTIFICATE_VERIFY_FAILED"):
        await obtain(metacrypt(stand_in, ca_file=""))
    assert stand_in.requests == []


async def test_what_leads_to_another_root_is_refused(stand_in: StandIn, tmp_path: Path) -> None:
    foreign = StandIn(tmp_path / "foreign")
    with pytest.raises(IssueFailed, match="does not hold"):
        await obtain(metacrypt(stand_in, root_file=str(foreign.ca_file)))
