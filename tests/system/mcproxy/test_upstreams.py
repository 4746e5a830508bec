"""Backends that come late, go, or come back as something else."""

from tests.system.mcproxy.authority import Authority
from tests.system.mcproxy.backends import http1, http2
from tests.system.mcproxy.clients import get
from tests.system.mcproxy.daemon import Daemon, free_port, until


async def _speaks(daemon: Daemon, authority: Authority, protocol: str) -> None:
    async def spoken() -> bool:
        answer = await get(daemon.port, "web.test", authority.client())
        return answer.status == 200 and answer.json["protocol"] == protocol

    await until(spoken)


async def test_an_h2c_backend_may_come_later(daemon: Daemon, authority: Authority) -> None:
    port = free_port()
    await daemon.l7("web.test", port, authority.issue("web.test"))
    async with http2("late", port=port):
        await _speaks(daemon, authority, "h2")


async def test_an_http1_backend_may_come_later(daemon: Daemon, authority: Authority) -> None:
    port = free_port()
    await daemon.l7("web.test", port, authority.issue("web.test"))
    async with http1("late", port=port):
        await _speaks(daemon, authority, "http/1.1")


async def test_a_backend_may_come_back_as_something_else(daemon: Daemon, authority: Authority) -> None:
    async with http1("web") as port:
        await daemon.l7("web.test", port, authority.issue("web.test"))
        await _speaks(daemon, authority, "http/1.1")
    async with http2("web", port=port):
        await _speaks(daemon, authority, "h2")
    async with http1("web", port=port):
        await _speaks(daemon, authority, "http/1.1")


async def test_adding_a_route_again_asks_its_backend_again(daemon: Daemon, authority: Authority) -> None:
    """No request needs to fail first."""
    files = authority.issue("web.test")
    async with http1("web") as port:
        await daemon.l7("web.test", port, files)
    async with http2("web", port=port):
        await daemon.l7("web.test", port, files)
        assert (await get(daemon.port, "web.test", authority.client())).json["protocol"] == "h2"


async def test_a_backend_may_be_a_name(daemon: Daemon, authority: Authority) -> None:
    async with http2("named") as port:
        await daemon.l7("web.test", f"localhost:{port}", authority.issue("web.test"))
        assert (await get(daemon.port, "web.test", authority.client())).json["protocol"] == "h2"


async def test_a_name_that_does_not_resolve_costs_only_its_own_route(daemon: Daemon, authority: Authority) -> None:
    async with http1("web") as port:
        await daemon.l7("web.test", port, authority.issue("web.test"))
        await daemon.l7("lost.test", "nowhere.invalid:80", authority.issue("lost.test"))
        assert (await get(daemon.port, "lost.test", authority.client())).status == 503
        assert (await get(daemon.port, "web.test", authority.client())).status == 200
