"""Files are laid down, kept and watched on a real disk; only the registry is in memory."""

import asyncio
import errno
import hashlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from asyncinotify import Inotify

from api.conditions import Reason, Status
from api.files import ServiceFile
from api.service import Finalizer, Service
from reconcilers.base import CONVERGED, NOT_NEEDED, Terminal, Transient
from reconcilers.files.model import Site
from reconcilers.files.plan import Forget
from reconcilers.files.reconciler import Files
from tests.unit.reconcilers.files.test_beneath import names
from tests.unit.reconcilers.files.test_plan import NOW, file, service


class Store:
    """Implements reconcilers.files.model.FileStore over dictionaries."""

    def __init__(self) -> None:
        self.contents: dict[str, bytes] = {}
        self.laid_down: list[tuple[str, int, bool]] = []
        self.forgotten: list[str] = []
        self.done_with: list[tuple[str, int]] = []

    def pushed(self, path: str, content: bytes, **fields: object) -> ServiceFile:
        sha256 = hashlib.sha256(content).hexdigest()
        self.contents[sha256] = content
        return file(path, **{"sha256": sha256, "size": len(content), **fields})

    async def content(self, sha256: str) -> bytes | None:
        return self.contents.get(sha256)

    async def laid(self, service: str, path: str, revision: int, *, changed: bool) -> None:
        self.laid_down.append((path, revision, changed))

    async def gone(self, service: str, path: str, revision: int) -> None:
        self.done_with.append((path, revision))

    async def forget(self, service: str, path: str) -> None:
        self.forgotten.append(path)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "srv"


@pytest.fixture
def files(store: Store, root: Path) -> Files:
    return Files(store, Site(str(root)), 1000)


async def work(files: Files, wanted: Service) -> list[str]:
    """Looks once and does what is to be done; what was done."""
    plan = await files.plan(wanted)
    for action in plan.actions:
        await files.execute(wanted, action)
    return [action.describe() for action in plan.actions]


async def test_a_pushed_file_is_laid_down_and_left_alone_from_then_on(files: Files, store: Store, root: Path) -> None:
    pushed = store.pushed("etc/app.toml", b"one")
    assert await work(files, service(pushed)) == ["lay down etc/app.toml (pushed by ann)"]
    assert (root / "hello/etc/app.toml").read_bytes() == b"one"
    assert store.laid_down == [("etc/app.toml", 1, True)]
    (root / "hello/etc/app.toml").write_bytes(b"mine")
    assert await work(files, service(pushed.model_copy(update={"laid": True}))) == []


async def test_the_same_content_once_more_is_no_change(files: Files, store: Store) -> None:
    pushed = store.pushed("a", b"one")
    await work(files, service(pushed))
    await work(files, service(pushed.model_copy(update={"revision": 2})))
    assert store.laid_down == [("a", 1, True), ("a", 2, False)]


async def test_what_lies_there_already_keeps_its_inode(files: Files, store: Store, root: Path) -> None:
    pushed = store.pushed("a", b"one")
    await work(files, service(pushed))
    before = (root / "hello/a").stat()
    assert await work(files, service(pushed)) == ["find a (it lies there as ann pushed it)"]
    after = (root / "hello/a").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert store.laid_down == [("a", 1, True), ("a", 1, False)]


async def test_what_was_taken_back_goes_unless_somebody_made_it_his(files: Files, store: Store, root: Path) -> None:
    kept, changed = store.pushed("kept", b"x", managed=True), store.pushed("changed", b"x", managed=True)
    await work(files, service(kept, changed))
    (root / "hello/changed").write_bytes(b"mine")
    back = service(*(one.model_copy(update={"removed": True, "revision": 2}) for one in (kept, changed)))
    await work(files, back)
    assert names(root / "hello") == ["changed"]
    assert sorted(store.done_with) == [("changed", 2), ("kept", 2)]
    assert store.forgotten == []


