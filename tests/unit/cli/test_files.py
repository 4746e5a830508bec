"""Pushing files to a service and pulling them, as people do."""

import asyncio
import hashlib
import json
import os
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from api.conditions import ConditionType, Reason, Status
from api.control_plane import Applied
from api.errors import NotFound, Refused
from api.files import FileTarget, FoundFile, Removal, ServiceFile
from cli.pushing import _pieces
from tests.unit.cli.plane import Mcp, Plane, served
from tests.unit.cli.test_commands import applied


@dataclass
class PlaneFiles:
    """The files of a plane; what becomes of a push is `behaviour`."""

    plane: Plane
    behaviour: str = "lay"
    pushed: list[tuple[FileTarget, bytes]] = field(default_factory=list)
    removed: list[tuple[str, bool, bool, bool]] = field(default_factory=list)
    there: dict[str, bytes] = field(default_factory=dict)

    async def push(self, target: FileTarget, pieces: AsyncIterator[bytes], *, actor: str) -> ServiceFile:
        service = await self.plane.get(target.service)
        content = b"".join([piece async for piece in pieces])
        sha256 = hashlib.sha256(content).hexdigest()
        before = service.file(target.path)
        self.pushed.append((target, content))
        file = ServiceFile(
            revision=before.revision if before and before.sha256 == sha256 else len(self.pushed),
            sha256=sha256,
            size=len(content),
            actor=actor,
            at=datetime.now(UTC),
            generation=service.generation,
            **target.model_dump(exclude={"service"}),
        )
        laid = file.model_copy(update={"laid": self.behaviour == "lay"})
        self.plane.put(service.model_copy(update={"files": (laid,)}))
        if self.behaviour == "fail":
            self.plane.turn(
                target.service, ConditionType.FILES_IN_PLACE, Status.FALSE, Reason.FILES_FAILED, "the disk is full"
            )
        return file

    async def remove(
        self,
        service: str,
        path: str,
        *,
        actor: str,
        delete: bool = False,
        forget: bool = False,
        dry_run: bool = False,
    ) -> Removal:
        there = await self.plane.get(service)
        file = there.file(path)
        if file is None:
            raise NotFound(f"nothing of {service} is kept at {path}")
        self.removed.append((path, delete, forget, dry_run))
        back = file.model_copy(update={"removed": True, "laid": False, "revision": file.revision + 1, "actor": actor})
        if dry_run:
            return Removal(back, f"remove {path} (unpushed by {actor})")
        done = self.behaviour == "lay"
        self.plane.put(there.model_copy(update={"files": () if done else (back,)}))
        self.plane.note(service, "removed", f"{path} (unpushed by ann)")
        if self.behaviour == "fail":
            self.plane.turn(service, ConditionType.FILES_IN_PLACE, Status.FALSE, Reason.FILES_FAILED, "I/O error")
        return Removal(back)

    async def pull(self, service: str, path: str) -> tuple[FoundFile, AsyncIterator[bytes]]:
        if path not in self.there:
            raise NotFound(f"there is no {path} in the folder of {service}")

        async def pieces() -> AsyncIterator[bytes]:
            yield self.there[path][:2]
            yield self.there[path][2:]

        size = len(self.there[path]) + (self.behaviour == "cut")
        return FoundFile(size=size, mode=0o640, owner="0:0"), pieces()

    async def files(self, service: str, *, history: bool = False) -> tuple[ServiceFile, ...]:
        return (await self.plane.get(service)).files


@pytest.fixture
async def files(offline: Mcp) -> AsyncIterator[PlaneFiles]:
    files = PlaneFiles(offline.plane)
    async with served(offline.plane, offline.address, files):
        await applied(offline, "hello")
        yield files


