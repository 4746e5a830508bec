"""The certs reconciler over real files: what is asserted is what lies on disk and in the registry."""

import asyncio
import os
import shutil
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from api.conditions import Reason, Status
from api.resolve import Defaults
from api.service import Finalizer
from reconcilers.base import Terminal, Transient
from reconcilers.certs.ca import EmbeddedCa
from reconcilers.certs.issuer import Issued
from reconcilers.certs.model import PROVIDED
from reconcilers.certs.reconciler import Certs, CertSettings
from tests.unit.reconcilers.certs.conftest import HOSTNAME, World, spec
from tests.unit.reconcilers.memory import MemoryRegistry, newborn


async def test_a_full_chain_and_its_key_are_laid_down(world: World) -> None:
    done, outcome = await world.converge()
    assert done == [f"issue a certificate for {HOSTNAME} (there is none)"]
    assert outcome.status is Status.TRUE
    assert world.files() == ["shop.test.key", "shop.test.pem"]
    leaf, root = x509.load_pem_x509_certificates(world.path("shop.test.pem").read_bytes())
    assert root == world.ca.certificate
    assert stat.S_IMODE(world.path("shop.test.key").stat().st_mode) == 0o600
    (recorded,) = world.service().certificates
    assert recorded.serial == f"{leaf.serial_number:x}"
    assert recorded.issuer == "CN=MCP CA of rift"


async def test_the_default_hostname_lies_under_the_service_s_name(tmp_path: Path) -> None:
    world = World(tmp_path, MemoryRegistry(newborn(spec("shop.svc.mcp.metacircular.net", "docs.test"))))
    await world.converge()
    assert world.files() == ["docs.test.key", "docs.test.pem", "shop.key", "shop.pem"]


async def test_nothing_is_done_twice(world: World) -> None:
    await world.converge()
    before = world.path("shop.test.pem").stat()
    world.certs = world.agent()
    assert (await world.converge())[0] == []
    assert world.path("shop.test.pem").stat() == before


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda w: w.path("shop.test.pem").unlink(), "its certificate file is missing"),
        (lambda w: w.path("shop.test.key").unlink(), "its key file is missing"),
        (lambda w: w.path("shop.test.key").write_text("x"), "its key file holds no private key that can be read"),
        (lambda w: w.path("shop.test.pem").write_text("x"), "its certificate file holds no certificate"),
        (lambda w: shutil.rmtree(w.cert_dir), "there is none"),
        (lambda w: _leaf_only(w.path("shop.test.pem")), "its chain is incomplete"),
        (lambda w: _replace_by_symlink(w.path("shop.test.key")), "its key file is missing"),
    ],
)
async def test_damage_is_mended_by_a_new_certificate(world: World, damage: Callable[[World], None], cause: str) -> None:
    await world.converge()
    before = world.service().certificates[0].fingerprint
    damage(world)
    assert (await world.converge())[0] == [f"issue a certificate for {HOSTNAME} ({cause})"]
    assert world.service().certificates[0].fingerprint != before
    assert world.files() == ["shop.test.key", "shop.test.pem"]


async def test_it_is_renewed_at_two_thirds_of_its_life_and_not_before(world: World) -> None:
    _, outcome = await world.converge()
    assert outcome.requeue_after is not None
    world.now += outcome.requeue_after - timedelta(seconds=1)
    assert (await world.converge())[0] == []
    world.now += timedelta(seconds=2)
    assert (await world.converge())[0] == [f"issue a certificate for {HOSTNAME} (it is due for renewal)"]


async def test_a_clock_that_jumps_back_and_forth_ends_with_a_good_certificate(world: World) -> None:
    for jump in (timedelta(days=400), timedelta(days=-200), timedelta(days=3000)):
        world.now += jump
        await world.converge()
        (recorded,) = world.service().certificates
        assert recorded.not_before <= world.now < recorded.renew_at


async def test_a_new_ca_replaces_the_certificates_of_the_old_one(world: World) -> None:
    await world.converge()
    world.ca = EmbeddedCa.open(world.folder / "another", "rift", lambda: world.now)
    world.certs = world.agent()
    assert (await world.converge())[0] == [f"issue a certificate for {HOSTNAME} (it is from another CA)"]


