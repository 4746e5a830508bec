"""A real mc-proxy stand-in for each test, with two listeners of its own."""

import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from reconcilers.routes.mcproxy import McProxy
from stack import web
from stack.admin import Table
from tests.system.agent.conftest import rig, stopped
from tests.system.agent.rig import Rig
from tests.system.routes.relay import Relay

__all__ = ["rig", "stopped"]

_CONFIG = """\
shutdown_timeout = 1

[admin]
socket = "{folder}/admin.sock"

[database]
path = "{folder}/proxy.db"

[haproxy]
runtime_dir = "{folder}/haproxy"

[[listeners]]
addr = ":{first}"
bind = "127.0.0.1"

[[listeners]]
addr = ":{second}"
bind = "127.0.0.1"
"""


class Proxyd:
    """`mcproxyd server` with its files in `folder`; `listeners` are the addresses it was configured with."""

    def __init__(self, folder: Path) -> None:
        ports = (web.free_port(), web.free_port())
        self.listeners = [f":{port}" for port in ports]
        self.addresses = [("127.0.0.1", port) for port in ports]
        self.socket = folder / "admin.sock"
        self.table = Table(self.socket)
        self._config = folder / "mcproxyd.toml"
        self._config.write_text(_CONFIG.format(folder=folder, first=ports[0], second=ports[1]))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = Path(sys.executable).parent / "mcproxyd"
        self._process = subprocess.Popen([program, "server", "-c", self._config])
        web.wait_for(self._answers, seconds=20, what="mcproxyd")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=10)
            self._process = None

    def _answers(self) -> bool:
        with suppress(grpc.RpcError):
            return self.table.routes() is not None
        return False


@pytest.fixture
def proxyd() -> Iterator[Proxyd]:
    with tempfile.TemporaryDirectory(prefix="mcp-r") as folder:
        proxy = Proxyd(Path(folder))
        proxy.start()
        yield proxy
        proxy.stop()


@pytest.fixture
async def proxy(proxyd: Proxyd) -> AsyncIterator[McProxy]:
    client = McProxy(str(proxyd.socket))
    yield client
    await client.close()


@pytest.fixture
def relay(stopped: Rig) -> Iterator[Relay]:
    """What the agent of `stopped` takes for mc-proxy once it is started."""
    relay = Relay(stopped.host.layout.run / "relay.sock", stopped.host.proxy_socket)
    stopped.variables = {"MCP_MCPROXY_SOCKET": str(relay.path), "MCP_MCPROXY_TIMEOUT_SECONDS": "1"}
    relay.start()
    yield relay
    stopped.host.stop_agent()
    relay.stop()