async def test_a_file_is_pushed_and_waited_for(offline: Mcp, files: PlaneFiles) -> None:
    offline.write("app.toml", "x = 1\n")
    (offline.folder / "app.toml").chmod(0o640)
    ran = await offline("push", "app.toml", "hello")
    assert (ran.status, ran.stdout, ran.stderr) == (0, "hello: app.toml is laid down (revision 1)\n", "")
    ((target, content),) = files.pushed
    assert (target.path, target.mode, target.owner, target.managed, content) == (
        "app.toml",
        0o640,
        "",
        False,
        b"x = 1\n",
    )
    ran = await offline(
        *("push", "app.toml", "hello/web", "etc/", "--mode", "0600", "--owner", "1:2", "--managed", "--restart"),
        *("-o", "json"),
    )
    assert ran.status == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert (told["file"]["path"], told["file"]["laid"], told["end"]) == ("etc/app.toml", True, "done")
    target = files.pushed[1][0]
    assert (target.mode, target.owner, target.managed, target.restart, target.component) == (
        0o600,
        "1:2",
        True,
        True,
        "web",
    )


async def test_standard_input_is_pushed_as_what_may_be_a_secret(offline: Mcp, files: PlaneFiles) -> None:
    assert (await offline("push", "-", "hello", "key", stdin="secret")).status == 0
    assert (files.pushed[0][0].mode, files.pushed[0][1]) == (0o600, b"secret")
    ran = await offline("push", "-", "hello", stdin="secret")
    assert (ran.status, "standard input has no name" in ran.stderr) == (2, True)
    os.mkfifo(offline.folder / "pipe")
    writer = asyncio.create_task(asyncio.to_thread((offline.folder / "pipe").write_text, "secret"))
    assert (await offline("push", "pipe", "hello", "key2")).status == 0
    await writer
    assert (files.pushed[1][0].mode, files.pushed[1][1]) == (0o600, b"secret")
    ran = await offline("push", "pipe", "hello", "etc/")
    assert (ran.status, "a pipe has no name" in ran.stderr) == (2, True)


async def test_what_keeps_a_file_from_its_place_is_told(offline: Mcp, files: PlaneFiles) -> None:
    offline.write("f", "")
    files.behaviour = "fail"
    ran = await offline("push", "f", "hello")
    assert (ran.status, ran.stderr) == (1, "hello: f: FilesFailed: the disk is full\n")
    files.behaviour = "nothing"
    offline.plane.turn("hello", ConditionType.FILES_IN_PLACE)
    ran = await offline("push", "f", "hello", "--timeout", "300ms")
    assert (ran.status, "timed out: the agent has not laid it down yet" in ran.stderr) == (3, True)
    offline.write("f", "other")
    assert (await offline("push", "f", "hello", "--no-wait")).stdout == "hello: f is pushed (revision 3)\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("missing", "hello"), "missing is not there"),
        ((".", "hello", "x"), ". is no file"),
        (("f", "hello", "../x"), 'has ".." between its slashes'),
        (("f", "hello", "/etc/passwd"), "is absolute"),
        (("f", "hello/web"), "only with --restart"),
        (("f", "hello", "--mode", "9"), '"9" is not permissions in octal digits'),
        (("f", "hello", "--mode", "4755"), '"4755" is not permissions'),
        (("f", "hello", "--owner", "root"), 'owner "root" is not uid:gid in numbers'),
        (("f", "Hello"), "service"),
    ],
)
async def test_what_cannot_be_meant_is_one_sentence(
    offline: Mcp, files: PlaneFiles, arguments: tuple[str, ...], said: str
) -> None:
    offline.write("f", "")
    ran = await offline("push", *arguments)
    assert (ran.status, said in ran.stderr) == (2, True), ran.stderr
    assert files.pushed == []


async def test_a_push_of_what_is_there_says_so(offline: Mcp, files: PlaneFiles) -> None:
    offline.write("f", "same")
    await offline("push", "f", "hello")
    ran = await offline("push", "f", "hello")
    assert (ran.status, ran.stdout) == (0, "hello: f is unchanged, and lies there (revision 1)\n")
    assert (await offline("push", "f", "hello", "--no-wait")).stdout == "hello: f is unchanged (revision 1)\n"
    assert json.loads((await offline("push", "f", "hello", "-o", "json")).stdout)["unchanged"]
    offline.write("f", "other")
    assert not json.loads((await offline("push", "f", "hello", "-o", "json")).stdout)["unchanged"]


