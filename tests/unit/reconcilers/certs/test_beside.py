"""The certs reconciler with issuers that are not at hand: what is asked of whom, and what lies there meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from api.conditions import Reason, Status
from api.resolve import Defaults
from api.service import Finalizer
from reconcilers.base import Outcome
from reconcilers.certs.actions import Order
from reconcilers.certs.ca import EmbeddedCa
from reconcilers.certs.issuer import Issued, IssueFailed, Window
from reconcilers.certs.ledger import fingerprint_of
from reconcilers.certs.reconciler import Certs, CertSettings
from tests.unit.reconcilers.certs.conftest import HOSTNAME, World, spec
from tests.unit.reconcilers.memory import MemoryRegistry, newborn

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass
class Outside:
    """An issuer beyond a network: a CA of its own, which answers when it may and fails when it shall."""

    ca: EmbeddedCa
    name: str = "outside"
    at_hand: bool = False
    failure: IssueFailed | None = None
    hostname: str = ""
    """Of what it gives, where it gives something wrong."""
    other_key: bool = False
    advised: Window | None = None
    asked: list[str] = field(default_factory=list)
    settled: list[str] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    hanging: set[str] = field(default_factory=set)

    async def issue(self, hostname: str, lifetime: timedelta) -> Issued:
        self.asked.append(hostname)
        if hostname in self.hanging:
            await asyncio.Event().wait()
        if self.failure is not None:
            raise self.failure
        issued = await self.ca.issue(self.hostname or hostname, lifetime)
        self.known.add(fingerprint_of(issued.chain[0]))
        return replace(issued, key=ec.generate_private_key(ec.SECP256R1())) if self.other_key else issued

    def issued(self, leaf: x509.Certificate) -> bool:
        return fingerprint_of(leaf) in self.known

    def verify(self, hostname: str, chain: tuple[x509.Certificate, ...]) -> None:
        self.ca.verify(hostname, chain)

    async def window(self, leaf: x509.Certificate) -> Window | None:
        return self.advised

    def settle(self, hostname: str) -> None:
        self.settled.append(hostname)


@dataclass
class Node(World):
    """A world whose certificates come from outside, and, where that is wanted, from the agent's own CA instead."""

    stand_in: bool = False

    def __post_init__(self) -> None:
        self.outside = Outside(EmbeddedCa.open(self.folder / "outside", "sea", lambda: self.now))
        super().__post_init__()

    def agent(self) -> Certs:
        settings = CertSettings(self.cert_dir, self.lifetime)
        second = self.ca if self.stand_in else None
        return Certs(self.registry, self.outside, settings, Defaults(), lambda: self.now, second)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Queue[str]]:
        """The agent at work; gives the names of the services that it wakes, beside those that it always wakes."""
        woken: asyncio.Queue[str] = asyncio.Queue()
        task = asyncio.create_task(self.certs.run(woken.put_nowait))
        try:
            yield woken
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def settle(self, name: str = "shop") -> tuple[list[str], Outcome]:
        """Converges, with all that is done beside it."""
        async with self.running() as woken, asyncio.timeout(5):
            done, outcome = await self.converge(name)
            while outcome.reason is Reason.PROGRESSING or "is being obtained" in outcome.message:
                await woken.get()
                more, outcome = await self.converge(name)
                done += more
        return done, outcome


def node(folder: Path, *hostnames: str, stand_in: bool = False) -> Node:
    return Node(folder, MemoryRegistry(newborn(spec(*(hostnames or (HOSTNAME,))))), stand_in=stand_in)


@pytest.fixture
def world(tmp_path: Path) -> Node:
    return node(tmp_path)


def leaf(world: World) -> x509.Certificate:
    return x509.load_pem_x509_certificates(world.path("shop.test.pem").read_bytes())[0]