async def test_drift_of_what_is_managed_is_corrected_field_by_field(files: Files, store: Store, root: Path) -> None:
    pushed = store.pushed("a", b"one", managed=True)
    await work(files, service(pushed))
    kept = service(pushed.model_copy(update={"laid": True}))
    assert await work(files, kept) == []
    (root / "hello/a").write_bytes(b"two")
    (root / "hello/a").chmod(0o666)
    assert await work(files, kept) == ["lay down a (sha256, mode changed)"]
    (root / "hello/a").unlink()
    assert await work(files, kept) == ["lay down a (it was gone)"]
    (root / "hello/a").write_bytes(bytes(5000))
    (change, *_) = (await files.plan(kept)).actions[0].differences()
    assert (change.old, change.new) == ("5000 bytes", pushed.sha256)
    shutil.rmtree(root)
    await work(files, kept)
    assert (root / "hello/a").read_bytes() == b"one"


async def test_an_obstacle_is_a_condition_and_others_go_on(files: Files, store: Store, root: Path) -> None:
    (root / "hello").mkdir(parents=True)
    (root / "hello/a").symlink_to("/etc/passwd")
    wanted = service(store.pushed("a", b"x"), store.pushed("b", b"x"))
    assert await work(files, wanted) == ["lay down b (pushed by ann)"]
    outcome = (await files.plan(wanted)).outcome
    assert (outcome.reason, outcome.message) == (
        Reason.CONFLICT,
        f"{root}/hello/a is a symbolic link: it is left alone",
    )


async def test_what_the_disk_does_not_let_us_is_a_sentence_and_holds_up_no_other(
    files: Files, store: Store, root: Path
) -> None:
    # A name in the way of the temporary file stands for all that the kernel may refuse.
    (root / "hello" / f".mcp-{hashlib.sha256(b'a').hexdigest()[:16]}.new").mkdir(parents=True)
    wanted = service(store.pushed("a", b"x"), store.pushed("b", b"x"))
    with pytest.raises(Terminal, match=r"a of hello cannot be laid down: Is a directory") as failure:
        await work(files, wanted)
    assert failure.value.reason is Reason.FILES_FAILED
    with pytest.raises(Terminal):
        await work(files, wanted)
    assert (root / "hello/b").read_bytes() == b"x"


async def test_a_link_that_comes_between_look_and_work_is_refused(files: Files, store: Store, root: Path) -> None:
    wanted = service(store.pushed("a", b"x"))
    plan = await files.plan(wanted)
    (root / "hello").mkdir(parents=True)
    (root / "hello/a").symlink_to("/etc/passwd")
    with pytest.raises(Terminal, match="symbolic link") as failure:
        await files.execute(wanted, plan.actions[0])
    assert failure.value.reason is Reason.CONFLICT


async def test_a_content_that_another_push_replaced_is_looked_for_again(files: Files, store: Store) -> None:
    with pytest.raises(Transient, match="another push"):
        await work(files, service(file()))


async def test_a_file_goes_with_its_service_only_where_it_is_managed(files: Files, store: Store, root: Path) -> None:
    kept, once = store.pushed("kept", b"x", managed=True), store.pushed("once", b"x")
    await work(files, service(kept, once))
    laid = tuple(one.model_copy(update={"laid": True}) for one in (kept, once))
    going = service(*laid, deletion_requested_at=NOW, finalizers=(Finalizer.FILES,))
    await work(files, going)
    assert names(root / "hello") == ["once"]
    assert store.forgotten == ["kept", "once"]
    with pytest.raises(TypeError):
        await files.execute(going, None)  # type: ignore[arg-type]  # what nobody plans
    assert isinstance((await files.plan(going)).actions[1], Forget)


@asynccontextmanager
async def watched(files: Files) -> AsyncIterator[asyncio.Queue[str]]:
    woken: asyncio.Queue[str] = asyncio.Queue()
    task = asyncio.create_task(files.run(woken.put_nowait))
    await asyncio.sleep(0)
    try:
        yield woken
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until_quiet(woken: asyncio.Queue[str]) -> None:
    """Takes out what is told of what we did ourselves."""
    while True:
        try:
            async with asyncio.timeout(0.1):
                await woken.get()
        except TimeoutError:
            return