async def test_a_file_that_changes_while_it_is_read_is_not_pushed(tmp_path: Path) -> None:
    source = tmp_path / "f"
    source.write_bytes(bytes(100_000))
    with source.open("rb") as content:
        assert sum([len(piece) async for piece in _pieces(content, "f")]) == 100_000
    with source.open("rb") as content:
        pieces = _pieces(content, "f")
        await anext(pieces)
        source.write_bytes(bytes(90_000))
        await anext(pieces)
        with pytest.raises(Refused, match="f changed while it was read, and was not pushed"):
            await anext(pieces)


async def test_a_push_is_taken_back_and_what_became_of_the_file_is_told(offline: Mcp, files: PlaneFiles) -> None:
    offline.write("f", "")
    await offline("push", "f", "hello", "etc/f")
    ran = await offline("unpush", "hello", "etc/f", "--dry-run")
    assert (ran.status, ran.stdout.startswith("hello: would remove etc/f (unpushed by ")) == (0, True)
    ran = await offline("unpush", "hello", "etc/f", "--delete", "--forget")
    said = "hello: etc/f is unpushed: containers removed etc/f (unpushed by ann)\n"
    assert (ran.status, ran.stdout, ran.stderr) == (0, said, "")
    assert files.removed == [("etc/f", False, False, True), ("etc/f", True, True, False)]
    ran = await offline("unpush", "hello", "etc/f")
    assert (ran.status, ran.stderr) == (5, "mcp: nothing of hello is kept at etc/f\n")
    await offline("push", "f", "hello", "etc/f")
    files.behaviour = "fail"
    ran = await offline("unpush", "hello", "etc/f")
    assert (ran.status, ran.stderr) == (1, "hello: etc/f: FilesFailed: I/O error\n")
    files.behaviour = "nothing"
    offline.plane.turn("hello", ConditionType.FILES_IN_PLACE)
    ran = await offline("unpush", "hello", "etc/f", "--timeout", "300ms", "-o", "json")
    told = json.loads(ran.stdout)
    assert (ran.status, told["end"], told["file"]["removed"]) == (3, "timed-out", True)
    assert (await offline("unpush", "hello", "etc/f", "--no-wait")).stdout == "hello: etc/f is unpushed\n"


async def test_files_are_listed_with_what_keeps_them_from_their_places(offline: Mcp, files: PlaneFiles) -> None:
    assert (await offline("files", "hello")).stdout == "hello has no files\n"
    offline.write("f", "x" * 2048)
    await offline("push", "f", "hello", "a", "--mode", "0600", "--owner", "1:2", "--managed")
    header, row = (await offline("files", "hello")).stdout.splitlines()
    assert header.split() == ["PATH", "SIZE", "MODE", "OWNER", "MANAGED", "STATE", "REV", "GEN", "PUSHED", "BY"]
    assert row.split()[:10] == ["a", "2.0", "KiB", "0600", "1:2", "yes", "laid", "down", "1", "1"]
    files.behaviour = "fail"
    await offline("push", "f", "hello", "b")
    assert "not laid down: FilesFailed" in (await offline("files", "hello", "b")).stdout
    assert "files   b: 2.0 KiB, 0644, not laid down: FilesFailed; pushed " in (await offline("status", "hello")).stdout
    assert [file["path"] for file in json.loads((await offline("files", "hello", "-o", "json")).stdout)["files"]] == [
        "b"
    ]
    ran = await offline("files", "hello", "nothing")
    assert (ran.status, ran.stderr) == (
        5,
        "mcp: nothing of hello is kept at nothing: mcp files hello lists what is\n",
    )


