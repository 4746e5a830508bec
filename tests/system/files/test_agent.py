"""Files as the whole agent lays them down, beside real containers that read them."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from api.conditions import ConditionType, Reason
from api.files import PIECE_BYTES, FileTarget, ServiceFile
from api.service import Service
from stack import images, web
from tests.system.agent.rig import Rig, is_ready, restarted

pytestmark = pytest.mark.system

IN_PLACE = ConditionType.FILES_IN_PLACE


async def push(rig: Rig, content: bytes, path: str = "etc/app.toml", **fields: object) -> ServiceFile:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), PIECE_BYTES):
            yield content[start : start + PIECE_BYTES]

    target = FileTarget.model_validate({"service": rig.name, "path": path, **fields})
    async with rig.client() as client:
        return await client.files.push(target, pieces())


def lies(rig: Rig, path: str = "etc/app.toml") -> Path:
    return rig.host.layout.root / "srv" / rig.name / path


def mode(rig: Rig) -> int:
    return lies(rig).stat().st_mode & 0o777


def is_laid(pushed: ServiceFile):
    def holds(service: Service) -> bool:
        file = service.file(pushed.path)
        return file is not None and file.laid and file.revision >= pushed.revision and is_ready(service)

    return holds


async def test_a_file_is_laid_down_kept_rolled_and_brought_back(rig: Rig) -> None:
    await rig.apply(rig.spec())
    first = await rig.until_ready()
    service = await rig.until(is_laid(await push(rig, b"one", managed=True, mode=0o640)))
    assert lies(rig).read_bytes() == b"one"
    assert (service.generation, service.components[0].container_id) == (1, first.components[0].container_id)
    # Whoever edits it is corrected at once, and told of.
    lies(rig).write_bytes(b"mine")
    lies(rig).chmod(0o777)
    web.wait_for(lambda: lies(rig).read_bytes() == b"one" and mode(rig) == 0o640, seconds=5, what="a correction")
    # A restart is due only where the content is another one.
    await rig.until(is_laid(await push(rig, b"one", managed=True, mode=0o640, restart=True)))
    assert (await rig.get()).components[0].container_id == first.components[0].container_id
    await push(rig, b"two", managed=True, mode=0o640, restart=True)
    service = await rig.until(restarted(first))
    assert (lies(rig).read_bytes(), service.generation) == (b"two", 2)
    # The way back brings the file, too.
    async with rig.client() as client:
        await client.apply(service.spec.model_copy(update={"version": "v9"}))
        await push(rig, b"three")
        await client.rollback(rig.name, 2)
    web.wait_for(lambda: lies(rig).read_bytes() == b"two", seconds=10, what="the file of generation 2")
    await rig.until_ready()
    kinds = [event.kind for event in await rig.events()]
    assert kinds.count("laid down") >= 4
    assert any(event.drift for event in await rig.events() if event.kind == "laid down")
    await rig.delete()
    assert not lies(rig).exists()


async def test_a_rollback_is_whole_and_so_is_the_way_back_from_it(stopped: Rig) -> None:
    rig = stopped
    rig.start_agent(MCP_FILES_KEEP="1")
    await rig.apply(rig.spec(env=["GREETING=one"]))
    for path in ("app.toml", "gone", "lost"):
        pushed = await push(rig, b"one", path, managed=True)
    await rig.until(is_laid(pushed))
    await rig.apply(rig.spec(image=images.HELLO_NEXT, env=["GREETING=two"]))
    await rig.until_ready()
    await push(rig, b"two", "app.toml", managed=True)
    for content in (b"two", b"three"):
        await push(rig, content, "lost", managed=True)
    async with rig.client() as client:
        await client.files.remove(rig.name, "gone")
        await rig.until(holds(rig, "two", {"app.toml": b"two", "lost": b"three"}))
        answer = await client.rollback(rig.name, 1)
        assert answer.notes == ("lost: what was pushed until generation 1 is not kept any more",)
        await rig.until(holds(rig, "one", {"app.toml": b"one", "gone": b"one", "lost": b"three"}))
        rig.until_it_answers("mcp-hello v1.0.0")
        assert (await client.rollback(rig.name, 2)).notes == ()
        await rig.until(holds(rig, "two", {"app.toml": b"two", "lost": b"three"}))
        rig.until_it_answers("mcp-hello v1.0.1")
        before = await rig.get()
        # Files alone come back, and make no other container.
        await push(rig, b"four", "app.toml", managed=True)
        await client.restart(rig.name)
        restarted_once = await rig.until(restarted(before))
        await push(rig, b"five", "app.toml", managed=True)
        await client.rollback(rig.name, before.generation)
        service = await rig.until(holds(rig, "two", {"app.toml": b"four", "lost": b"three"}))
        assert service.generation == before.generation + 2
        assert service.components[0].container_id == restarted_once.components[0].container_id
    assert not any(event.drift for event in await rig.events() if event.actor == "files")
    await rig.delete()
    assert not lies(rig, "app.toml").exists()


def holds(rig: Rig, greeting: str, contents: dict[str, bytes]):
    """Whether all is as it was: the container's environment, and what lies in the folder."""

    def judge(service: Service) -> bool:
        if not is_ready(service) or not all(file.laid for file in service.files):
            return False
        found = {path.name: path.read_bytes() for path in lies(rig, "x").parent.iterdir()}
        return found == contents and f"GREETING={greeting}" in rig.inspect("{{.Config.Env}}")

    return judge


async def test_what_is_in_the_way_is_a_condition_that_ends_by_itself(rig: Rig, tmp_path: Path) -> None:
    await rig.apply(rig.spec())
    await rig.until_ready()
    secret = tmp_path / "secret"
    secret.write_text("key")
    lies(rig).parent.mkdir(parents=True)
    lies(rig).symlink_to(secret)
    await push(rig, b"one")
    condition = await rig.until_reason(IN_PLACE, Reason.CONFLICT)
    assert condition.message == f"{lies(rig)} is a symbolic link: it is left alone"
    lies(rig).unlink()
    # Woken: it would have looked again by itself after a minute.
    await rig.until_reason(IN_PLACE, Reason.CONVERGED, seconds=10)
    assert (lies(rig).read_bytes(), secret.read_text()) == (b"one", "key")
    await rig.delete()
    assert lies(rig).read_bytes() == b"one"


async def test_an_agent_that_is_killed_lays_down_what_it_took(rig: Rig) -> None:
    await rig.apply(rig.spec())
    await rig.until_ready()
    content = os.urandom(8 << 20)
    pushed = await push(rig, content, "big")
    rig.kill_agent()
    if lies(rig, "big").exists():
        assert lies(rig, "big").read_bytes() == content
    rig.start_agent()
    await rig.until(is_laid(pushed))
    assert lies(rig, "big").read_bytes() == content
    assert [path.name for path in lies(rig, "big").parent.iterdir()] == ["big"]
    await rig.delete()
