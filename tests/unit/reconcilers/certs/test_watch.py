"""A watched folder may be missing, go, come back and move."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from reconcilers.certs.watch import changes


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[asyncio.Queue[Path | None]]:
    """What is told of the folder."""
    seen: asyncio.Queue[Path | None] = asyncio.Queue()

    async def follow() -> None:
        async for change in changes(folder):
            seen.put_nowait(change)

    task = asyncio.create_task(follow())
    await asyncio.sleep(0)
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.wait([task])


async def hears(seen: asyncio.Queue[Path | None], change: Path | None) -> None:
    """Returns once that is told, whatever else is told before."""
    async with asyncio.timeout(5):
        while await seen.get() != change:
            pass


async def test_what_is_written_replaced_or_removed_is_told_by_name(tmp_path: Path) -> None:
    async with watched(tmp_path) as seen:
        await hears(seen, None)
        (tmp_path / "a.pem").write_text("x")
        await hears(seen, tmp_path / "a.pem")
        (tmp_path / "a.pem").rename(tmp_path / "b.pem")
        await hears(seen, tmp_path / "b.pem")
        (tmp_path / "b.pem").unlink()
        await hears(seen, tmp_path / "b.pem")
        assert seen.empty()


async def test_a_folder_that_is_made_with_its_parents_is_watched_from_then_on(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "certs"
    async with watched(folder) as seen:
        assert seen.empty()
        folder.mkdir(parents=True)
        await hears(seen, None)
        (folder / "x.pem").write_text("x")
        await hears(seen, folder / "x.pem")


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def move(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def become_a_file(folder: Path) -> None:
    folder.rmdir()
    folder.write_text("")
    folder.unlink()


@pytest.mark.parametrize("go", [remove, move, become_a_file])
async def test_a_folder_that_goes_and_comes_is_watched_again(tmp_path: Path, go: Callable[[Path], None]) -> None:
    folder = tmp_path / "certs"
    folder.mkdir()
    async with watched(folder) as seen:
        for round_ in range(3):
            await hears(seen, None)
            (folder / f"{round_}.pem").write_text("x")
            await hears(seen, folder / f"{round_}.pem")
            (folder / f"{round_}.pem").unlink()
            await hears(seen, folder / f"{round_}.pem")
            if (folder.parent / "elsewhere").exists():
                shutil.rmtree(folder.parent / "elsewhere")
            go(folder)
            folder.mkdir()
