"""A whole agent lets in who shows a token of a real OpenID Connect provider, over real TLS."""

import base64
import json
import shutil
import ssl
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from api.access import How, Role
from api.client import Client
from api.errors import Forbidden, Unauthenticated
from stack import https
from stack.web import free_port
from tests.unit.controller.registry.samples import spec
from tests.unit.controller.test_app import Program

pytestmark = pytest.mark.system

_HERE = Path(__file__).parent
_MODULES = _HERE.parents[2] / ".local" / "node" / "node_modules"


class Provider:
    """oidc-provider, which people run in earnest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.pair = https.make_pair(folder)

    @property
    def issuer(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    @contextmanager
    def running(self, kid: str) -> Iterator[None]:
        """Runs with a new key of that id."""
        key = ec.generate_private_key(ec.SECP256R1())
        entry = jwt.algorithms.ECAlgorithm.to_jwk(key, as_dict=True) | {"kid": kid, "alg": "ES256", "use": "sig"}
        (self.folder / "keys.json").write_text(json.dumps({"keys": [entry]}))
        command = ["node", _HERE / "provider.mjs", _MODULES, str(self.port), self.pair, self.folder / "keys.json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        try:
            assert any("ready" in line for line in process.stdout), "it ended before it was ready"
            yield
        finally:
            process.kill()
            process.communicate()

    def token(self) -> str:
        """An access token of its client."""
        basic = base64.b64encode(b"ci:open-sesame").decode()
        request = urllib.request.Request(
            f"{self.issuer}/token", b"grant_type=client_credentials", {"Authorization": f"Basic {basic}"}
        )
        trusting = ssl.create_default_context(cafile=str(self.ca_file))
        with urllib.request.urlopen(request, timeout=10, context=trusting) as answer:
            return str(json.load(answer)["access_token"])


@pytest.fixture
def provider() -> Iterator[Provider]:
    assert shutil.which("node"), "scripts/setup test brings it"
    with tempfile.TemporaryDirectory(prefix="mcp-o") as folder:
        yield Provider(Path(folder))


@pytest.fixture
def program(provider: Provider) -> Iterator[Program]:
    with tempfile.TemporaryDirectory(prefix="mcp-x") as folder:
        made = Program(Path(folder))
        made.environ |= {
            "MCP_API_LISTEN": f"127.0.0.1:{free_port()}",
            "MCP_JWT_ISSUER": provider.issuer,
            "MCP_JWT_AUDIENCE": "mcp",
            "MCP_JWT_JWKS_URL": f"{provider.issuer}/jwks",
            "MCP_JWT_CA_FILE": str(provider.ca_file),
            "MCP_JWT_ROLE_CLAIM": "groups",
            "MCP_JWT_ROLES": "staff:operator",
            "MCP_JWT_REFRESH_SECONDS": "0.05",
        }
        yield made
        if made.running is not None and made.running.poll() is None:
            made.running.kill()
            made.running.communicate()


def client(program: Program, token: str) -> Client:
    address = program.environ["MCP_API_LISTEN"].replace("127.0.0.1", "localhost")
    return Client(address, actor="mallory", ca_file=f"{program.folder}/state/ca/ca.pem", token=token)


async def test_the_providers_tokens_let_in_with_the_role_that_its_groups_stand_for(
    program: Program, provider: Provider
) -> None:
    program.start()
    with provider.running("first"):
        token = provider.token()
        async with client(program, token) as caller:
            me = await caller.access.whoami()
            assert (me.name, me.role, me.how) == ("ci", Role.OPERATOR, How.JWT)
            assert me.expires_at is not None
            await caller.apply(spec())
            assert (await caller.get("hello")).actor == "ci"
            with pytest.raises(Forbidden, match="needs admin"):
                await caller.access.tokens()
        header, body, _ = token.split(".")
        async with client(program, f"{header}.{body}.{'A' * 86}") as forger:
            with pytest.raises(Unauthenticated):
                await forger.services()
    async with client(program, token) as caller:
        assert (await caller.access.whoami()).name == "ci", "what is known outlives the provider"
    with provider.running("second"):
        renewed = provider.token()
        async with client(program, renewed) as caller:
            assert (await caller.access.whoami()).name == "ci"
        async with client(program, token) as late:
            with pytest.raises(Unauthenticated):
                await late.services()
    code, said = program.stop()
    assert code == 0
    assert token not in said
    assert renewed not in said
    assert "Traceback" not in said