async def provide(world: World, hostname: str = HOSTNAME, path: str = "shop.test") -> bytes:
    """Lays down a good pair from a CA that is not ours, as an operator would."""
    foreign = World(world.folder / "foreign", MemoryRegistry(newborn(spec(hostname))))
    await foreign.converge()
    world.cert_dir.mkdir(exist_ok=True)
    for suffix in (".pem", ".key"):
        shutil.copy(foreign.path(hostname + suffix), world.path(path + suffix))
    return world.path(f"{path}.pem").read_bytes()


async def test_a_pair_that_the_operator_provides_is_used_and_survives_the_service(world: World) -> None:
    provided = await provide(world)
    _, outcome = await world.converge()
    assert outcome.message == f"{HOSTNAME}: {PROVIDED}"
    assert world.service().certificates[0].issuer == PROVIDED
    world.registry.update("shop", deletion_requested_at=world.now, finalizers=(Finalizer.CERTS,))
    await world.converge()
    assert world.service().certificates == ()
    assert world.path("shop.test.pem").read_bytes() == provided


async def test_a_pair_that_the_operator_takes_away_is_replaced_by_one_of_ours(world: World) -> None:
    await provide(world)
    await world.converge()
    shutil.rmtree(world.cert_dir)
    await world.converge()
    assert world.service().certificates[0].issuer == world.ca.name


async def test_a_foreign_pair_for_another_name_is_a_conflict_and_stays(world: World) -> None:
    provided = await provide(world, hostname="other.test")
    done, outcome = await world.converge()
    assert done == []
    assert outcome.reason is Reason.CONFLICT
    assert str(world.path("shop.test.pem")) in outcome.message
    assert world.path("shop.test.pem").read_bytes() == provided


async def test_what_cannot_be_read_is_unknown_and_not_missing(world: World) -> None:
    await world.converge()
    world.path("shop.test.pem").unlink()
    world.path("shop.test.pem").symlink_to("shop.test.pem")
    with pytest.raises(Transient, match="cannot read the certificates") as caught:
        await world.certs.plan(world.service())
    assert caught.value.status is Status.UNKNOWN


async def test_a_named_pipe_in_the_place_of_a_file_holds_nobody_up(world: World) -> None:
    world.cert_dir.mkdir()
    os.mkfifo(world.path("shop.test.pem"))
    async with asyncio.timeout(5):
        assert (await world.converge())[1].reason is Reason.CONFLICT


async def test_a_folder_that_cannot_be_written_is_said_so(world: World) -> None:
    world.cert_dir.symlink_to("/proc/self/fdinfo")
    (action,) = (await world.certs.plan(world.service())).actions
    with pytest.raises(Transient, match="cannot write"):
        await world.certs.execute(world.service(), action)


async def test_two_services_cannot_have_one_path(world: World) -> None:
    world.registry.services["market"] = newborn(spec(HOSTNAME, name="market"))
    await world.converge()
    before = world.path("shop.test.pem").read_bytes()
    done, outcome = await world.converge("market")
    assert done == []
    assert outcome.reason is Reason.CONFLICT
    assert 'service "shop"' in outcome.message
    assert world.path("shop.test.pem").read_bytes() == before


async def test_losing_a_path_to_a_quicker_service_touches_no_file(world: World) -> None:
    world.registry.services["market"] = newborn(spec(HOSTNAME, name="market"))
    (late,) = (await world.certs.plan(world.service("market"))).actions
    await world.converge()
    before = world.path("shop.test.pem").read_bytes()
    with pytest.raises(Terminal, match='service "shop"') as caught:
        await world.certs.execute(world.service("market"), late)
    assert caught.value.reason is Reason.CONFLICT
    assert world.path("shop.test.pem").read_bytes() == before


async def test_a_dropped_hostname_takes_its_files_along(world: World) -> None:
    world.registry.update("shop", spec=spec(HOSTNAME, "docs.test"))
    await world.converge()
    world.registry.update("shop", spec=spec("docs.test"))
    await world.converge()
    assert world.files() == ["docs.test.key", "docs.test.pem"]
    assert [record.hostname for record in world.service().certificates] == ["docs.test"]


