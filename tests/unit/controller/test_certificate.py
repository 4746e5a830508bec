"""The API's certificate changes while the agent runs: nobody is cut off, and whoever comes next sees the new one."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from api.errors import Refused
from controller.certificate import LIFETIME, ApiCertificate, Given, Signed
from controller.registry import utc_now
from reconcilers.certs.ca import EmbeddedCa
from tests.unit.controller.auth.served import Served, serving
from tests.unit.controller.pairs import Files


class Hands:
    """A clock whose hands are moved."""

    def __init__(self, behind: timedelta) -> None:
        self.behind = behind

    def __call__(self) -> datetime:
        return utc_now() - self.behind


def seen(served: Served) -> int:
    """The serial number of the certificate that a new connection is shown, verified, over TLS 1.3."""
    context = ssl.create_default_context(cafile=served.ca_file)
    with (
        socket.create_connection(("127.0.0.1", served.port), 5) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as tls,
    ):
        assert tls.version() == "TLSv1.3"
        return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"").serial_number


async def test_a_certificate_is_renewed_under_a_stream_that_goes_on(tmp_path: Path, monkeypatch: Any) -> None:
    hands = Hands(behind=LIFETIME * 2 / 3 + timedelta(days=1))
    more = asyncio.Event()

    async with serving(tmp_path, hands) as served, served.client(await served.token()) as client:

        async def two(service: str = "", *, after_id: int = 0) -> AsyncIterator[Any]:
            event = (await served.plane.events())[0]
            yield event
            await more.wait()
            yield event

        monkeypatch.setattr(served.plane, "watch_events", two)
        first = await asyncio.to_thread(seen, served)
        assert await asyncio.to_thread(seen, served) == first
        stream = client.watch_events()
        await anext(stream)
        hands.behind = timedelta()
        second = await asyncio.to_thread(seen, served)
        assert second != first
        assert await asyncio.to_thread(seen, served) == second
        async with served.client(await served.token("new")) as other:
            assert await other.services()
        more.set()
        assert await anext(stream)
        assert await client.services()


def test_a_ca_that_expired_leaves_the_certificate_that_is_there(tmp_path: Path) -> None:
    hands = Hands(behind=timedelta())
    ca = EmbeddedCa.open(tmp_path, "rift", hands)
    certificate = ApiCertificate(Signed(ca, (), hands))
    before = certificate.shown()
    hands.behind = -timedelta(days=4000)
    after = certificate.shown()
    assert (after.pair, after.not_after) == (before.pair, before.not_after)
    assert "cannot be signed: the CA expired" in after.problem


# Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "theirs")


async def test_files_that_change_are_served_from_the_next_connection_on(tmp_path: Path, files: Files) -> None:
    first = files.write()
    api = {"cert_file": str(files.cert), "key_file": str(files.key)}
    async with serving(tmp_path, api=api) as served:
        served.ca_file.write_bytes(files.ca.read_bytes())
        async with served.client(await served.token()) as client:
            assert await client.services()
            assert await asyncio.to_thread(seen, served) == first
            chain, key, second = files.make()
            files.cert.write_bytes(chain)
            assert await asyncio.to_thread(seen, served) == first
            files.key.write_bytes(key)
            assert await asyncio.to_thread(seen, served) == second
            files.key.unlink()
            assert await asyncio.to_thread(seen, served) == second
            third = files.write()
            assert await asyncio.to_thread(seen, served) == third
            assert await client.services()


def test_what_speaks_against_the_files_is_told_until_they_are_mended(files: Files) -> None:
    files.write()
    certificate = ApiCertificate(Given(files.cert, files.key))
    assert certificate.shown().problem == ""
    files.key.write_bytes(files.make()[1])
    for _ in range(2):
        assert "is of another key" in certificate.shown().problem
    files.write()
    assert certificate.shown().problem == ""


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda files: files.cert.write_text("x"), r"api.cert_file: .* holds no certificate"),
        (lambda files: files.key.write_text("x"), r"api.key_file: .* holds no key that can be used"),
        (lambda files: files.key.unlink(), r"key.pem: No such file"),
        (lambda files: files.write(rsa.generate_private_key(65537, 2048)), r"no ECDSA key, and only with one TLS 1\.2"),
        (lambda files: files.key.write_bytes(files.make()[1]), r"is of another key"),
    ],
)
def test_files_that_cannot_be_served_are_refused_at_the_start(files: Files, harm: Any, words: str) -> None:
    files.write()
    harm(files)
    with pytest.raises(Refused, match=words):
        ApiCertificate(Given(files.cert, files.key))
