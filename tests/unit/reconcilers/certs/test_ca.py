"""The embedded CA: made once, loaded ever after, never replaced silently."""

import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from reconcilers.certs.ca import CaUnusable, EmbeddedCa
from reconcilers.certs.issuer import IssueFailed

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def open_ca(folder: Path, *, node: str = "rift", now: datetime = NOW) -> EmbeddedCa:
    return EmbeddedCa.open(folder / "ca", node, lambda: now)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_root_is_a_ca_of_path_length_zero_for_ten_years_named_after_the_node(tmp_path: Path) -> None:
    certificate = open_ca(tmp_path).certificate
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    assert certificate.not_valid_after_utc - NOW == timedelta(days=3652)
    assert certificate.subject.rfc4514_string() == "CN=MCP CA of rift"


def test_a_node_s_name_of_any_length_fits(tmp_path: Path) -> None:
    assert open_ca(tmp_path, node="n" * 63).name.startswith("CN=MCP CA of nnn")


def test_the_key_is_for_nobody_else_and_the_certificate_for_everybody(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        open_ca(tmp_path)
    finally:
        os.umask(umask)
    assert mode(tmp_path / "ca/private") == 0o700
    assert mode(tmp_path / "ca/private/ca.key") == 0o600
    assert mode(tmp_path / "ca/ca.pem") == 0o644


def test_a_later_start_loads_the_same_root(tmp_path: Path) -> None:
    assert open_ca(tmp_path).certificate == open_ca(tmp_path, now=NOW + timedelta(days=1)).certificate


def test_a_start_that_died_before_the_certificate_is_completed_with_its_key(tmp_path: Path) -> None:
    first = open_ca(tmp_path)
    (tmp_path / "ca/ca.pem").unlink()
    (tmp_path / "ca/.ca.pem.new").write_bytes(b"half")
    second = open_ca(tmp_path)
    assert second.certificate.public_key() == first.certificate.public_key()
    assert {path.name for path in (tmp_path / "ca").iterdir()} == {"ca.pem", "private"}


def test_a_start_that_died_before_the_key_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "ca/private").mkdir(parents=True)
    (tmp_path / "ca/private/.ca.key.new").write_bytes(b"half")
    open_ca(tmp_path)
    assert [path.name for path in (tmp_path / "ca/private").iterdir()] == ["ca.key"]


def damage_key(folder: Path) -> None:
    (folder / "private/ca.key").write_bytes(b"-----BEGIN PRIVATE KEY-----\nno\n")


def lose_key(folder: Path) -> None:
    (folder / "private/ca.key").unlink()


def damage_certificate(folder: Path) -> None:
    (folder / "ca.pem").write_bytes(b"")


def swap_certificate(folder: Path) -> None:
    other = open_ca(folder.parent / "other")
    assert other
    (folder.parent / "other/ca/ca.pem").rename(folder / "ca.pem")


def block_certificate(folder: Path) -> None:
    (folder / "ca.pem").unlink()
    (folder / "ca.pem").mkdir()


@pytest.mark.parametrize("damage", [damage_key, lose_key, damage_certificate, swap_certificate, block_certificate])
def test_a_damaged_ca_is_one_clear_sentence_and_stays_as_it_is(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    open_ca(tmp_path)
    damage(tmp_path / "ca")
    before = sorted((path, path.read_bytes()) for path in (tmp_path / "ca").rglob("*") if path.is_file())
    with pytest.raises(CaUnusable, match=r"^/\S+ .*(restore|damaged|gone)") as caught:
        open_ca(tmp_path)
    assert "\n" not in str(caught.value)
    assert before == sorted((path, path.read_bytes()) for path in (tmp_path / "ca").rglob("*") if path.is_file())


def test_a_folder_that_cannot_be_written_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("a file in its place")
    with pytest.raises(CaUnusable, match="cannot be read or made"):
        open_ca(tmp_path)


async def issue(
    ca: EmbeddedCa, hostname: str = "shop.test", lifetime: timedelta = timedelta(days=90)
) -> x509.Certificate:
    chain = (await ca.issue(hostname, lifetime)).chain
    ca.verify(hostname, chain)
    return chain[0]


async def test_what_it_issues_is_good_for_one_hostname_and_its_time(tmp_path: Path) -> None:
    leaf = await issue(open_ca(tmp_path))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["shop.test"]
    assert leaf.not_valid_after_utc == NOW + timedelta(days=90)
    assert leaf.not_valid_before_utc == NOW - timedelta(hours=1)


async def test_a_hostname_longer_than_a_common_name_may_be_is_no_obstacle(tmp_path: Path) -> None:
    hostname = ".".join(["a" * 60] * 4)
    leaf = await issue(open_ca(tmp_path), hostname)
    assert not list(leaf.subject)


async def test_a_short_life_is_mostly_ahead(tmp_path: Path) -> None:
    leaf = await issue(open_ca(tmp_path), lifetime=timedelta(seconds=100))
    assert leaf.not_valid_before_utc == NOW - timedelta(seconds=1)


async def test_nothing_outlives_the_root(tmp_path: Path) -> None:
    ca = open_ca(tmp_path)
    last = ca.certificate.not_valid_after_utc
    late = open_ca(tmp_path, now=last - timedelta(days=1))
    assert (await issue(late)).not_valid_after_utc == last


async def test_an_expired_root_issues_nothing_that_is_believed(tmp_path: Path) -> None:
    last = open_ca(tmp_path).certificate.not_valid_after_utc
    expired = open_ca(tmp_path, now=last + timedelta(days=1))
    with pytest.raises(IssueFailed):
        await issue(expired)


async def test_it_knows_its_own_from_those_of_a_namesake(tmp_path: Path) -> None:
    ca, namesake = open_ca(tmp_path / "a"), open_ca(tmp_path / "b")
    leaf = await issue(ca)
    assert ca.issued(leaf)
    assert not namesake.issued(leaf)
