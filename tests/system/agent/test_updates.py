"""What is updated gives way to what is new: with no request lost, and with a way back."""

import asyncio
import ssl
from collections.abc import Callable

import pytest

from api.conditions import ConditionType, Reason
from api.service import Service
from api.spec import ServiceSpec
from stack import images, web
from tests.system.agent.rig import Rig, is_ready
from tests.system.mcproxy.clients import Connection, connect
from tests.system.mcproxy.load import Load, http2

pytestmark = pytest.mark.system

BLUE_GREEN = {"strategy": "blue-green", "drain": "20s"}
RUNNING = ConditionType.CONTAINERS_RUNNING


def trusting(rig: Rig, protocol: str) -> ssl.SSLContext:
    """A client's context that verifies what the agent's own CA signs."""
    context = ssl.create_default_context(cafile=str(rig.host.ca_file))
    context.set_alpn_protocols([protocol])
    return context


class Http1:
    """Asks who serves, over HTTP/1.1 on connections that are kept as long as the proxy keeps them."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._connection: Connection | None = None

    async def __call__(self) -> str:
        if self._connection is None:
            tls = trusting(self._rig, "http/1.1")
            self._connection = await connect(self._rig.host.ports.listener, self._rig.hostname, tls)
        self._connection.writer.write(f"GET /who.json HTTP/1.1\r\nHost: {self._rig.hostname}\r\n\r\n".encode())
        head = (await self._connection.reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert head.startswith("http/1.1 200"), head
        length = next(int(line[15:]) for line in head.splitlines() if line.startswith("content-length:"))
        body = await self._connection.reader.readexactly(length)
        if "connection: close" in head:
            self.close()
        return body.decode().split('"')[3]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


async def download(rig: Rig, tenths: int) -> list[str]:
    """A response that lasts so many tenths of a second."""
    connection = await connect(rig.host.ports.listener, rig.hostname, trusting(rig, "http/1.1"))
    request = f"GET /cgi-bin/slow?{tenths} HTTP/1.1\r\nHost: {rig.hostname}\r\nConnection: close\r\n\r\n"
    connection.writer.write(request.encode())
    answer = (await connection.reader.read()).decode()
    connection.close()
    return [line for line in answer.splitlines() if line.endswith(("v1.0.0", "v1.0.1"))]


def serves(service: Service, generation: int) -> bool:
    """Whether that generation is ready and nothing is left of the one before."""
    return is_ready(service) and service.components[0].generation == generation


async def updated(rig: Rig, spec: ServiceSpec) -> None:
    """Returns once the update is ready for whoever applied it."""
    await rig.apply(spec)
    await rig.until_ready()


async def until(holds: Callable[[], bool], seconds: float) -> None:
    """Returns once that is the case."""
    await asyncio.to_thread(web.wait_for, holds, seconds=seconds, what="an update's next step")


async def until_alone(rig: Rig, seconds: float = 30) -> None:
    """Returns once there is one container, under its own name."""
    await until(lambda: rig.containers(aside=True) == [rig.container], seconds)


async def test_blue_green_loses_no_request(rig: Rig) -> None:
    """Four HTTP/1.1 clients, sixteen HTTP/2 streams and a download that lasts longer than the switch."""
    await updated(rig, rig.spec(update=BLUE_GREEN))
    load = Load("v1.0.0")
    port, name = rig.host.ports.listener, rig.hostname
    clients = [Http1(rig) for _ in range(4)]
    async with http2(port, name, trusting(rig, "h2"), "/who.json") as streams, load.of(*clients, *[streams] * 16):
        long_lived = asyncio.create_task(download(rig, 40))
        await asyncio.sleep(0.5)
        load.allow("v1.0.1")
        await updated(rig, rig.spec(image=images.HELLO_NEXT, update=BLUE_GREEN))
        load.expect("v1.0.1")
        await until_alone(rig)
        assert len(await long_lived) == 40
    assert load.failures == []
    assert load.answered["v1.0.0"] > 0
    assert load.answered["v1.0.1"] > 0
    assert load.longest_gap < 1.0
    for client in clients:
        client.close()
    service = await rig.get()
    assert (service.components[0].slot, service.components[0].generation) == (1, 2)
    kinds = [event.kind for event in await rig.events()]
    assert kinds.count("replaced") == 1
    assert not [event for event in await rig.events() if event.drift]
    await updated(rig, rig.spec(update=BLUE_GREEN))
    await until_alone(rig)
    assert (await rig.get()).components[0].slot == 0
    rig.until_it_answers("mcp-hello v1.0.0")


async def test_a_blue_green_update_that_fails_leaves_the_old_one_serving_and_says_why(rig: Rig) -> None:
    await updated(rig, rig.spec(update=BLUE_GREEN))
    before = await rig.get()
    broken = rig.spec(cmd=["/bin/sh", "-c", "echo no such table; exit 7"], update=BLUE_GREEN)
    await rig.apply(broken)
    condition = await rig.until_reason(RUNNING, Reason.ROLLOUT_FAILED)
    assert "exited with 7; it last said: no such table" in condition.message
    assert rig.answers("mcp-hello v1.0.0")
    await until_alone(rig)
    assert rig.inspect("{{.Id}}") == before.components[0].container_id
    after = await rig.get()
    assert (after.components[0].failed_generation, after.components[0].ready) == (2, True)
    await updated(rig, rig.spec(image=images.HELLO_NEXT, update=BLUE_GREEN))
    rig.until_it_answers("mcp-hello v1.0.1")


async def test_a_wrong_check_in_a_new_definition_leaves_the_old_one_alone(rig: Rig) -> None:
    await updated(rig, rig.spec(update=BLUE_GREEN))
    before = await rig.get()
    wrong = {"http": "/nope", "interval": "500ms", "retries": 1}
    await rig.apply(rig.spec(image=images.HELLO_NEXT, health=wrong, update=BLUE_GREEN | {"deadline": "3s"}))
    condition = await rig.until_reason(RUNNING, Reason.ROLLOUT_FAILED)
    assert "GET /nope answered 404" in condition.message
    await until_alone(rig)
    after = await rig.get()
    assert (after.components[0].started_at, after.components[0].restarts) == (before.components[0].started_at, 0)
    assert after.components[0].ready
    assert rig.answers()


async def test_a_recreation_that_fails_brings_the_old_one_back(rig: Rig) -> None:
    await updated(rig, rig.spec())
    before = await rig.get()
    never = rig.spec(cmd=["/bin/sleep", "1000"], stop_timeout="1s", update={"deadline": "2s"})
    await rig.apply(never)
    condition = await rig.until_reason(RUNNING, Reason.ROLLOUT_FAILED)
    assert "is not ready 2 s after its start" in condition.message
    rig.until_it_answers("mcp-hello v1.0.0")
    await until_alone(rig)
    assert rig.inspect("{{.Id}}") == before.components[0].container_id
    await updated(rig, rig.spec(image=images.HELLO_NEXT))
    rig.until_it_answers("mcp-hello v1.0.1")
    await until_alone(rig)


async def test_what_the_engine_refuses_to_start_brings_the_old_one_back(rig: Rig) -> None:
    await updated(rig, rig.spec())
    await rig.apply(rig.spec(entrypoint=["/no/such/program"]))
    condition = await rig.until_reason(RUNNING, Reason.ROLLOUT_FAILED)
    assert "/no/such/program" in condition.message
    rig.until_it_answers("mcp-hello v1.0.0")
    await until_alone(rig)


async def test_applying_the_same_again_tries_what_failed_once_more(rig: Rig) -> None:
    await updated(rig, rig.spec(update=BLUE_GREEN))
    broken = rig.spec(cmd=["/bin/sh", "-c", "exit 7"], update=BLUE_GREEN)
    await rig.apply(broken)
    await rig.until_reason(RUNNING, Reason.ROLLOUT_FAILED)
    await until_alone(rig)
    await rig.apply(broken)
    await rig.until_reason(RUNNING, Reason.ROLLOUT_FAILED)
    await until_alone(rig)
    assert [event.kind for event in await rig.events()].count("gave up") == 2


@pytest.mark.parametrize("strategy", ["blue-green", "recreate"])
async def test_an_agent_killed_in_the_middle_of_an_update_ends_it(rig: Rig, strategy: str) -> None:
    update = {"strategy": strategy, "drain": "1s"}
    await updated(rig, rig.spec(update=update))
    await rig.apply(rig.spec(image=images.HELLO_NEXT, update=update))
    beside = f"{rig.container}.{'next' if strategy == 'blue-green' else 'old'}"
    await until(lambda: beside in rig.containers(aside=True), 20)
    rig.kill_agent()
    rig.start_agent()
    await rig.until_ready()
    await until_alone(rig)
    rig.until_it_answers("mcp-hello v1.0.1")


async def test_a_stop_lets_open_connections_end(rig: Rig) -> None:
    await updated(rig, rig.spec(update={"drain": "20s"}))
    long_lived = asyncio.create_task(download(rig, 20))
    await asyncio.sleep(0.3)
    await rig.apply(rig.spec(update={"drain": "20s"}).model_copy(update={"active": False}))
    assert len(await long_lived) == 20
    await rig.until(lambda service: not service.components[0].ready)


async def test_a_deletion_lets_open_connections_end(rig: Rig) -> None:
    await updated(rig, rig.spec(update={"drain": "20s"}))
    long_lived = asyncio.create_task(download(rig, 20))
    await asyncio.sleep(0.3)
    await rig.delete()
    assert len(await long_lived) == 20
    assert rig.containers() == []
