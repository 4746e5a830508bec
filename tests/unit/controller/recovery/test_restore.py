"""A restore changes nothing before all is verified, loses nothing, and lets nothing run differently by itself."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

from api.errors import Refused, RegistryUnavailable
from controller.recovery import restore as restoring
from controller.recovery.restore import Wish, restore
from controller.recovery.snapshot import take
from controller.registry import Registry, copies, migrations
from controller.settings import Settings
from tests.unit.controller.recovery.conftest import filled, made
from tests.unit.controller.registry.samples import NOON, claim, spec

PLAIN = Wish()
FORCED = Wish(force=True)


async def opened(settings: Settings) -> Registry:
    return await Registry.open(settings.registry_url, settings.node)


def wiped(settings: Settings) -> None:
    """The disk died."""
    if (database := copies.database_file(settings.registry_url)) is not None:
        shutil.rmtree(settings.state_dir)
        assert not database.exists()
        return
    engine = create_engine(settings.registry_url)
    with engine.begin() as connection:
        connection.execute(text(f"DROP TABLE {', '.join(copies.table_names())} CASCADE"))
    engine.dispose()
    shutil.rmtree(settings.state_dir)


async def test_a_wiped_host_has_it_all_again_and_every_service_waits(settings: Settings, tmp_path: Path) -> None:
    await filled(settings, "hello", "world")
    registry = await opened(settings)
    await registry.claim_route("hello", claim())
    await registry.suspend("world", actor="bob", reason="the disk")
    before = await registry.services()
    await registry.close()
    taken = take(settings, tmp_path / "disk")
    wiped(settings)
    restored = restore(settings, taken.file, PLAIN)
    assert (restored.services, restored.there, restored.aside) == (2, (), None)
    ca = Path(settings.state_dir) / "ca"
    assert ((ca / "private" / "ca.key").read_text(), (ca / "ca.pem").read_text()) == ("key", "certificate")
    assert (ca / "private" / "ca.key").stat().st_mode & 0o777 == 0o600
    assert (ca / "private").stat().st_mode & 0o777 == 0o700
    registry = await opened(settings)
    after = await registry.services()
    assert [one.model_copy(update={"suspended": None}) for one in after] == [
        one.model_copy(update={"suspended": None}) for one in before
    ]
    hello, world = (one.suspended for one in after)
    assert hello is not None
    assert world is not None
    assert (hello.actor, world.reason) == ("mcp-agent restore", "the disk")
    assert hello.reason == f"restored from the snapshot of {taken.manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC"
    assert [event.kind for event in await registry.events("hello")] == ["created", "suspended"]
    # It serves on: what is numbered goes on where it was.
    await registry.apply(spec("new"), actor="ann")
    assert [one.name for one in await registry.services() if one.suspended is None] == ["new"]
    await registry.close()


async def test_what_was_there_is_replaced_only_if_asked_for_and_kept(settings: Settings, tmp_path: Path) -> None:
    await filled(settings, "hello")
    taken = take(settings, tmp_path / "disk")
    await filled(settings, "hello", "world", version="v2")
    (Path(settings.state_dir) / "ca" / "ca.pem").write_text("newer")
    with pytest.raises(Refused, match="already: with --force it is kept aside"):
        restore(settings, taken.file, PLAIN)
    registry = await opened(settings)
    assert len(await registry.services()) == 2
    await registry.close()
    restored = restore(settings, taken.file, FORCED)
    assert restored.aside is not None
    assert (restored.aside / "ca" / "ca.pem").read_text() == "newer"
    registry = await opened(settings)
    (service,) = await registry.services()
    assert (service.spec, service.generation) == (spec("hello", "v1"), 1)
    await registry.close()
    # What was kept leads back again.
    if copies.database_file(settings.registry_url) is not None:
        with closing(sqlite3.connect(restored.aside / "registry.db")) as old:
            assert old.execute("SELECT count(*) FROM services").fetchone() == (2,)
    else:
        assert "world" in (restored.aside / "registry.sql").read_text()


def left_by(settings: Settings) -> dict[Path, bytes]:
    """The registry as an agent would leave it that is killed now."""
    return {path: path.read_bytes() for path in Path(settings.state_dir).glob("registry.db*") if path.suffix != ".lock"}


async def test_a_log_of_the_old_registry_is_not_played_into_the_restored_one(
    lite_settings: Settings, tmp_path: Path
) -> None:
    await filled(lite_settings, "hello")
    taken = take(lite_settings, tmp_path / "disk")
    registry = await opened(lite_settings)
    await registry.apply(spec("world"), actor="ann")
    killed = left_by(lite_settings)
    await registry.close()
    for path, content in killed.items():
        path.write_bytes(content)
    restore(lite_settings, taken.file, FORCED)
    assert len(left_by(lite_settings)) == 1
    registry = await opened(lite_settings)
    assert [service.name for service in await registry.services()] == ["hello"]
    await registry.close()


async def test_nothing_is_restored_under_a_running_agent(settings: Settings, tmp_path: Path) -> None:
    await filled(settings, "hello")
    taken = take(settings, tmp_path / "disk")
    registry = await opened(settings)
    with pytest.raises((RegistryUnavailable, Refused), match="agent"):
        restore(settings, taken.file, FORCED)
    assert [service.suspended for service in await registry.services()] == [None]
    await registry.close()


async def test_a_dry_run_verifies_and_changes_nothing(settings: Settings, tmp_path: Path) -> None:
    await filled(settings, "hello")
    taken = take(settings, tmp_path / "disk")
    restored = restore(settings, taken.file, Wish(dry_run=True))
    assert (restored.services, len(restored.there)) == (1, 2)
    registry = await opened(settings)
    assert [service.suspended for service in await registry.services()] == [None]
    await registry.close()
    assert list((Path(settings.state_dir) / "recovery").iterdir()) == []


async def test_a_damaged_snapshot_changes_nothing(lite_settings: Settings, tmp_path: Path) -> None:
    await filled(lite_settings, "hello")
    file = take(lite_settings, tmp_path / "disk").file
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(Refused, match="damaged"):
        restore(lite_settings, file, FORCED)
    registry = await opened(lite_settings)
    assert [service.suspended for service in await registry.services()] == [None]
    await registry.close()


async def test_another_nodes_services_are_taken_over_only_if_asked_for(lite_settings: Settings, tmp_path: Path) -> None:
    await filled(lite_settings, "hello")
    registry = await opened(lite_settings)
    await registry.apply(spec("here").model_copy(update={"node": "rift"}), actor="ann")
    await registry.claim_route("hello", claim())
    await registry.allocate_port("hello", "web", "default", 10001)
    await registry.close()
    file = take(lite_settings, tmp_path / "disk").file
    sea = Settings.model_validate({"node": "sea", "state_dir": str(tmp_path / "two")})
    with pytest.raises(Refused, match="of node rift, and this is sea: --node rift gives its services to sea"):
        restore(sea, file, PLAIN)
    with pytest.raises(Refused, match="of node rift, as this is, and not of sea: leave out --node"):
        restore(lite_settings, file, Wish(node="sea", force=True))
    restore(sea, file, Wish(node="rift"))
    registry = await opened(sea)
    hello, here = sorted(await registry.services(), key=lambda one: one.name)[::-1]
    assert {one.name for one in (hello, here)} == {"hello", "here"}
    services = {one.name: one for one in (hello, here)}
    assert services["here"].spec.node == "sea"
    assert [one.port for one in services["hello"].ports] == [10001]
    assert [one.hostname for one in services["hello"].claims] == ["hello.example"]
    assert [revision.spec.node for revision in await registry.revisions("here")] == ["sea"]
    await registry.close()


def written_by_an_older_version(settings: Settings, revision: str) -> None:
    """A registry of one service, with the tables of that revision."""
    Path(settings.state_dir).mkdir()
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    engine = create_engine(settings.registry_url)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        row = {"spec": spec().model_dump_json(), "now": NOON}
        connection.execute(
            text(
                "INSERT INTO services (node, name, uid, generation, spec, created_at, updated_at, finalizers,"
                " conditions, components) VALUES ('rift', 'hello', '1', 1, :spec, :now, :now, '[]', '[]', '[]')"
            ),
            row,
        )
    engine.dispose()


async def test_a_newer_schema_is_refused_and_an_older_one_brought_along(settings: Settings, tmp_path: Path) -> None:
    await filled(settings, "hello")
    engine = create_engine(settings.registry_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    taken = take(settings, tmp_path / "disk")
    with pytest.raises(Refused, match="schema 9999 this version does not know"):
        restore(settings, taken.file, FORCED)
    wiped(settings)
    written_by_an_older_version(settings, "0002")
    older = take(settings, tmp_path / "disk")
    assert older.manifest.schema_revision == "0002"
    restore(settings, older.file, FORCED)
    registry = await opened(settings)
    (service,) = await registry.services()
    assert service.suspended is not None
    assert "files" in service.finalizers
    assert service.files == ()
    await registry.close()


async def test_a_snapshot_of_the_other_kind_of_database_is_refused(
    lite_settings: Settings, tmp_path: Path, postgres_url: str
) -> None:
    await filled(lite_settings, "hello")
    file = take(lite_settings, tmp_path / "disk").file
    with pytest.raises(Refused, match="of a registry in sqlite, and the settings name one in postgresql"):
        restore(made(tmp_path / "two", postgres_url), file, PLAIN)


async def test_a_registry_that_is_half_restored_is_opened_by_nobody(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = made(tmp_path / "one", postgres_url)
    await filled(settings, "hello")
    file = take(settings, tmp_path / "disk").file

    def dies(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(copies, "adopt", dies)
        with pytest.raises(KeyboardInterrupt):
            restore(settings, file, FORCED)
    with pytest.raises(RegistryUnavailable, match='schema "restoring"'):
        await opened(settings)
    restore(settings, file, FORCED)
    await (await opened(settings)).close()


async def test_a_restore_that_fails_half_way_leaves_everything_as_it_was(
    lite_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(lite_settings, "hello")
    file = take(lite_settings, tmp_path / "disk").file
    await filled(lite_settings, "world")
    (Path(lite_settings.state_dir) / "ca" / "ca.pem").write_text("newer")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "registry.db.restored")

    with monkeypatch.context() as patch:
        patch.setattr(restoring.shutil, "copyfile", full)
        with pytest.raises(Refused, match="No space left"):
            restore(lite_settings, file, FORCED)
    assert (Path(lite_settings.state_dir) / "ca" / "ca.pem").read_text() == "newer"
    registry = await opened(lite_settings)
    assert [(one.name, one.suspended) for one in await registry.services()] == [("hello", None), ("world", None)]
    await registry.close()


def owners_below(folder: Path) -> set[int]:
    return {path.stat().st_uid for path in folder.rglob("*")}


async def test_what_root_restores_belongs_to_whom_the_folder_does(lite_settings: Settings, tmp_path: Path) -> None:
    await filled(lite_settings, "hello")
    file = take(lite_settings, tmp_path / "disk").file
    folder = Path(lite_settings.state_dir)
    owner = 12345 if os.geteuid() == 0 else os.geteuid()
    os.chown(folder, owner, -1)
    await asyncio.to_thread(restore, lite_settings, file, FORCED)
    assert owners_below(folder) == {owner}


_KILLED = """\
import os, shutil, sys
from pathlib import Path
from controller.recovery.restore import Wish, restore
from controller.settings import Settings