async def test_what_a_death_left_of_a_pair_that_never_came_to_be_goes_with_its_hostname(world: World) -> None:
    (action,) = (await world.certs.plan(world.service())).actions
    await world.certs.execute(world.service(), action)
    for name in ("shop.test.pem", "shop.test.key"):
        world.path(name).rename(world.path(f".{name}.new"))
    world.registry.update("shop", deletion_requested_at=world.now, finalizers=(Finalizer.CERTS,))
    await world.converge()
    assert list(world.cert_dir.iterdir()) == []


async def test_a_file_that_changed_between_plan_and_act_is_not_removed(world: World) -> None:
    await world.converge()
    world.registry.update("shop", deletion_requested_at=world.now, finalizers=(Finalizer.CERTS,))
    (action,) = (await world.certs.plan(world.service())).actions
    provided = await provide(world)
    with pytest.raises(Transient, match="changed meanwhile"):
        await world.certs.execute(world.service(), action)
    await world.converge()
    assert world.path("shop.test.pem").read_bytes() == provided


async def test_a_dry_run_sees_the_certificate_that_would_be_issued(world: World) -> None:
    actions = (await world.certs.plan(world.service())).actions
    assumed = world.certs.assume(world.service(), actions)
    assert assumed.certificates[0].fingerprint
    assert world.service().certificates == ()
    assert world.files() == []


async def test_an_issuer_that_fails_says_why_and_nothing_is_written(world: World) -> None:
    (action,) = (await world.certs.plan(world.service())).actions
    world.now = world.ca.certificate.not_valid_after_utc
    with pytest.raises(Transient, match="the CA expired on") as caught:
        await world.certs.execute(world.service(), action)
    assert caught.value.reason is Reason.CERTIFICATE_FAILED
    assert caught.value.status is Status.FALSE
    assert world.files() == []


class Impostor:
    """An issuer whose certificates are for another key, or for another name."""

    name = "impostor"
    at_hand = True

    def __init__(self, ca: EmbeddedCa, *, hostname: str = HOSTNAME, own_key: bool = False) -> None:
        self._ca = ca
        self._hostname = hostname
        self._own_key = own_key
        self.issued = ca.issued
        self.verify = ca.verify
        self.window = ca.window
        self.settle = ca.settle

    async def issue(self, hostname: str, lifetime: timedelta) -> Issued:
        issued = await self._ca.issue(self._hostname, lifetime)
        return replace(issued, key=ec.generate_private_key(ec.SECP256R1())) if self._own_key else issued


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [({"own_key": True}, "is for another key"), ({"hostname": "other.test"}, "it is for other names")],
)
async def test_what_an_issuer_gives_is_checked_before_it_is_laid_down(
    world: World, wrong: dict[str, Any], complaint: str
) -> None:
    settings = CertSettings(world.cert_dir)
    certs = Certs(world.registry, Impostor(world.ca, **wrong), settings, Defaults(), lambda: world.now)
    (action,) = (await certs.plan(world.service())).actions
    with pytest.raises(Transient, match=complaint):
        await certs.execute(world.service(), action)
    assert world.files() == []


async def test_a_definition_that_this_node_cannot_resolve_is_the_operator_s_to_mend(world: World) -> None:
    (component,) = world.service().spec.components
    untagged = component.model_copy(update={"image": "i"})
    world.registry.update("shop", spec=world.service().spec.model_copy(update={"components": (untagged,)}))
    with pytest.raises(Terminal) as caught:
        await world.certs.plan(world.service())
    assert caught.value.reason is Reason.INVALID_SPEC


async def test_a_dry_run_of_a_deletion_sees_the_certificate_gone(world: World) -> None:
    await world.converge()
    world.registry.update("shop", deletion_requested_at=world.now, finalizers=(Finalizer.CERTS,))
    actions = (await world.certs.plan(world.service())).actions
    assert world.certs.assume(world.service(), actions).certificates == ()
    assert world.files() == ["shop.test.key", "shop.test.pem"]


class Died(BaseException):
    """The agent was killed."""


