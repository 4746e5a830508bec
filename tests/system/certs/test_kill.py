"""A process that issues, renews and removes is killed with -9 again and again; what it leaves always ends well."""

import asyncio
import random
import sys
from asyncio.subprocess import PIPE
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.resolve import Defaults
from api.spec import ComponentSpec, RouteMode, RouteSpec, ServiceSpec
from controller.registry import Registry
from reconcilers.certs.ca import EmbeddedCa
from reconcilers.certs.reconciler import Certs, CertSettings

pytestmark = pytest.mark.system

HOSTNAMES = tuple(f"h{index}.test" for index in range(5))


def now() -> datetime:
    return datetime.now(UTC)


def spec(*hostnames: str) -> ServiceSpec:
    routes = tuple(
        RouteSpec(name=f"r{i}", hostname=name, port=443, mode=RouteMode.L7) for i, name in enumerate(hostnames)
    )
    return ServiceSpec(name="shop", components=(ComponentSpec(name="web", image="i:1", routes=routes),))


async def converge(registry: Registry, certs: Certs) -> None:
    """Plans and acts until nothing is left to do."""
    while (service := await registry.service("shop")) and (actions := (await certs.plan(service)).actions):
        for action in actions:
            await certs.execute(service, action)


async def run_for_ever(folder: Path) -> None:
    """What the victim does: wants all hostnames, then one, and so on; all are soon due for renewal."""
    registry = await Registry.open(f"sqlite:///{folder / 'registry.db'}", "rift")
    certs = agent(folder, registry)
    while True:
        for wanted in (spec(*HOSTNAMES), spec(HOSTNAMES[0])):
            await registry.apply(wanted, actor="test")
            await converge(registry, certs)
            sys.stdout.write(".")
            sys.stdout.flush()


def agent(folder: Path, registry: Registry) -> Certs:
    ca = EmbeddedCa.open(folder / "ca", "rift", now)
    return Certs(registry, ca, CertSettings(folder / "certs", timedelta(days=1)), Defaults(), now)


async def settled(folder: Path, *hostnames: str) -> None:
    """Starts again where the victim was killed, and checks that nothing is doubled, lost or left over."""
    registry = await Registry.open(f"sqlite:///{folder / 'registry.db'}", "rift")
    certs = agent(folder, registry)
    service, _ = await registry.apply(spec(*hostnames), actor="test")
    await converge(registry, certs)
    service = await registry.service("shop") or service
    await registry.close()
    expected = {f"{hostname}{suffix}" for hostname in hostnames for suffix in (".pem", ".key")}
    assert {path.name for path in (folder / "certs").iterdir()} == expected
    assert {record.hostname for record in service.certificates} == set(hostnames)
    assert all(record.fingerprint for record in service.certificates)


@pytest.mark.parametrize("seed", range(6))
async def test_killed_at_any_moment_it_ends_in_the_same_place(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    for wanted in (HOSTNAMES, HOSTNAMES[:1]):
        victim = await asyncio.create_subprocess_exec(sys.executable, __file__, tmp_path, stdout=PIPE)
        assert victim.stdout is not None
        await victim.stdout.read(1)
        await asyncio.sleep(chance.uniform(0, 0.05))
        victim.kill()
        await victim.communicate()
        await settled(tmp_path, *wanted)


if __name__ == "__main__":
    asyncio.run(run_for_ever(Path(sys.argv[1])))
