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


@pytest.mark.parametrize("acknowledged", [1, 40, 200])
async def test_a_killed_agent_keeps_what_it_acknowledged(tmp_path: Path, acknowledged: int):
    url = sqlite_url(tmp_path)
    writer = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        WRITER,
        url,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[4],
        env={**os.environ, "PYTHONPATH": "."},
    )
    lines = [await writer.stdout.readline() for _ in range(acknowledged)]
    writer.send_signal(signal.SIGKILL)
    lines += (await writer.stdout.read()).splitlines()
    assert await writer.wait() == -signal.SIGKILL

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
