"""ACME Renewal Information (RFC 9773) over real HTTPS; pebble has none."""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from reconcilers.certs.acme import Acme, AcmeSettings
from reconcilers.certs.issuer import IssueFailed, Window
from reconcilers.certs.remote import RemoteSettings
from tests.system.certs.https_stand_in import StandIn

pytestmark = pytest.mark.system

START = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[StandIn]:
    with StandIn(tmp_path, window=(START, START + timedelta(days=1))).serving() as running:
        yield running


def acme(stand_in: StandIn) -> Acme:
    remote = RemoteSettings(stand_in.folder / "state", f"{stand_in.url}/directory", str(stand_in.ca_file))
    return Acme(AcmeSettings(remote, "127.0.0.1", 1), lambda: datetime.now(UTC))


async def leaf(stand_in: StandIn) -> x509.Certificate:
    return (await stand_in.ca.issue("shop.test", timedelta(days=90))).chain[0]


async def test_the_window_is_asked_for_by_key_and_serial(stand_in: StandIn) -> None:
    certificate = await leaf(stand_in)
    window = await acme(stand_in).window(certificate)
    assert window == Window(START, START + timedelta(days=1), timedelta(hours=6))
    key, serial = (
        base64.urlsafe_b64decode(part + "==") for part in stand_in.requests[-1][0].removeprefix("/renewal/").split(".")
    )
    identifier = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert key == identifier.key_identifier
    assert int.from_bytes(serial, "big", signed=True) == certificate.serial_number


async def test_a_server_must_prove_who_it_is(stand_in: StandIn) -> None:
    settings = AcmeSettings(RemoteSettings(stand_in.folder / "other", f"{stand_in.url}/directory"), "127.0.0.1", 1)
    with pytest.raises(IssueFailed, match="CERTIFICATE_VERIFY_FAILED"):
        await Acme(settings, lambda: datetime.now(UTC)).window(await leaf(stand_in))
    assert stand_in.requests == []


async def test_a_window_that_is_none_is_not_heeded(stand_in: StandIn) -> None:
    stand_in.window = (START, START)
    assert await acme(stand_in).window(await leaf(stand_in)) is None


async def test_what_is_not_understood_is_a_failure_and_no_more(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stand_in, "get", lambda path: (200, {}, b'{"renewalInfo": 7}'))
    with pytest.raises(IssueFailed):
        await acme(stand_in).window(await leaf(stand_in))
