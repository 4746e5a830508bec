"""A whole host: podman, the proxy and the agent, configured for one folder and reached over loopback alone."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from stack import processes, web
from stack.layout import Layout
from stack.podman import PodmanHost
from stack.processes import StackError

_PROGRAMS: Final = Path(sys.executable).parent
# The listener that the examples name, taken when nobody else has it.
_LISTENER: Final = 8443
ZONE: Final = "mcp.metacircular.net"


@dataclass(frozen=True)
class Ports:
    """The TCP ports of one host, chosen once and kept: `listener` of the proxy, `metrics` of the agent."""

    listener: int
    metrics: int


@dataclass(frozen=True)
class Host:
    """podman, `mcproxyd` and `mcp-agent`. `podman` may be shared with other hosts; it is then not ours to end.

    `settings` is TOML that is added to the agent's file: sections other than api, podman, mcproxy, defaults, metrics.
    """

    layout: Layout
    podman: PodmanHost
    shares_podman: bool = False
    settings: str = ""

    def up(self) -> None:
        """Starts what does not run yet and returns when all of it is ready."""
        self.layout.make()
        self.podman.start()
        self.configure()
        self.start_proxy()
        self.start_agent()

    def down(self) -> None:
        """Ends and removes everything, also when half of it is dead. Containers of a shared podman stay its own."""
        self.stop_agent()
        self.stop_proxy()
        if self.shares_podman:
            self.podman.run("network", "rm", "--force", self.network, check=False)
        else:
            self.podman.remove()
        for orphan in processes.working_in((self.layout.root, self.layout.run), names={"haproxy"}):
            processes.end(orphan, seconds=2)
        self.layout.remove_run()
        shutil.rmtree(self.layout.root, ignore_errors=True)

    def start_proxy(self) -> None:
        """Starts the proxy and returns when its admin API is healthy."""
        command: list[str | Path] = [_PROGRAMS / "mcproxyd", "server", "-c", self.proxy_config]
        processes.start(self.layout, "mcproxyd", command, env=self.environment)
        processes.wait_until(self.layout, "mcproxyd", lambda: _is_serving(self.proxy_socket), seconds=20)

    def stop_proxy(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """Ends the proxy alone; HAProxy goes with it."""
        processes.stop(self.layout, "mcproxyd", sig=sig)

    def start_agent(self) -> None:
        """Starts the agent and returns when it says that it is ready."""
        command: list[str | Path] = [_PROGRAMS / "mcp-agent", "serve", "-c", self.agent_config]
        processes.start(self.layout, "mcp-agent", command, env=self.environment)
        ready = f"{self.metrics_url}/readyz"
        processes.wait_until(self.layout, "mcp-agent", lambda: web.is_ok(ready), seconds=30)
        self._write_env()

    def stop_agent(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """Ends the agent alone: containers and routes stay as they are."""
        processes.stop(self.layout, "mcp-agent", seconds=25, sig=sig)

    @property
    def agent(self) -> processes.Process:
        """The agent's process. Raises StackError when it does not run."""
        if process := processes.running(self.layout, "mcp-agent"):
            return process
        raise StackError("mcp-agent does not run")

    def mcp(self, *args: str | Path, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs the `mcp` command against this host, `text` on its standard input; never raises for its exit code."""
        return subprocess.run(
            [_PROGRAMS / "mcp", *args],
            input=text or "",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=self.environment | self.names,
        )

    def fetch(self, hostname: str, path: str = "/", ca: Path | None = None) -> str:
        """What `https://hostname/path` answers through the proxy; raises as `web.fetch` does."""
        return web.fetch(self.address, hostname, ca or self.ca_file, path)

    @property
    def node(self) -> str:
        """The node's name, unlike that of any other host."""
        return f"node-{self.layout.tag}"

    @property
    def network(self) -> str:
        """The network that the agent puts containers into by default."""
        return f"mcpnet-{self.layout.tag}"

    @cached_property
    def ports(self) -> Ports:
        """This host's ports: free ones the first time, the same ones ever after."""
        kept = self.layout.root / "ports.json"
        with suppress(FileNotFoundError):
            return Ports(**json.loads(kept.read_text()))
        preferred = not self.shares_podman and web.is_free(_LISTENER)
        ports = Ports(listener=_LISTENER if preferred else web.free_port(), metrics=web.free_port())
        kept.write_text(json.dumps(asdict(ports)))
        return ports

    @property
    def address(self) -> tuple[str, int]:
        """Where the proxy listens."""
        return ("127.0.0.1", self.ports.listener)

    @property
    def metrics_url(self) -> str:
        """Where the agent's metrics and health checks are, without a path."""
        return f"http://127.0.0.1:{self.ports.metrics}"

    @property
    def proxy_socket(self) -> Path:
        """The proxy's admin socket."""
        return self.layout.run / "mcproxy.sock"

    @property
    def agent_socket(self) -> Path:
        """The agent's API socket, in a private folder of its own."""
        return self.layout.run / "agent" / "agent.sock"

    @property
    def proxy_config(self) -> Path:
        """The proxy's configuration file."""
        return self.layout.root / "mcproxy.toml"

    @property
    def agent_config(self) -> Path:
        """The agent's configuration file."""
        return self.layout.root / "mcp-agent.toml"

    @property
    def cli_config(self) -> Path:
        """The configuration file of the `mcp` command."""
        return self.layout.root / "mcp.toml"

    @property
    def cert_dir(self) -> Path:
        """Where the agent puts certificates and the proxy finds them."""
        return self.layout.root / "certs"

    @property
    def ca_file(self) -> Path:
        """The certificate of the agent's CA."""
        return self.layout.root / "agent" / "ca" / "ca.pem"

    @property
    def env_file(self) -> Path:
        """A file for shells to source."""
        return self.layout.root / "env"

    @property
    def environment(self) -> dict[str, str]:
        """The environment our programs are started with: nothing of the caller's but the path and the terminal."""
        kept = {
            name: os.environ[name]
            for name in ("TERM", "COLUMNS", "NO_COLOR", "COVERAGE_PROCESS_CONFIG")
            if name in os.environ
        }
        return kept | {
            "PATH": f"{_PROGRAMS}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin",
            "HOME": str(self.layout.root),
            "LC_ALL": "C.UTF-8",
        }

    @property
    def names(self) -> dict[str, str]:
        """The variables by which people, scripts and the `mcp` command find this host."""
        return {
            "MCP_CONFIG": str(self.cli_config),
            "MCP_CA_FILE": str(self.ca_file),
            "MCP_PODMAN_SOCKET": str(self.podman.socket),
            "MCP_MCPROXY_SOCKET": str(self.proxy_socket),
            "MCP_PROXY_ADDR": ":".join(map(str, self.address)),
            "MCP_METRICS_URL": f"{self.metrics_url}/metrics",
            "MCP_NODE": self.node,
        }

    def _write_env(self) -> None:
        variables = self.names | {"MCP_AGENT_PID": str(self.agent.pid)}
        lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        path = f'export PATH={shlex.quote(str(_PROGRAMS))}:"$PATH"'
        self.env_file.write_text("\n".join([path, *lines, ""]))

    def configure(self) -> None:
        """Writes the configuration files of the proxy, the agent and the `mcp` command."""
        for folder in (self.layout.root / "agent", self.cert_dir, self.layout.run / "agent"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.proxy_config.write_text(self._proxy_toml())
        self.agent_config.write_text(self._agent_toml())
        self.cli_config.write_text(self._cli_toml())

    def forget_routes(self) -> None:
        """Deletes the database of a proxy that does not run: it starts with an empty table."""
        shutil.rmtree(self._proxy_state)

    @property
    def _proxy_state(self) -> Path:
        return self.layout.root / "mcproxy"

    def _proxy_toml(self) -> str:
        host, port = self.address
        # Short: a client of a container that was killed may hold its connection until a time-out.
        return f"""\
shutdown_timeout = 2

[admin]
socket = "{self.proxy_socket}"

[database]
path = "{self._proxy_state / "routes.db"}"

[haproxy]
runtime_dir = "{self.layout.run / "haproxy"}"

[[listeners]]
addr = ":{port}"
bind = "{host}"
"""

    def _agent_toml(self) -> str:
        state = self.layout.root / "agent"
        return f"""\
node = "{self.node}"
state_dir = "{state}"

[api]
socket = "{self.agent_socket}"

[podman]
socket = "{self.podman.socket}"

[mcproxy]
socket = "{self.proxy_socket}"
cert_dir = "{self.cert_dir}"

[defaults]
network = "{self.network}"
zone = "{ZONE}"
service_root = "{self.layout.root / "srv"}"
registry = "localhost"

[metrics]
listen = "127.0.0.1:{self.ports.metrics}"

{self.settings}"""

    def _cli_toml(self) -> str:
        return f"""\
[nodes.{self.node}]
address = "unix://{self.agent_socket}"
"""


@contextmanager
def temporary_host(layout: Layout, podman: PodmanHost, settings: str = "") -> Iterator[Host]:
    """A host on a podman that others use too, gone without a trace afterwards."""
    host = Host(layout, podman, shares_podman=True, settings=settings)
    try:
        host.up()
        yield host
    finally:
        host.down()


def _is_serving(path: Path) -> bool:
    """Whether the health service at the socket says SERVING."""
    # Imported here: `down` must work when the environment is gone.
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(f"unix:{path}") as channel, suppress(grpc.RpcError):
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
    return False
