"""An agent that is killed while it writes loses nothing that it acknowledged."""

import asyncio
import os
import signal
import sqlite3
import sys
from pathlib import Path

import pytest

from controller.registry import Registry
from tests.unit.controller.registry.conftest import sqlite_url

WRITER = """
import asyncio, itertools, sys
from controller.registry import Registry
from tests.unit.controller.registry.samples import condition, happened, spec

async def main(url):
    registry = await Registry.open(url, "rift")
    for number in itertools.count():
        name = f"svc-{number}"
        service, _ = await registry.apply(spec(name), actor="ann")
        print(name, service.generation, flush=True)
        await registry.report(name, condition())
        await registry.report(name, happened("something"))
        await registry.allocate_port(name, "web", "default", 10000 + number)
        service, _ = await registry.apply(spec(name, "v2"), actor="ann")
        print(name, service.generation, flush=True)

asyncio.run(main(sys.argv[1]))
"""


WANDERER = """
import asyncio, itertools, sys
from api.files import FileTarget
from controller.registry import Registry
from tests.unit.controller.registry.samples import spec

async def main(url):
    registry = await Registry.open(url, "rift")
    target = FileTarget(service="hello", path="app.toml")
    for version in ("v1", "v2"):
        await registry.apply(spec(version=version), actor="ann")
        await registry.files.push(target, version.encode(), actor="ann", keep=10)
    for number in itertools.count(1):
        version = f"v{2 - number % 2}"
        await registry.roll_back(spec(version=version), number, actor="ann", note="")
        print(version, flush=True)

asyncio.run(main(sys.argv[1]))
"""


async def killed(script: str, url: str, acknowledged: int) -> list[bytes]:
    """All that a process said that was killed once it had said so many lines."""
    writer = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        script,
        url,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[4],
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert writer.stdout is not None
    lines = [await writer.stdout.readline() for _ in range(acknowledged)]
    writer.send_signal(signal.SIGKILL)
    lines += (await writer.stdout.read()).splitlines()
    assert await writer.wait() == -signal.SIGKILL
    return lines


@pytest.mark.parametrize("acknowledged", [1, 17, 60])
async def test_a_rollback_that_is_killed_brings_back_definition_and_files_or_neither(tmp_path: Path, acknowledged: int):
    url = sqlite_url(tmp_path)
    lines = await killed(WANDERER, url, acknowledged)
    registry = await Registry.open(url, "rift")
    service = await registry.service("hello")
    assert service is not None
    version = service.spec.components[0].image.partition(":")[2]
    assert await registry.files.content(service.files[0].sha256) == version.encode()
    # What was acknowledged is there, and at most one rollback more.
    assert service.generation in (len(lines) + 2, len(lines) + 3)
    assert service.files[0].generation == service.generation
    await registry.close()


@pytest.mark.parametrize("acknowledged", [1, 40, 200])
async def test_a_killed_agent_keeps_what_it_acknowledged(tmp_path: Path, acknowledged: int):
    url = sqlite_url(tmp_path)
    lines = await killed(WRITER, url, acknowledged)

    with sqlite3.connect(tmp_path / "state" / "registry.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()

    registry = await Registry.open(url, "rift")
    kept = {service.name: service for service in await registry.services()}
    for name, generation in (line.decode().split() for line in lines):
        assert kept[name].generation >= int(generation)
        assert [revision.generation for revision in await registry.revisions(name)][: int(generation)] == list(
            range(1, int(generation) + 1)
        )
    await registry.close()
