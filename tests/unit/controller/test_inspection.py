"""What is looked at passes on nothing that was secret, and nothing that becomes so meanwhile."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

from api.inspection import LogLine, LogQuery, LogStream
from api.resolve import Defaults
from api.spec import ServiceSpec
from controller.inspection import LocalInspection
from controller.registry import Registry
from tests.unit.controller.registry.samples import spec


def marked(value: str) -> ServiceSpec:
    (web,) = spec().components
    update = {"env": (f"DSN={value}",), "secret_env": ("DSN",)}
    return spec().model_copy(update={"components": (web.model_copy(update=update),)})


class Container:
    """Writes what it is told to."""

    def __init__(self) -> None:
        self.writes: asyncio.Queue[str] = asyncio.Queue()

    async def read(self, query: LogQuery, over: asyncio.Event) -> AsyncGenerator[tuple[LogLine, ...], None]:
        while True:
            text = (await self.writes.get()).encode()
            yield (LogLine(component="web", container="hello-web", stream=LogStream.STDOUT, at=None, text=text),)


async def test_whoever_follows_the_logs_is_not_shown_the_secret_that_is_applied_meanwhile(lite: Registry) -> None:
    await lite.apply(marked("first-secret"), actor="ann")
    container = Container()
    parts = cast("Any", None)
    inspection = LocalInspection("rift", lite, Defaults(), cast("Any", container), parts, parts)
    lines = inspection.logs(LogQuery(service="hello", follow=True))
    container.writes.put_nowait("it is first-secret")
    assert [line.text for line in await anext(lines)] == [b"it is ********"]
    async with lite.subscribe() as changes:
        await lite.apply(marked("second-secret"), actor="ann")
        await anext(aiter(changes))
    # The follower hears of it by the same subscription, and reads the service then.
    await lite.service("hello")
    async with asyncio.timeout(5):
        while True:
            container.writes.put_nowait("now it is second-secret")
            if [line.text for line in await anext(lines)] == [b"now it is ********"]:
                break
    await lines.aclose()