def overwrite(folder: Path) -> None:
    (folder / "a").write_bytes(b"other")


def change_mode(folder: Path) -> None:
    (folder / "a").chmod(0o600)


def replace(folder: Path) -> None:
    (folder / "b").write_bytes(b"other")
    (folder / "b").rename(folder / "a")


def remove_all(folder: Path) -> None:
    shutil.rmtree(folder.parent.parent)


def move_a_folder_between(folder: Path) -> None:
    folder.parent.rename(folder.parent.with_name(f"elsewhere{len(names(folder.parent.parent))}"))


@pytest.mark.parametrize("touch", [overwrite, change_mode, replace, remove_all, move_a_folder_between])
async def test_whoever_touches_what_is_managed_is_noticed_every_time(
    files: Files, store: Store, root: Path, touch: object
) -> None:
    pushed = store.pushed("x/y/a", b"one", managed=True)
    kept = service(pushed.model_copy(update={"laid": True}))
    async with watched(files) as woken:
        await work(files, service(pushed))
        for _ in range(3):
            await work(files, kept)
            await until_quiet(woken)
            touch(root / "hello/x/y")  # type: ignore[operator]
            async with asyncio.timeout(5):
                assert await woken.get() == "hello"
            await work(files, kept)
            assert (root / "hello/x/y/a").read_bytes() == b"one"


async def test_who_only_thinks_of_a_service_without_its_files_takes_them_from_nobody_s_sight(
    files: Files, store: Store, root: Path
) -> None:
    pushed = store.pushed("a", b"one", managed=True)
    async with watched(files) as woken:
        await work(files, service(pushed))
        kept = service(pushed.model_copy(update={"laid": True}))
        await work(files, kept)
        await until_quiet(woken)
        await files.plan(service(), attend=False)
        gone = kept.model_copy(update={"deletion_requested_at": NOW, "finalizers": (Finalizer.FILES,)})
        assert (await files.plan(gone, attend=False)).actions
        (root / "hello/a").write_bytes(b"other")
        async with asyncio.timeout(5):
            assert await woken.get() == "hello"


async def test_nobody_is_woken_for_what_was_only_thought_of(files: Files, store: Store, root: Path) -> None:
    (root / "hello").mkdir(parents=True)
    async with watched(files) as woken:
        await files.plan(service(store.pushed("a", b"one", managed=True)), attend=False)
        (root / "hello/a").write_bytes(b"other")
        await until_quiet(woken)
        assert woken.empty()


@pytest.mark.parametrize("limit", ["watches", "instances"])
async def test_a_limit_of_the_kernel_is_said_and_its_end_noticed(
    files: Files, store: Store, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC if limit == "watches" else errno.EMFILE, "no more")

    monkeypatch.setattr("reconcilers.files.watch._AGAIN", 0.05)
    kept = service(store.pushed("a", b"one", managed=True, laid=True))
    with monkeypatch.context() as full:
        full.setattr(Inotify, "add_watch" if limit == "watches" else "__init__", refuse)
        async with watched(files):
            await work(files, kept)
            outcome = (await files.plan(kept)).outcome
    assert (outcome.status, outcome.reason) == (Status.TRUE, Reason.CONVERGED)
    assert f"the kernel grants no more {limit} (fs.inotify.max_user_{limit})" in outcome.message
    assert outcome.requeue_after is not None
    async with watched(files):
        assert (await files.plan(kept)).outcome == CONVERGED
    assert (await files.plan(service())).outcome == NOT_NEEDED


async def test_others_in_the_same_folder_wake_nobody(files: Files, store: Store, root: Path) -> None:
    pushed = store.pushed("a", b"one", managed=True)
    async with watched(files) as woken:
        await work(files, service(pushed))
        await work(files, service(pushed.model_copy(update={"laid": True})))
        await until_quiet(woken)
        (root / "hello/database").write_text("x")
        (root / "hello/database").unlink()
        await files.plan(service())
        (root / "hello/a").write_text("x")
        await until_quiet(woken)
        assert woken.empty()
