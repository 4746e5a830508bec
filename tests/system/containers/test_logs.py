"""What containers write is told in order, over restarts and replacements, and nobody who is slow holds up anything."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from api.errors import NotFound
from api.inspection import ALL_LINES, LogLine, LogQuery, LogStream
from api.service import NodeStatus
from api.spec import ServiceSpec
from controller.inspection import LocalInspection
from controller.settings import Settings
from reconcilers.containers.engine.podman import Engine
from reconcilers.containers.engine.transport import EngineSettings
from reconcilers.containers.watching.picture import Picture, PictureSettings
from stack import images
from stack.podman import PodmanHost
from tests.system.containers.node import Node, kill, running_node, web

pytestmark = pytest.mark.system

TALK = "i=0; while :; do i=$((i+1)); echo $NAME $i; sleep 0.05; done"


async def nobody_asks() -> NodeStatus:
    """How the agent's parts are, of which there are none here."""
    return NodeStatus(node="", version="", started_at=datetime.now(UTC), services=0, ready=0)


@asynccontextmanager
async def looking(node: Node) -> AsyncIterator[LocalInspection]:
    """What can be seen on the node."""
    engine = Engine(EngineSettings(str(node.host.socket)))
    picture = Picture(engine, node.name, PictureSettings(relist=5.0, reconnect=0.5))
    task = asyncio.create_task(picture.run())
    try:
        settings = Settings.model_validate({"node": node.name, "podman": {"socket": str(node.host.socket)}})
        yield LocalInspection.of(settings, node.registry, engine, picture, nobody_asks, None, None)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        engine.close()


@pytest.fixture
async def inspection(node: Node) -> AsyncIterator[LocalInspection]:
    async with looking(node) as found:
        yield found


def shell(name: str, **scripts: str) -> ServiceSpec:
    """A service whose components run shell scripts."""
    parts = [
        {"name": component, "image": images.HELLO, "cmd": ["/bin/sh", "-c", script], "env": [f"NAME={component}"]}
        for component, script in scripts.items()
    ]
    return ServiceSpec.model_validate({"name": name, "components": [{**part, "volumes": []} for part in parts]})


async def told(inspection: LocalInspection, query: LogQuery) -> list[LogLine]:
    """All that is written by now."""
    return [line async for batch in inspection.logs(query) for line in batch]


async def until(logs: AsyncGenerator[tuple[LogLine, ...], None], holds: Callable[[list[LogLine]], bool]) -> None:
    """Reads on until `holds` of all that was read."""
    seen: list[LogLine] = []
    async with asyncio.timeout(20):
        while not holds(seen):
            seen += await anext(logs)


def numbers(lines: list[LogLine], component: str = "web") -> list[int]:
    return [int(line.text.split()[1]) for line in lines if line.component == component]


async def test_the_newest_lines_of_all_components_come_as_one(node: Node, inspection: LocalInspection) -> None:
    await node.apply(shell("alpha", web=TALK, db=f"echo ready >&2; sleep 0.5; {TALK}"))
    await node.until_ready("alpha")
    query = LogQuery(service="alpha", lines=5, follow=True)
    async with aclosing(inspection.logs(query)) as logs:
        await until(logs, lambda seen: min(len(numbers(seen, "web")), len(seen) - len(numbers(seen, "web"))) > 30)

    lines = await told(inspection, LogQuery(service="alpha", lines=20))
    assert {line.container for line in lines} == {"alpha-web", "alpha-db"}
    assert len(lines) == 40
    times = [line.at for line in lines if line.at]
    assert times == sorted(times)
    only = await told(inspection, LogQuery(service="alpha", component="db", lines=ALL_LINES))
    assert (only[0].text, only[0].stream) == (b"ready", LogStream.STDERR)
    assert numbers(only[1:], "db") == list(range(1, len(only)))
    soon = datetime.now(UTC) + timedelta(hours=1)
    assert await told(inspection, LogQuery(service="alpha", since=soon)) == []


async def test_to_follow_goes_on_over_restarts_and_replacements_and_ends_with_the_service(
    node: Node, inspection: LocalInspection
) -> None:
    await node.apply(shell("alpha", web=TALK))
    await node.until_ready("alpha")
    seen: list[LogLine] = []
    more = asyncio.Event()

    async def follow() -> None:
        async for batch in inspection.logs(LogQuery(service="alpha", lines=3, follow=True)):
            seen.extend(batch)
            more.set()

    async def restarted(times: int) -> None:
        async with asyncio.timeout(20):
            while not seen or numbers(seen).count(1) < times or numbers(seen)[-1] < 10:
                more.clear()
                await more.wait()

    task = asyncio.create_task(follow())
    await restarted(0)
    first = numbers(seen)[0]
    kill(node, "alpha-web")
    await restarted(1 + (first == 1))
    await node.apply(shell("alpha", web=f": ; {TALK}"))
    await restarted(2 + (first == 1))
    await node.delete("alpha")
    await node.until_containers_gone("alpha")
    for finalizer in (await node.service("alpha")).finalizers:
        await node.registry.remove_finalizer("alpha", finalizer)
    async with asyncio.timeout(10):
        await task
    told = numbers(seen)
    lives = [index for index, number in enumerate(told) if number == 1 and index] + [len(told)]
    begin = 0
    for end in lives:
        # Every line of each life once: nothing is missing, nothing comes twice.
        assert told[begin:end] == list(range(told[begin], told[begin] + end - begin))
        begin = end
    assert len(lives) == 3