async def test_a_certificate_is_ordered_and_laid_down_once_it_is_there(world: Node) -> None:
    done, outcome = await world.settle()
    assert done == [f"{verb} a certificate for {HOSTNAME} (there is none)" for verb in ("order", "issue")]
    assert outcome.status is Status.TRUE
    assert world.outside.issued(leaf(world))
    assert world.outside.settled == [HOSTNAME]
    (recorded,) = world.service().certificates
    assert (recorded.issuer, recorded.error, recorded.retry_at) == ("outside", "", None)


async def test_nothing_is_asked_twice(world: Node) -> None:
    await world.settle()
    world.certs = world.agent()
    assert (await world.settle())[0] == []
    assert world.outside.asked == [HOSTNAME]


async def test_several_hostnames_are_obtained_side_by_side(tmp_path: Path) -> None:
    world = node(tmp_path, "a.test", "b.test")
    world.outside.hanging = {"a.test"}
    async with world.running() as woken, asyncio.timeout(5):
        _, outcome = await world.converge()
        while "b.test.pem" not in world.files():
            await woken.get()
            _, outcome = await world.converge()
    assert outcome.message == "a certificate for a.test is being obtained from outside"


async def test_a_service_whose_issuer_hangs_holds_up_no_other(world: Node) -> None:
    world.registry.services["slow"] = newborn(spec("slow.test", name="slow"))
    world.outside.hanging = {"slow.test"}
    async with world.running():
        await world.converge("slow")
        assert (await world.settle())[1].status is Status.TRUE


async def test_a_failure_is_kept_across_a_restart_and_asked_again_when_its_time_has_come(world: Node) -> None:
    world.outside.failure = IssueFailed("too many", retry_after=5 * HOUR)
    done, outcome = await world.settle()
    assert (outcome.status, outcome.reason) == (Status.FALSE, Reason.CERTIFICATE_FAILED)
    (recorded,) = world.service().certificates
    assert (recorded.fingerprint, recorded.error) == ("", "outside: too many")
    assert (recorded.failures, recorded.retry_at) == (1, world.now + 5 * HOUR)
    assert done[-1].startswith(f"postpone a certificate for {HOSTNAME} until ")
    world.certs, world.outside.failure = world.agent(), None
    world.now += 5 * HOUR - timedelta(seconds=1)
    assert (await world.settle())[0] == []
    world.now += timedelta(seconds=1)
    assert (await world.settle())[1].status is Status.TRUE
    (recorded,) = world.service().certificates
    assert (recorded.error, recorded.failures, recorded.retry_at) == ("", 0, None)


async def test_the_old_certificate_serves_to_its_end_while_renewal_fails(world: Node) -> None:
    await world.settle()
    before = world.path("shop.test.pem").read_bytes()
    world.outside.failure = IssueFailed("away")
    end = world.service().certificates[0].not_after
    while world.now < end:
        _, outcome = await world.settle()
        assert outcome.status is Status.TRUE
        assert outcome.requeue_after is not None
        world.now += max(outcome.requeue_after, timedelta(seconds=1))
    assert world.path("shop.test.pem").read_bytes() == before
    assert (await world.settle())[1].reason is Reason.CERTIFICATE_FAILED
    # Five pauses that double from an hour, then one a day for the 30 days that were left.
    assert 30 <= len(world.outside.asked) <= 37
    world.outside.failure = None
    world.now += DAY
    assert (await world.settle())[1].status is Status.TRUE


async def test_the_second_issuer_stands_in_until_the_first_works_again(tmp_path: Path) -> None:
    world = node(tmp_path, stand_in=True)
    world.outside.failure = IssueFailed("away")
    _, outcome = await world.settle()
    assert outcome.status is Status.TRUE
    assert world.ca.issued(leaf(world))
    (recorded,) = world.service().certificates
    assert (recorded.issuer, recorded.error, recorded.failures) == (world.ca.name, "outside: away", 1)
    assert recorded.retry_at == world.now + HOUR
    assert (await world.settle())[0] == []
    world.outside.failure = None
    world.now += HOUR
    assert (await world.settle())[0] == [
        f"{verb} a certificate for {HOSTNAME} ({world.ca.name} only stands in)" for verb in ("order", "issue")
    ]
    assert world.service().certificates[0].issuer == "outside"


