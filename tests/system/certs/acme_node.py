"""A node whose certificates come from a pebble: its issuer, its reconciler and its files, and nothing else."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from api.conditions import Status
from api.resolve import Defaults
from api.service import Service
from api.spec import ComponentSpec, RouteMode, RouteSpec, ServiceSpec
from controller.registry import Registry
from reconcilers.base import Outcome
from reconcilers.certs.acme import Acme, AcmeSettings, state_folder
from reconcilers.certs.ledger import Ledger
from reconcilers.certs.reconciler import Certs, CertSettings
from reconcilers.certs.remote import RemoteSettings
from stack.layout import Layout
from stack.pebble import Pebble


def now() -> datetime:
    return datetime.now(UTC)


def spec(*hostnames: str, name: str = "shop") -> ServiceSpec:
    routes = tuple(
        RouteSpec(name=f"r{i}", hostname=hostname, port=443, mode=RouteMode.L7) for i, hostname in enumerate(hostnames)
    )
    return ServiceSpec(name=name, components=(ComponentSpec(name="web", image="i:1", routes=routes),))


@dataclass
class AcmeNode:
    """Everything lies below `folder`; several in a row over one folder are an agent that is started again."""

    folder: Path
    pebble: Pebble
    directory: str = ""
    """URL of the directory, where it is not asked directly."""
    challenge_host: str = "127.0.0.1"
    patience: timedelta = timedelta(seconds=20)
    per_hour: int = 1000
    eab_key_id: str = ""
    pauses: tuple[timedelta, timedelta] = (timedelta(hours=1), timedelta(days=1))
    offset: timedelta = field(default_factory=timedelta)
    """How far our clock is ahead."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Shared by nodes that start side by side: alembic's context is one for the whole process."""

    def now(self) -> datetime:
        return now() + self.offset

    @property
    def url(self) -> str:
        return self.directory or self.pebble.directory

    @property
    def state(self) -> Path:
        return state_folder(self.folder, self.url)

    @property
    def certs_dir(self) -> Path:
        return self.folder / "certs"

    def issuer(self) -> Acme:
        remote = RemoteSettings(
            self.state, self.url, str(self.pebble.ca_file), per_hour=self.per_hour, patience=self.patience
        )
        settings = AcmeSettings(remote, self.challenge_host, self.pebble.challenge_port, "ops@shop.test")
        if self.eab_key_id:
            settings = replace(settings, eab_key_id=self.eab_key_id, eab_hmac_file=str(self.folder / "hmac"))
        return Acme(settings, self.now)

    async def victim(self, hostname: str) -> asyncio.subprocess.Process:
        """An agent of its own that wants a certificate for the hostname, to be killed."""
        command = [sys.executable, "-m", __name__, self.folder, self.pebble.layout.root]
        words = (str(self.pebble.challenge_port), self.url, self.challenge_host, hostname)
        environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
        return await asyncio.create_subprocess_exec(*command, *words, stdout=PIPE, env=environment)

    def order(self, hostname: str) -> str:
        """URL of the order that is open, as it is on disk."""
        return Ledger(self.state / "certificates").entry(hostname).order

    @asynccontextmanager
    async def agent(self) -> AsyncIterator["Agent"]:
        """An agent that runs until the block ends."""
        self.folder.mkdir(exist_ok=True)
        async with self.turn:
            registry = await Registry.open(f"sqlite:///{self.folder / 'registry.db'}", "rift")
        settings = CertSettings(self.certs_dir, timedelta(days=90), *self.pauses)
        certs = Certs(registry, self.issuer(), settings, Defaults(), self.now)
        agent = Agent(registry, certs)
        task = asyncio.create_task(certs.run(agent.wake))
        try:
            yield agent
        finally:
            task.cancel()
            await asyncio.wait([task])
            await registry.close()

    def leaf(self, hostname: str) -> x509.Certificate:
        """What lies there first."""
        return x509.load_pem_x509_certificates((self.certs_dir / f"{hostname}.pem").read_bytes())[0]


async def run_for_ever(node: AcmeNode, hostname: str) -> None:
    """What a victim does: wants a certificate for the hostname, and says so when it has it."""
    async with node.agent() as agent:
        await agent.registry.apply(spec(hostname), actor="test")
        await agent.until(Status.TRUE)
        sys.stdout.write(".")
        sys.stdout.flush()
        await asyncio.Event().wait()


@dataclass
class Agent:
    """A running one."""

    registry: Registry
    certs: Certs
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self, service: str) -> None:
        self.woken.set()

    async def look(self, name: str = "shop") -> Outcome:
        """One look, with all that it plans carried out, and again until nothing is left to do at once."""
        while True:
            service = await self.registry.service(name)
            assert service is not None
            plan = await self.certs.plan(service)
            for action in plan.actions:
                await self.certs.execute(service, action)
            if not plan.actions:
                return plan.outcome

    async def until(self, status: Status, name: str = "shop", seconds: float = 30) -> Service:
        """The service once its certificates are so, and none is under way any more."""
        outcome: Outcome | None = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    self.woken.clear()
                    outcome = await self.look(name)
                    running = any(attempt.running for attempt in self.certs._attempts.of(name).values())
                    if outcome.status is status and not running:
                        service = await self.registry.service(name)
                        assert service is not None
                        return service
                    after = outcome.requeue_after.total_seconds() if outcome.requeue_after is not None else None
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self.woken.wait(), after)
        except TimeoutError:
            raise AssertionError(f"not within {seconds:g} s; last seen: {outcome}") from None


def _main(folder: str, root: str, challenge_port: str, directory: str, challenge_host: str, hostname: str) -> None:
    reached = Pebble(Layout(Path(root)), 0, 0, int(challenge_port), 0, 0, Path(), {})
    asyncio.run(run_for_ever(AcmeNode(Path(folder), reached, directory, challenge_host), hostname))


if __name__ == "__main__":
    _main(*sys.argv[1:])
