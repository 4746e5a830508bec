"""The agent as a program: what it serves, what it refuses, and how it ends. Its podman is away."""

import os
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from api.access import AuditQuery, Role, TokenRequest
from api.client import Client
from api.conditions import ConditionType, Reason, Status
from api.control_plane import Watched
from api.errors import Unauthenticated
from api.service import Service
from stack.web import free_port, is_ok, wait_for
from tests.unit.controller.pairs import Files
from tests.unit.controller.registry.samples import spec

PROGRAM = Path(sys.executable).parent / "mcp-agent"


class Program:
    """One `mcp-agent` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "mcp-agent.toml"
        self.port = free_port()
        self.config.write_text(f"""\
node = "rift"
state_dir = "{folder}/state"
[api]
socket = "{folder}/run/agent.sock"
[podman]
socket = "{folder}/podman.sock"
[mcproxy]
cert_dir = "{folder}/certs"
[metrics]
listen = "127.0.0.1:{self.port}"
""")
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("MCP_")}
        self.running: subprocess.Popen[str] | None = None

    def start(self, **variables: str) -> subprocess.Popen[str]:
        """Starts it and returns once it is alive."""
        environ = self.environ | variables
        self.running = subprocess.Popen(
            [PROGRAM, "serve", "-c", self.config], env=environ, stderr=subprocess.PIPE, text=True
        )
        wait_for(lambda: is_ok(f"{self.url}/healthz"), seconds=20, what="mcp-agent")
        return self.running

    def run(self, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Runs it to its end, which has to come by itself."""
        command = [PROGRAM, *args, *(("-c", str(self.config)) if args[0] != "version" else ())]
        environ = self.environ | variables
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=False)

    def client(self) -> Client:
        return Client(f"unix://{self.folder}/run/agent.sock", actor="ann")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def readiness(self) -> tuple[int, str]:
        """What /readyz says."""
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def stop(self) -> tuple[int, str]:
        """Its exit code, and what it said on standard error."""
        assert self.running is not None
        self.running.send_signal(signal.SIGTERM)
        _, said = self.running.communicate(timeout=20)
        return self.running.returncode, said


@pytest.fixture
def program() -> Iterator[Program]:
    with tempfile.TemporaryDirectory(prefix="mcp-x") as folder:
        program = Program(Path(folder))
        yield program
        if program.running is not None and program.running.poll() is None:
            program.running.kill()
            program.running.communicate()


async def until(client: Client, kind: ConditionType, reason: Reason) -> Service:
    """The service `hello` once its condition has that reason."""
    async for seen in client.watch(["hello"]):
        condition = seen.service.condition(kind) if seen.service else None
        if seen.service is not None and condition is not None and condition.reason is reason:
            return seen.service
    raise AssertionError("the watch ended")


async def test_without_podman_it_lives_answers_and_says_so(program: Program) -> None:
    program.start()
    async with program.client() as client:
        await client.apply(spec())
        service = await until(client, ConditionType.CONTAINERS_RUNNING, Reason.ENGINE_UNREACHABLE)
        condition = service.condition(ConditionType.CONTAINERS_RUNNING)
        assert condition is not None
        assert condition.status is Status.UNKNOWN
        await until(client, ConditionType.ROUTES_PROGRAMMED, Reason.PROXY_NOT_CONFIGURED)
        parts = {part.name: part.reachable for part in (await client.node_status()).parts}
        assert parts == {"registry": True, "podman": False}
    status, sentence = program.readiness()
    assert (status, sentence.startswith("podman: podman cannot be asked")) == (503, True)
    code, said = program.stop()
    assert code == 0
    assert "Traceback" not in said


async def test_what_was_applied_outlives_the_agent(program: Program) -> None:
    program.start()
    async with program.client() as client:
        applied = await client.apply(spec())
    assert program.stop()[0] == 0
    program.start()
    async with program.client() as client:
        service = await client.get("hello")
    assert (service.uid, service.spec) == (applied.service.uid, spec())


async def test_a_watch_ends_with_the_agent_and_does_not_hold_it_up(program: Program) -> None:
    program.start()
    async with program.client() as client:
        watch = client.watch()
        assert await anext(watch) == Watched(synced=True)
        assert program.stop()[0] == 0
        await watch.aclose()


async def test_tls_on_loopback_is_trusted_by_the_agents_own_ca(program: Program) -> None:
    port = free_port()
    program.start(MCP_API_LISTEN=f"127.0.0.1:{port}")
    ca = f"{program.folder}/state/ca/ca.pem"
    async with program.client() as local:
        made = await local.access.create_token(TokenRequest(name="ci", role=Role.VIEWER))
    async with Client(f"localhost:{port}", actor="ann", ca_file=ca, token=made.secret) as client:
        assert (await client.node_status()).node == "rift"
    async with Client(f"localhost:{port}", actor="ann", ca_file=ca) as stranger:
        with pytest.raises(Unauthenticated):
            await stranger.node_status()


