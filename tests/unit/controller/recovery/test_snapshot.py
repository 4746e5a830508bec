"""A snapshot is whole, of one moment, nobody else's to read, and verified as suspiciously as it was carefully made."""

import asyncio
import io
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from api.errors import McpError, Refused, RegistryUnavailable
from controller.recovery import archive, sqlite
from controller.recovery.archive import Manifest
from controller.recovery.snapshot import take
from controller.registry import Registry
from controller.settings import Settings
from tests.unit.controller.recovery.conftest import filled, made
from tests.unit.controller.registry.samples import spec


async def test_a_snapshot_says_what_is_in_it(settings: Settings) -> None:
    await filled(settings, "hello", "world")
    taken = take(settings)
    assert taken.file.parent == Path(settings.state_dir) / "snapshots"
    assert (taken.manifest.node, taken.manifest.services) == ("rift", 2)
    kind = taken.manifest.database
    registry = "registry.db" if kind == "sqlite" else "registry.sql"
    modes = {part.path: part.mode for part in taken.manifest.parts}
    assert modes == {registry: 0o600, "state/ca/ca.pem": 0o644, "state/ca/private/ca.key": 0o600}
    assert [folder.path for folder in taken.manifest.folders] == ["state/ca", "state/ca/private"]


async def test_nobody_else_can_read_it_and_nothing_else_is_left(settings: Settings) -> None:
    await filled(settings, "hello")
    taken = take(settings)
    assert stat.S_IMODE(taken.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(taken.file.parent.stat().st_mode) == 0o700
    assert list(taken.file.parent.iterdir()) == [taken.file]


async def test_it_is_of_one_moment_however_much_is_written_meanwhile(lite_settings: Settings, tmp_path: Path) -> None:
    registry = await Registry.open(lite_settings.registry_url, "rift")
    done = 0

    async def write() -> None:
        nonlocal done
        while True:
            # Two at a time, in two transactions: one moment has as many of one kind as of the other, or one more.
            await registry.apply(spec(f"a{done}"), actor="ann")
            await registry.apply(spec(f"b{done}"), actor="ann")
            done += 1

    writing = asyncio.create_task(write())
    try:
        for number in range(5):
            before = done
            taken = await asyncio.to_thread(take, lite_settings)
            assert 2 * before <= taken.manifest.services <= 2 * done + 2
            manifest = archive.unpack(taken.file, tmp_path / f"out{number}")
            revision, services = sqlite.check(tmp_path / f"out{number}" / "registry.db")
            assert (revision, services) == (manifest.schema_revision, manifest.services)
    finally:
        writing.cancel()
        await registry.close()
    assert done > 0, "it was to be disturbed"


async def test_what_a_killed_agent_had_written_is_in_it(lite_settings: Settings, tmp_path: Path) -> None:
    registry = await Registry.open(lite_settings.registry_url, "rift")
    await registry.apply(spec(), actor="ann")
    folder = Path(lite_settings.state_dir)
    copy = made(tmp_path / "two")
    for suffix in ("", "-wal"):
        (Path(copy.state_dir) / f"registry.db{suffix}").write_bytes((folder / f"registry.db{suffix}").read_bytes())
    assert take(copy).manifest.services == 1
    await registry.close()


async def test_the_oldest_go_but_for_strangers_and_those_put_elsewhere(tmp_path: Path) -> None:
    settings = made(tmp_path / "one", keep=2)
    await filled(settings, "hello")
    first, second = take(settings), take(settings)
    stranger = first.file.parent / "mcp-sea-20200101T000000.000000Z.tar.gz"
    stranger.write_text("of another node")
    elsewhere = take(settings, tmp_path / "disk")
    third = take(settings)
    assert third.removed == (first.file,)
    assert sorted(first.file.parent.iterdir()) == sorted([second.file, third.file, stranger])
    assert elsewhere.file.exists()
    assert not elsewhere.removed


def test_there_is_nothing_to_keep_of_an_agent_that_never_ran(lite_settings: Settings) -> None:
    with pytest.raises(Refused, match="never ran"):
        take(lite_settings)


async def test_a_corrupt_registry_is_never_kept_as_if_it_were_whole(lite_settings: Settings) -> None:
    await filled(lite_settings, *(f"s{number}" for number in range(50)))
    database = Path(lite_settings.state_dir) / "registry.db"
    content = bytearray(database.read_bytes())
    content[8192:] = bytes(len(content) - 8192)
    database.write_bytes(content)
    with pytest.raises((Refused, RegistryUnavailable)):
        take(lite_settings)
    assert list((Path(lite_settings.state_dir) / "snapshots").iterdir()) == []


# What is not to be trusted


def rewritten(file: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """The same archive with its members changed."""
    with tarfile.open(file) as old:
        members = {member.name: old.extractfile(member).read() for member in old if member.isreg()}  # type: ignore[union-attr]
    change(members)
    target = file.with_name("changed.tar.gz")
    with tarfile.open(target, "w:gz") as new:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            new.addfile(entry, io.BytesIO(content))
    return target


def renamed(members: dict[str, bytes], old: str, new: str) -> None:
    manifest = Manifest.model_validate_json(members["manifest.json"])
    parts = tuple(p.model_copy(update={"path": new}) if p.path == old else p for p in manifest.parts)
    members["manifest.json"] = manifest.model_copy(update={"parts": parts}).model_dump_json().encode()
    members[new] = members.pop(old)


def names_below(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


KEY = "state/ca/private/ca.key"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda members: members.update({KEY: b"yek"}), "another state/ca/private/ca.key"),
        (lambda members: members.update({KEY: b"key and more"}), "another state/ca/private/ca.key"),
        (lambda members: members.pop(KEY), "lacks state/ca/private/ca.key"),
        (lambda members: members.update({"state/evil": b""}), 'holds "state/evil"'),
        (lambda members: renamed(members, KEY, "state/../../evil"), "no place for a part"),
        (lambda members: renamed(members, KEY, "/evil"), "no place for a part"),
        (lambda members: members.pop("manifest.json"), "no snapshot of mcp-agent"),
        (lambda members: members.update({"manifest.json": b"{}"}), "does not know"),
    ],
    ids=["other", "longer", "missing", "more", "upwards", "absolute", "no-manifest", "no-known-manifest"],
)
async def test_what_is_not_as_its_manifest_says_is_refused(
    lite_settings: Settings, tmp_path: Path, change: Callable[[dict[str, bytes]], object], words: str
) -> None:
    await filled(lite_settings, "hello")
    file = rewritten(take(lite_settings).file, change)
    with pytest.raises(Refused, match=words):
        archive.unpack(file, tmp_path / "deep" / "out")
    assert names_below(tmp_path).isdisjoint({"evil"})


async def test_half_a_snapshot_is_none(lite_settings: Settings, tmp_path: Path) -> None:
    await filled(lite_settings, "hello")
    file = take(lite_settings).file
    content = file.read_bytes()
    for length in range(0, len(content) - 1, 97):
        file.write_bytes(content[:length])
        with pytest.raises(McpError):
            archive.unpack(file, tmp_path / f"out{length}")
