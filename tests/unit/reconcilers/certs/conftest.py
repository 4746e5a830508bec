"""A CA, a folder for certificates and a clock that a test can turn."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.resolve import Defaults
from api.service import Service
from api.spec import ComponentSpec, RouteMode, RouteSpec, ServiceSpec
from reconcilers.base import Outcome
from reconcilers.certs.ca import EmbeddedCa
from reconcilers.certs.reconciler import Certs, CertSettings
from tests.unit.reconcilers.memory import MemoryRegistry, newborn

HOSTNAME = "shop.test"


def spec(*hostnames: str, name: str = "shop") -> ServiceSpec:
    """A service with these hostnames on l7 routes."""
    routes = tuple(
        RouteSpec(name=f"r{index}", hostname=hostname, port=443, mode=RouteMode.L7)
        for index, hostname in enumerate(hostnames)
    )
    return ServiceSpec(name=name, components=(ComponentSpec(name="web", image="i:1", routes=routes),))


@dataclass
class World:
    """Services, their registry, and a folder of certificates."""

    folder: Path
    registry: MemoryRegistry
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    lifetime: timedelta = timedelta(days=90)

    def __post_init__(self) -> None:
        self.ca = EmbeddedCa.open(self.folder / "ca", "rift", lambda: self.now)
        self.certs = self.agent()

    @property
    def cert_dir(self) -> Path:
        return self.folder / "certs"

    def agent(self) -> Certs:
        """A reconciler as after a start of the agent: it remembers nothing."""
        settings = CertSettings(self.cert_dir, self.lifetime)
        return Certs(self.registry, self.ca, settings, Defaults(), lambda: self.now)

    def path(self, name: str) -> Path:
        return self.cert_dir / name

    def service(self, name: str = "shop") -> Service:
        return self.registry[name]

    def files(self) -> Sequence[str]:
        return sorted(path.name for path in self.cert_dir.iterdir()) if self.cert_dir.exists() else []

    async def converge(self, name: str = "shop") -> tuple[list[str], Outcome]:
        """Carries out what is planned until nothing is; returns what was done."""
        done: list[str] = []
        for _ in range(5):
            plan = await self.certs.plan(self.registry[name])
            if not plan.actions:
                return done, plan.outcome
            for action in plan.actions:
                await self.certs.execute(self.registry[name], action)
                done.append(action.describe())
        raise AssertionError(done)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, MemoryRegistry(newborn(spec(HOSTNAME))))