async def test_while_a_good_one_serves_the_second_issuer_is_not_asked(tmp_path: Path) -> None:
    world = node(tmp_path, stand_in=True)
    await world.settle()
    world.outside.failure = IssueFailed("away")
    world.now += 61 * DAY
    await world.settle()
    assert world.outside.issued(leaf(world))
    while not world.ca.issued(leaf(world)):
        _, outcome = await world.settle()
        assert outcome.status is Status.TRUE
        world.now += outcome.requeue_after or DAY
    assert world.now >= world.outside.ca.certificate.not_valid_before_utc + 81 * DAY


async def test_both_failing_says_both(tmp_path: Path) -> None:
    world = node(tmp_path, stand_in=True)
    world.outside.failure = IssueFailed("away")
    world.now = world.ca.certificate.not_valid_after_utc + DAY
    message = (await world.settle())[1].message
    assert "outside: away; CN=MCP CA of rift: the CA expired on" in message


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [({"other_key": True}, "is for another key"), ({"hostname": "other.test"}, "it is for other names")],
)
async def test_a_wrong_certificate_is_refused_and_not_taken_from_its_order_again(
    world: Node, wrong: dict[str, object], complaint: str
) -> None:
    world.outside = replace(world.outside, **wrong)  # type: ignore[arg-type]
    world.certs = world.agent()
    assert complaint in (await world.settle())[1].message
    assert world.files() == []
    assert world.outside.settled == [HOSTNAME]


async def test_a_defect_of_an_issuer_is_one_attempt_s_failure(world: Node) -> None:
    world.outside.failure = RuntimeError("oops")  # type: ignore[assignment]
    assert "outside: RuntimeError: oops" in (await world.settle())[1].message


async def test_a_changed_issuer_replaces_what_the_old_one_gave(world: Node) -> None:
    world.certs = Certs(world.registry, world.ca, CertSettings(world.cert_dir), Defaults(), lambda: world.now)
    await world.converge()
    world.certs = world.agent()
    assert f"order a certificate for {HOSTNAME} (it is from another CA)" in (await world.settle())[0]
    assert world.outside.issued(leaf(world))


async def test_a_lost_registry_does_not_make_our_certificates_the_operator_s(world: Node) -> None:
    await world.settle()
    world.registry.update("shop", certificates=())
    await world.settle()
    assert world.service().certificates[0].issuer == "outside"
    assert world.outside.asked == [HOSTNAME]


async def test_an_issuer_s_wish_renews_early(world: Node) -> None:
    world.outside.advised = Window(world.now + 2 * DAY, world.now + 3 * DAY, 6 * HOUR)
    async with world.running() as woken, asyncio.timeout(5):
        _, outcome = await world.converge()
        while outcome.requeue_after is None or not 2 * DAY <= outcome.requeue_after <= 3 * DAY:
            await woken.get()
            _, outcome = await world.converge()
    assert world.service().certificates[0].renew_at == world.now + outcome.requeue_after
    world.certs, world.outside.advised = world.agent(), None
    world.now += outcome.requeue_after
    assert f"order a certificate for {HOSTNAME} (it is due for renewal)" in (await world.settle())[0]


async def test_a_dry_run_orders_nothing(world: Node) -> None:
    actions = (await world.certs.plan(world.service())).actions
    assert isinstance(actions[0], Order)
    assert world.certs.assume(world.service(), actions).certificates[0].fingerprint
    assert world.outside.asked == []


async def test_a_service_that_goes_takes_its_attempt_along(world: Node) -> None:
    world.outside.failure = IssueFailed("away")
    await world.settle()
    world.registry.update("shop", deletion_requested_at=world.now, finalizers=(Finalizer.CERTS,))
    await world.settle()
    assert world.service().certificates == ()
    assert world.files() == []