left, move = int(sys.argv[3]), shutil.move

def counted(old, new):
    global left
    if left == 0:
        os._exit(9)
    left -= 1
    return move(old, new)

shutil.move = counted
restore(Settings(node="rift", state_dir=sys.argv[1]), Path(sys.argv[2]), Wish(force=True))
"""


async def test_one_that_is_killed_at_any_step_leaves_what_was_or_what_waits_and_can_be_begun_again(
    lite_settings: Settings, tmp_path: Path
) -> None:
    await filled(lite_settings, "hello")
    file = take(lite_settings, tmp_path / "disk").file
    await filled(lite_settings, "hello", version="v2")
    found = []
    for step in range(10):
        folder = tmp_path / f"step{step}"
        shutil.copytree(lite_settings.state_dir, folder)
        command = [sys.executable, "-c", _KILLED, str(folder), str(file), str(step)]
        done = await asyncio.to_thread(subprocess.run, command, check=False)
        settings = Settings.model_validate({"node": "rift", "state_dir": str(folder)})
        registry = await opened(settings)
        services = await registry.services()
        await registry.close()
        found.append([(one.spec.components[0].image, one.suspended is not None) for one in services])
        restore(settings, file, FORCED)
        registry = await opened(settings)
        assert [one.suspended is not None for one in await registry.services()] == [True]
        await registry.close()
        if done.returncode == 0:
            break
    before, waits = [("web:v2", False)], [("web:v1", True)]
    assert found == [before, before, before, [], waits]