async def test_a_shell_completes_the_paths_of_a_service(offline: Mcp, files: PlaneFiles) -> None:
    offline.write("f", "")
    await offline("push", "f", "hello", "etc/f")
    for command in ("pull", "unpush", "files"):
        words = {"COMP_WORDS": f"mcp {command} hello e", "COMP_CWORD": "3", "_MCP_COMPLETE": "bash_complete"}
        assert (await offline(**words)).stdout == "plain,etc/f\n"


async def test_what_a_rollback_does_not_bring_back_is_named(
    offline: Mcp, files: PlaneFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollback, lost = offline.plane.rollback, "etc/x: what was pushed until generation 1 is not kept any more"

    async def lossy(*arguments: Any, **more: Any) -> Applied:
        return replace(await rollback(*arguments, **more), notes=(lost,))

    monkeypatch.setattr(offline.plane, "rollback", lossy)
    for how in ((), ("--dry-run",)):
        assert lost in (await offline("service", "rollback", "hello", "1", *how)).lines
    told = json.loads((await offline("service", "rollback", "hello", "1", "-o", "json")).stdout)
    assert told["services"][0]["notes"] == [lost]


async def test_nobody_is_pushed_to_a_service_that_is_not_there(offline: Mcp, files: PlaneFiles) -> None:
    offline.write("f", "")
    ran = await offline("push", "f", "nobody")
    assert (ran.status, ran.stderr) == (5, f"mcp: {NotFound.service('nobody', 'rift').message}\n")


async def test_a_file_is_pulled_whole_or_not_at_all(offline: Mcp, files: PlaneFiles) -> None:
    files.there = {"etc/app.toml": b"x = 1\n"}
    ran = await offline("pull", "hello", "etc/app.toml")
    assert (ran.status, ran.stdout) == (0, "app.toml: 6 bytes of hello, etc/app.toml\n")
    here = offline.folder / "app.toml"
    assert (here.read_text(), stat.S_IMODE(here.stat().st_mode)) == ("x = 1\n", 0o640)
    assert (await offline("pull", "hello", "etc/app.toml", "-")).stdout == "x = 1\n"
    here.write_text("mine")
    files.behaviour = "cut"
    ran = await offline("pull", "hello", "etc/app.toml")
    assert (ran.status, "only 6 of 7 bytes came" in ran.stderr, here.read_text()) == (5, True, "mine")
    ran = await offline("pull", "hello", "etc/app.toml", "-")
    assert (ran.status, "only 6 of 7 bytes came" in ran.stderr) == (5, True)
    files.behaviour = "lay"
    (offline.folder / "link").symlink_to("app.toml")
    assert (await offline("pull", "hello", "etc/app.toml", "link")).status == 0
    assert ((offline.folder / "link").is_symlink(), here.read_text()) == (True, "x = 1\n")
    os.mkfifo(offline.folder / "pipe")
    reader = asyncio.create_task(asyncio.to_thread((offline.folder / "pipe").read_text))
    assert (await offline("pull", "hello", "etc/app.toml", "pipe")).status == 0
    assert (await reader, (offline.folder / "pipe").is_fifo()) == ("x = 1\n", True)
    ran = await offline("pull", "hello", "etc/app.toml", "/dev/full")
    assert (ran.status, ran.stderr) == (5, "mcp: /dev/full cannot be written: No space left on device\n")
    ran = await offline("pull", "hello", "etc/app.toml", "sub/")
    assert (ran.status, "sub/ is no folder" in ran.stderr) == (2, True)
    ran = await offline("pull", "hello", "etc/app.toml", "sub/x")
    assert (ran.status, "sub/x cannot be written: No such file or directory" in ran.stderr) == (2, True)
    ran = await offline("pull", "hello", "nothing", "-o", "json")
    assert (ran.status, ran.stdout) == (5, "")
    assert {path.name for path in offline.folder.iterdir()} >= {"app.toml"}
    assert not [path.name for path in offline.folder.iterdir() if path.name.startswith(".app")]