async def test_the_first_token_is_made_whether_the_agent_runs_or_not(program: Program) -> None:
    first = program.run("token", "bootstrap")
    assert (first.returncode, first.stdout.count("\n"), first.stderr) == (0, 1, "")
    again = program.run("token", "bootstrap")
    assert (again.returncode, again.stdout) == (5, "")
    assert again.stderr.startswith('mcp-agent: there is a token "bootstrap" that holds: revoke it first')
    port = free_port()
    program.start(MCP_API_LISTEN=f"127.0.0.1:{port}")
    second = program.run("token", "bootstrap", "--name", "second")
    assert second.returncode == 0
    assert program.run("token", "bootstrap", "--name", "Not Good").returncode == 5
    elsewhere = program.run("token", "bootstrap", MCP_API_SOCKET=f"{program.config}/agent.sock")
    assert (elsewhere.returncode, elsewhere.stderr.count("\n")) == (5, 1)
    assert "cannot be opened (Not a directory): run it as the agent's own user, or as root" in elsewhere.stderr
    for name, made in (("bootstrap", first), ("second", second)):
        ca_file, token = f"{program.folder}/state/ca/ca.pem", made.stdout.strip()
        async with Client(f"localhost:{port}", actor="x", ca_file=ca_file, token=token) as client:
            me = await client.access.whoami()
            assert (me.name, me.role) == (name, Role.ADMIN)
            told = [(record.address, record.outcome) for record in await client.access.audit(AuditQuery())]
    assert told == [("local", "OK"), ("unix", "OK")]
    code, said = program.stop()
    assert code == 0
    assert "mcp_" not in said


def test_no_handshake_of_an_older_tls_succeeds_whatever_certificate_it_comes_to(program: Program) -> None:
    port, files = free_port(), Files(program.folder / "theirs")
    numbers = [files.write()]
    program.start(
        MCP_API_LISTEN=f"127.0.0.1:{port}", MCP_API_CERT_FILE=str(files.cert), MCP_API_KEY_FILE=str(files.key)
    )
    context = ssl.create_default_context(cafile=files.ca)
    context.set_alpn_protocols(["h2"])

    def shown() -> tuple[str | None, int]:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as tls,
        ):
            leaf = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")
            return tls.version(), leaf.serial_number

    for _ in range(2):
        context.maximum_version = ssl.TLSVersion.TLSv1_3
        assert shown() == ("TLSv1.3", numbers[-1])
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(OSError, match=r"EOF|reset|alert"):
            shown()
        numbers.append(files.write())


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"MCP_API_LISTEN": "0.0.0.0:1", "MCP_AUTH_TOKENS": "false"}, "api.listen: nobody could come in"),
        ({"MCP_JWT_ISSUER": "https://id.example"}, "jwt.audience is missing"),
        ({"MCP_JWT_ISSUER": "i", "MCP_JWT_AUDIENCE": "a"}, "[jwt] needs one of jwks_url and key_file"),
        ({"MCP_JWT_ISSUER": "i", "MCP_JWT_AUDIENCE": "a", "MCP_JWT_KEY_FILE": "/k"}, "[jwt] needs roles"),
        ({"MCP_AUTH_CERTIFICATES": "laptop:admin"}, "auth.client_ca_file is missing"),
        ({"MCP_API_CERT_FILE": "/c"}, "[api] has one of cert_file and key_file"),
        ({"MCP_API_CERT_FILE": "/no", "MCP_API_KEY_FILE": "/k"}, "api.cert_file, api.key_file: /no: No such file"),
        ({"MCP_AUTH_CLIENT_CA_FILE": "/no"}, "auth.client_ca_file: /no holds no certificate"),
    ],
)
def test_settings_that_make_no_door_are_refused(program: Program, variables: dict[str, str], sentence: str) -> None:
    for command in ("check-config", "serve"):
        done = program.run(command, **variables)
        assert (done.returncode, done.stderr.count("\n")) == (5, 1)
        assert sentence in done.stderr


def test_a_second_agent_of_one_registry_is_refused(program: Program) -> None:
    program.start()
    done = program.run("serve", MCP_METRICS_LISTEN=f"127.0.0.1:{free_port()}", MCP_API_SOCKET=f"{program.folder}/b")
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert "another" in done.stderr
    assert program.stop()[0] == 0