async def test_lines_of_any_length_and_any_bytes_come_whole(node: Node, inspection: LocalInspection) -> None:
    script = "x=0123456789; x=$x$x$x$x$x$x$x$x$x$x; x=$x$x$x$x$x$x$x$x$x$x; x=$x$x$x$x$x$x$x$x$x$x$x$x$x$x$x$x$x$x$x$x"
    script += r"; echo $x; echo; printf 'a\377\033[31mb\n'; printf end; sleep 1000"
    await node.apply(shell("alpha", web=script))
    await node.until_ready("alpha")
    async with aclosing(inspection.logs(LogQuery(service="alpha", follow=True, lines=ALL_LINES))) as logs:
        await until(logs, lambda seen: b"a\xff\x1b[31mb" in [line.text for line in seen])
    lines = [line.text for line in await told(inspection, LogQuery(service="alpha", lines=ALL_LINES))]
    assert lines == [b"0123456789" * 2000, b"", b"a\xff\x1b[31mb", b"end"]


async def test_a_caller_who_does_not_read_holds_up_nobody(node: Node, inspection: LocalInspection) -> None:
    await node.apply(shell("alpha", web="while :; do echo 0123456789012345678901234567890123456789; done"))
    await node.until_ready("alpha")
    async with aclosing(inspection.logs(LogQuery(service="alpha", follow=True))) as logs:
        await anext(logs)
        await node.apply(web("beta"))
        await node.until_ready("beta")
        assert await told(inspection, LogQuery(service="beta")) == []
        batch = await anext(logs)
        # What waited for the caller is no more than a few pieces.
        assert sum(len(line.text) for line in batch) < 4 << 20
    await node.apply(shell("alpha", web="sleep 1000"))
    await node.until_ready("alpha")


async def test_what_is_not_there_is_said_in_a_sentence(node: Node, inspection: LocalInspection) -> None:
    with pytest.raises(NotFound, match=rf'there is no service "nobody" on node {node.name}'):
        await told(inspection, LogQuery(service="nobody"))
    await node.apply(shell("alpha", web="sleep 1000", db="sleep 1000"))
    with pytest.raises(NotFound, match='service "alpha" has no component "wbe", only web, db'):
        await told(inspection, LogQuery(service="alpha", component="wbe"))


async def test_what_containers_use_is_measured_between_two_looks(node: Node, inspection: LocalInspection) -> None:
    await node.apply(shell("alpha", web="while :; do :; done", db="sleep 1000"))
    await node.until_ready("alpha")
    # Both have to be in sight before the first look: it is of whoever looks, not of the container.
    async with asyncio.timeout(20), aclosing(inspection.usage(0.1)) as usages:
        while len((await anext(usages)).containers) < 2:
            pass
    async with asyncio.timeout(20), aclosing(inspection.usage(0.5)) as usages:
        first = await anext(usages)
        assert [one.cpu for one in first.containers] == [None, None]
        found = {one.component: one for one in (await anext(usages)).containers if one.service == "alpha"}
    assert 0.2 < (found["web"].cpu or 0) < 1.2
    assert (found["db"].cpu or 0) < 0.1
    assert found["web"].pids == 1
    assert 10_000 < (found["web"].memory or 0) < 50_000_000
    assert found["web"].owned


async def test_without_control_groups_of_its_own_usage_is_unknown_and_not_nothing(
    rootless_podman: PodmanHost, folder: Path
) -> None:
    async with running_node(rootless_podman, folder) as node, looking(node) as inspection:
        await node.apply(shell("alpha", web=TALK))
        await node.until_ready("alpha")
        async with aclosing(inspection.usage(0.5)) as usages:
            await anext(usages)
            usage = await anext(usages)
        (one,) = (one for one in usage.containers if one.service == "alpha")
        assert (one.cpu, one.memory, one.pids) == (None, None, None) or not usage.problem
        assert 0 not in (one.cpu, one.memory, one.pids)
        assert len(await told(inspection, LogQuery(service="alpha"))) > 0
        await node.delete_all()
