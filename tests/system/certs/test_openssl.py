"""What is laid down, judged by another implementation of X.509."""

import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from api.resolve import Defaults
from api.spec import ComponentSpec, RouteMode, RouteSpec, ServiceSpec
from reconcilers.certs.ca import EmbeddedCa
from reconcilers.certs.reconciler import Certs, CertSettings
from tests.unit.reconcilers.memory import MemoryRegistry, newborn

pytestmark = pytest.mark.system

HOSTNAMES = ("shop.test", ".".join(["long" * 15] * 4))


def now() -> datetime:
    return datetime.now(UTC)


def openssl(*args: str | Path) -> str:
    """Its standard output; raises where it fails."""
    return subprocess.run(["openssl", *args], check=True, capture_output=True, text=True).stdout


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A CA in `ca/`, and in `certs/` what was issued for each hostname."""
    routes = tuple(
        RouteSpec(name=f"r{i}", hostname=name, port=443, mode=RouteMode.L7) for i, name in enumerate(HOSTNAMES)
    )
    spec = ServiceSpec(name="shop", components=(ComponentSpec(name="web", image="i:1", routes=routes),))
    registry = MemoryRegistry(newborn(spec))
    ca = EmbeddedCa.open(tmp_path / "ca", "rift", now)
    certs = Certs(registry, ca, CertSettings(tmp_path / "certs"), Defaults(), now)
    for action in (await certs.plan(registry["shop"])).actions:
        await certs.execute(registry["shop"], action)
    return tmp_path


def verify(folder: Path, hostname: str, *options: str) -> Sequence[str | Path]:
    leaf = folder / f"certs/{hostname}.pem"
    return ["verify", "-x509_strict", "-CAfile", folder / "ca/ca.pem", "-purpose", "sslserver", *options, leaf]


@pytest.mark.parametrize("hostname", HOSTNAMES)
async def test_openssl_accepts_the_chain_for_its_hostname_in_strict_mode(folder: Path, hostname: str) -> None:
    assert openssl(*verify(folder, hostname, "-verify_hostname", hostname)).endswith(": OK\n")


async def test_openssl_refuses_it_for_another_hostname(folder: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        openssl(*verify(folder, HOSTNAMES[0], "-verify_hostname", "other.test"))


async def test_the_key_belongs_to_the_certificate(folder: Path) -> None:
    certified = openssl("x509", "-in", folder / "certs/shop.test.pem", "-noout", "-pubkey")
    assert openssl("pkey", "-in", folder / "certs/shop.test.key", "-pubout") == certified


async def test_a_leaf_cannot_issue(folder: Path, tmp_path: Path) -> None:
    """What a stolen leaf key would sign is refused: the root allows no CA below it, and the leaf is none."""
    thief = EmbeddedCa(
        certificate=_load(folder / "certs/shop.test.pem"), key=_load_key(folder / "certs/shop.test.key"), clock=now
    )
    forged = thief.sign("victim.test", ec.generate_private_key(ec.SECP256R1()), CertSettings(folder).lifetime)
    (tmp_path / "forged.pem").write_bytes(forged[0].public_bytes(Encoding.PEM))
    with pytest.raises(subprocess.CalledProcessError):
        openssl(
            "verify",
            "-CAfile",
            folder / "ca/ca.pem",
            "-untrusted",
            folder / "certs/shop.test.pem",
            tmp_path / "forged.pem",
        )


def _load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates(path.read_bytes())[0]


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(path.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key