def test_a_second_agent_on_one_socket_is_refused(program: Program) -> None:
    program.start()
    done = program.run("serve", MCP_METRICS_LISTEN=f"127.0.0.1:{free_port()}", MCP_STATE_DIR=f"{program.folder}/b")
    assert (done.returncode, done.stderr.count("\n")) == (5, 1)
    assert "another agent serves" in done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "code", "sentence"),
    [
        ("MCP_STATE_DIR", "/proc/nowhere", 4, "mcp-agent: "),
        ("MCP_REGISTRY_URL", "mysql://x/y", 4, "mcp-agent: "),
        ("MCP_REGISTRY_URL", "nonsense", 4, "mcp-agent: "),
        ("MCP_REGISTRY_URL", "postgresql+psycopg://127.0.0.1:9/x", 4, "mcp-agent: "),
        ("MCP_METRICS_LISTEN", "192.0.2.1:80", 5, "mcp-agent: metrics.listen: 192.0.2.1:80 cannot be listened on"),
        (
            "MCP_API_LISTEN",
            "192.0.2.1:80",
            5,
            "mcp-agent: api.listen: 192.0.2.1:80 cannot be listened on (Cannot assign",
        ),
        ("MCP_API_SOCKET", "/proc/nowhere/agent.sock", 5, "mcp-agent: api.socket: /proc/nowhere/agent.sock"),
        ("MCP_LOOP_WORKERS", "0", 5, "mcp-agent: MCP_LOOP_WORKERS: must be at least 1"),
    ],
)
def test_what_it_cannot_start_with_is_one_sentence_and_an_exit_code(
    program: Program, variable: str, value: str, code: int, sentence: str
) -> None:
    done = program.run("serve", **{variable: value})
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1


def test_a_registry_on_a_disk_that_is_full_is_one_sentence(program: Program) -> None:
    def no_file_may_grow() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    # Coverage's own file could not grow either, and it would say so at length.
    unmeasured = {name: value for name, value in program.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [PROGRAM, "serve", "-c", program.config],
        env=unmeasured,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        preexec_fn=no_file_may_grow,
    )
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert "registry.db" in done.stderr


def test_settings_can_be_checked_without_starting_anything(program: Program) -> None:
    done = program.run("check-config")
    assert (done.returncode, done.stdout) == (0, f"{program.config}: ok (node rift)\n")
    program.config.write_text("[podman]\nsokcet = '/x'\n")
    done = program.run("check-config")
    assert (done.returncode, done.stderr) == (
        5,
        f'mcp-agent: {program.config}:2: podman.sokcet: is not a field of [podman]; did you mean "socket"?\n',
    )
    assert not (program.folder / "state").exists()


def test_what_does_not_answer_yet_is_a_warning(program: Program) -> None:
    done = program.run("check-config", MCP_MCPROXY_SOCKET=f"{program.folder}/proxy.sock")
    assert done.returncode == 0
    podman, proxy = done.stderr.splitlines()
    assert podman.startswith("warning: podman: ")
    assert proxy.startswith("warning: mc-proxy: ")


async def test_the_way_back_by_its_commands(program: Program) -> None:
    disk = program.folder / "disk"
    assert program.run("snapshot").stderr.count("never ran") == 1
    assert re.fullmatch(r"the registry is at schema \d{4}; it did not exist\n", program.run("migrate").stdout)
    assert re.fullmatch(r"the registry is at schema \d{4}\n", program.run("migrate").stdout)
    program.start()
    async with program.client() as client:
        await client.apply(spec())
    taken = program.run("snapshot", "--to", str(disk))
    assert re.search(r": 1 service of node rift, schema \d{4}, \d+ bytes\n$", taken.stdout)
    (file,) = disk.iterdir()
    refused = program.run("restore", str(file), "--force")
    assert (refused.returncode, "served by another agent: end that one first" in refused.stderr) == (4, True)
    assert program.run("migrate").returncode == 4
    assert program.stop()[0] == 0
    assert "would be replaced" in program.run("restore", str(file), "--dry-run").stdout
    assert program.run("restore", str(file)).returncode == 5
    done = program.run("restore", str(file), "--force")
    assert (done.returncode, done.stderr) == (0, "")
    assert "all services are suspended" in done.stdout
    assert program.run("restore", f"{disk}/none").stderr == f"mcp-agent: there is no snapshot {disk}/none\n"
    (program.folder / "junk").write_text("junk")
    junk = program.run("restore", f"{program.folder}/junk")
    assert (junk.returncode, junk.stderr.count("\n")) == (5, 1)
    program.start()
    async with program.client() as client:
        assert (await client.node_status()).suspended == 1
    program.stop()


def test_it_knows_its_version(program: Program) -> None:
    assert program.run("version").stdout.startswith("mcp-agent 0.")


def test_a_defect_ends_it_with_a_trace_and_not_with_zero(program: Program) -> None:
    """Whoever started it starts it again."""
    script = (
        "import asyncio, sys\n"
        "from controller.wakes import Wakes\n"
        "async def breaks(self): raise ZeroDivisionError('a defect')\n"
        "Wakes.resync = breaks\n"
        f"sys.argv = ['mcp-agent', 'serve', '-c', {str(program.config)!r}]\n"
        "from cli.agent import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=program.environ, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "ZeroDivisionError: a defect" in done.stderr