@pytest.mark.parametrize("deleting", [False, True])
@pytest.mark.parametrize("step", range(12))
async def test_dying_before_any_write_ends_in_the_same_place(
    world: World, step: int, deleting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every write, to disk or to the registry, is a step; the process ends right before one of them."""
    left = [step]

    def mortal(target: object, name: str, *, is_async: bool) -> None:
        original = getattr(target, name)

        def tick() -> None:
            left[0] -= 1
            if left[0] < 0:
                raise Died

        async def later(*args: object, **kwargs: object) -> object:
            tick()
            return await original(*args, **kwargs)

        def now(*args: object, **kwargs: object) -> object:
            tick()
            return original(*args, **kwargs)

        monkeypatch.setattr(target, name, later if is_async else now)

    if deleting:
        await world.converge()
        world.registry.update("shop", deletion_requested_at=world.now, finalizers=(Finalizer.CERTS,))
    for method in ("record_certificate", "forget_certificate"):
        mortal(world.registry, method, is_async=True)
    for name in ("rename", "unlink", "mkdir"):
        mortal(Path, name, is_async=False)
    mortal(os, "fsync", is_async=False)
    with suppress(Died):
        await world.converge()
    monkeypatch.undo()
    world.certs = world.agent()
    await world.converge()
    assert world.files() == ([] if deleting else ["shop.test.key", "shop.test.pem"])
    assert len(world.service().certificates) == (0 if deleting else 1)
    if not deleting:
        assert world.service().certificates[0].fingerprint


@asynccontextmanager
async def watched(world: World) -> AsyncIterator[asyncio.Queue[str]]:
    """The names that the background task wakes, from the moment when it watches."""
    woken: asyncio.Queue[str] = asyncio.Queue()
    await world.certs.plan(world.service())
    task = asyncio.create_task(world.certs.watch(woken.put_nowait))
    try:
        yield woken
    finally:
        task.cancel()
        await asyncio.wait([task])


async def next_of(woken: asyncio.Queue[str]) -> str:
    return await asyncio.wait_for(woken.get(), 5)


@pytest.mark.parametrize("name", ["shop.test.pem", "shop.test.key"])
async def test_a_deleted_file_wakes_its_service_at_once(world: World, name: str) -> None:
    await world.converge()
    async with watched(world) as woken:
        assert await next_of(woken) == "shop"
        world.path(name).unlink()
        assert await next_of(woken) == "shop"


async def test_who_only_thinks_of_a_service_without_certificates_takes_none_from_sight(world: World) -> None:
    await world.converge()
    async with watched(world) as woken:
        assert await next_of(woken) == "shop"
        thought = world.service().model_copy(update={"certificates": (), "deletion_requested_at": world.now})
        await world.certs.plan(thought, attend=False)
        await world.certs.plan(thought.model_copy(update={"name": "another"}), attend=False)
        world.path("shop.test.pem").unlink()
        assert await next_of(woken) == "shop"
        assert woken.empty()


async def test_our_own_writes_wake_nobody(world: World) -> None:
    world.cert_dir.mkdir()
    async with watched(world) as woken:
        assert await next_of(woken) == "shop"
        await world.converge()
        world.now += timedelta(days=61)
        assert len((await world.converge())[0]) == 1
        world.path("shop.test.pem").write_text("edited")
        assert await next_of(woken) == "shop"
        assert woken.empty()


async def test_a_folder_that_cannot_be_watched_does_not_end_the_watch(tmp_path: Path) -> None:
    world = World(tmp_path, MemoryRegistry(newborn(spec(HOSTNAME))))
    settings = CertSettings(tmp_path / ("x" * 300))
    certs = Certs(world.registry, world.ca, settings, Defaults(), lambda: world.now)
    task = asyncio.create_task(certs.watch(lambda service: None))
    done, _ = await asyncio.wait([task], timeout=0.05)
    assert not done
    task.cancel()
    await asyncio.wait([task])


async def test_files_of_nobody_wake_nobody(world: World) -> None:
    await world.converge()
    async with watched(world) as woken:
        assert await next_of(woken) == "shop"
        world.path("stranger.pem").write_text("x")
        world.path("shop.test.pem").write_text("x")
        assert await next_of(woken) == "shop"
        assert woken.empty()


def _leaf_only(path: Path) -> None:
    (leaf, _) = x509.load_pem_x509_certificates(path.read_bytes())
    path.write_bytes(leaf.public_bytes(Encoding.PEM))


def _replace_by_symlink(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")
