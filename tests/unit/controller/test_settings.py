"""The agent's settings: the commented example is complete, each variable counts, and what is wrong is said."""

import tomllib
from pathlib import Path

import pytest
from pydantic.fields import FieldInfo

from api.errors import Refused
from api.model import Model
from controller.settings import ImageRegistrySettings, Settings, load, variables

EXAMPLE = Path("deploy/mcp-agent.toml")

OTHER = {
    "MCP_NODE": "sea",
    "MCP_STATE_DIR": "/var/lib/other",
    "MCP_FILES_ROOT": "/data",
    "MCP_API_SOCKET": "/run/other/agent.sock",
    "MCP_API_LISTEN": "[::1]:9444",
    "MCP_API_NAMES": "rift.example, 192.0.2.7",
    "MCP_API_MAX_MESSAGE_BYTES": "2048",
    "MCP_AUTH_TOKENS": "false",
    "MCP_API_CERT_FILE": "/elsewhere.pem",
    "MCP_API_KEY_FILE": "/elsewhere.key",
    "MCP_AUTH_CLIENT_CA_FILE": "/etc/clients.pem",
    "MCP_AUTH_CERTIFICATES": "laptop:operator",
    "MCP_MCIAS_URL": "https://mcias.example:8443",
    "MCP_MCIAS_CA_FILE": "/etc/ca.pem",
    "MCP_MCIAS_ROLES": "admin:viewer",
    "MCP_JWT_JWKS_URL": "https://id.example/jwks",
    "MCP_JWT_KEY_FILE": "/etc/id.pem",
    "MCP_JWT_CA_FILE": "/etc/ca.pem",
    "MCP_JWT_ROLES": "staff:operator, boss:admin",
    "MCP_REGISTRY_URL": "postgresql+psycopg://db/mcp",
    "MCP_PODMAN_SOCKET": "/run/user/1/podman.sock",
    "MCP_MCPROXY_SOCKET": "/run/mc-proxy.sock",
    "MCP_MCPROXY_CERT_DIR": "/certs",
    "MCP_DEFAULTS_NETWORK": "other",
    "MCP_DEFAULTS_USER": "1:1",
    "MCP_DEFAULTS_RESTART": "no",
    "MCP_DEFAULTS_PULL": "always",
    "MCP_DEFAULTS_STOP_TIMEOUT": "7s",
    "MCP_DEFAULTS_REGISTRY": "registry.example",
    "MCP_DEFAULTS_ZONE": "example",
    "MCP_DEFAULTS_SERVICE_ROOT": "/data",
    "MCP_DEFAULTS_ALLOW_LATEST": "true",
    "MCP_POLICY_MOUNTS": "/data, web:/media",
    "MCP_POLICY_CAPABILITIES": "NET_ADMIN",
    "MCP_PORTS_LOW": "20000",
    "MCP_PORTS_HIGH": "30000",
    "MCP_CERTS_ISSUER": "acme",
    "MCP_CERTS_FALLBACK": "embedded",
    "MCP_ACME_DIRECTORY": "https://acme.example/directory",
    "MCP_ACME_CA_FILE": "/etc/ca.pem",
    "MCP_ACME_ROOT_FILE": "/etc/root.pem",
    "MCP_ACME_EAB_HMAC_FILE": "/etc/hmac",
    "MCP_ACME_CHALLENGE_LISTEN": "127.0.0.1:5002",
    "MCP_METACRYPT_URL": "https://metacrypt.example:8443",
    "MCP_METACRYPT_CA_FILE": "/etc/ca.pem",
    "MCP_METACRYPT_ROOT_FILE": "/etc/root.pem",
    "MCP_METACRYPT_TOKEN_FILE": "/etc/token",
    "MCP_SNAPSHOT_FOLDER": "/backup",
    "MCP_ALERTS_COMMAND": "/usr/local/bin/notify --to 'the ops'",
    "MCP_ALERTS_KINDS": "drift, left alone",
    "MCP_METRICS_LISTEN": "0.0.0.0:9999",
    "MCP_LOG_LEVEL": "debug",
    "MCP_LOG_FORMAT": "json",
}
"""A value for each variable that is not a number of seconds or the like."""


def write(folder: Path, text: str) -> Path:
    path = folder / "a.toml"
    path.write_text(text)
    return path


def wrong(path: Path, **environ: str) -> str:
    with pytest.raises(Refused) as refused:
        load(path, environ)
    return refused.value.message


def value(settings: Settings, path: tuple[str, ...]) -> object:
    found: object = settings
    for part in path:
        found = getattr(found, part)
    return found


def test_the_example_says_the_defaults() -> None:
    assert load(EXAMPLE, {}) == Settings(node="rift")


def test_the_example_names_every_setting_with_a_comment() -> None:
    document = tomllib.loads(EXAMPLE.read_text())
    named = {(key,) for key, entry in document.items() if not isinstance(entry, dict)}
    named |= {(key, inner) for key, entry in document.items() if isinstance(entry, dict) for inner in entry}
    assert named == {path for _, path in variables()}


def test_the_commented_registry_names_every_field_of_one(tmp_path: Path) -> None:
    lines = EXAMPLE.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("# [registries."))
    shown = "\n".join(line.removeprefix("# ") for line in lines[first:] if line.startswith("# ")).partition("\n# mc-")[
        0
    ]
    table = shown[: shown.index("tls_verify = true") + len("tls_verify = true")]
    registries = load(write(tmp_path, table), {}).registries
    assert list(registries) == ["mcr.example:8443"]
    assert registries["mcr.example:8443"].model_fields_set == ImageRegistrySettings.model_fields.keys()


def test_every_setting_is_described() -> None:
    def fields(model: type[Model]) -> list[FieldInfo]:
        found: list[FieldInfo] = []
        for field in model.model_fields.values():
            nested = isinstance(field.annotation, type) and issubclass(field.annotation, Model)
            found += fields(field.annotation) if nested else [field]  # type: ignore[arg-type]
        return found

    assert all(field.description for field in fields(Settings))


def test_an_empty_file_is_enough(tmp_path: Path) -> None:
    settings = load(write(tmp_path, ""), {})
    assert settings == Settings()
    assert settings.node
    assert settings.registry_url == "sqlite:////var/lib/mcp/registry.db"


@pytest.mark.parametrize(
    ("variable", "path"), list(variables()), ids=lambda item: item if isinstance(item, str) else ""
)
def test_every_variable_overrides_the_file_and_nothing_else(variable: str, path: tuple[str, ...]) -> None:
    before = load(EXAMPLE, {})
    after = load(EXAMPLE, {variable: OTHER.get(variable, "7")})
    differing = [other for _, other in variables() if value(before, other) != value(after, other)]
    assert differing == [path]


def test_variables_of_others_are_none_of_ours(tmp_path: Path) -> None:
    strangers = {"MCP_CONFIG": "x", "MCP_CA_FILE": "x", "MCP_AGENT_PID": "x", "PATH": "x"}
    assert load(write(tmp_path, ""), strangers) == Settings()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nod = 'x'", '{f}:1: nod: is not a field of mcp-agent.toml; did you mean "node"?'),
        ("\nnode = 7", "{f}:2: node: must be text in quotes, not the number 7: put it in quotes"),
        ("[podmann]", '{f}:1: podmann: is not a field of mcp-agent.toml; did you mean "podman"?'),
        ("cert_dir = '/x'", "{f}:1: cert_dir: is not a field of mcp-agent.toml: it belongs in [mcproxy]"),
        ("[ports]\nlow = '9'", '{f}:2: ports.low: must be a whole number, not "9": write 9 without quotes'),
        ("[ports]\nlow = 9", "{f}:2: ports.low: must be at least 1024, not the number 9"),
        ("[ports]\nlow = 3000\nhigh = 2000", "{f}:1: ports: low (3000) is above high (2000)"),
        ("[loop]\nstop_seconds = '9'", '{f}:2: loop.stop_seconds: must be a number, not "9": write 9 without quotes'),
        ("[loop]\nstop_seconds = 0", "{f}:2: loop.stop_seconds: must be more than 0, not the number 0"),
        ("[loop]\nstop_seconds = inf", "{f}:2: loop.stop_seconds: must be a finite number, not the number inf"),
        ("[podman]\nsocket = 'x.sock'", '{f}:2: podman.socket: "x.sock" is not an absolute path'),
        ("[podman]\nsocket = ''", '{f}:2: podman.socket: "" is not an absolute path'),
        ("[metrics]\nlisten = '9464'", '{f}:2: metrics.listen: "9464" is not host:port, such as 127.0.0.1:9464'),
        ("[metrics]\nlisten = 'a:99999'", '{f}:2: metrics.listen: "a:99999" is not host:port, such as 127.0.0.1:9464'),
        (
            "[jwt]\nroles = ['staff:king']",
            (
                '{f}:2: jwt.roles[0]: "staff:king" is not a name and one of the roles viewer, operator, admin, '
                'such as "staff:operator"'
            ),
        ),
        (
            "[mcias]\nroles = ['guest:viewer']",
            '{f}:2: mcias.roles[0]: "guest:viewer" lets guests in, and they are refused always',
        ),
        (
            "[log]\nlevel = 'warn'",
            '{f}:2: log.level: must be "debug", "info", "warning" or "error", not "warn"; did you mean "warning"?',
        ),
        (
            "[defaults]\nrestart = 'sometimes'",
            '{f}:2: defaults.restart: must be "no", "on-failure", "always" or "unless-stopped", not "sometimes"',
        ),
        (
            "[defaults]\nallow_latest = 'true'",
            '{f}:2: defaults.allow_latest: must be true or false, not "true": write true without quotes',
        ),
        (
            "[registries.'https://mcr']",
            '{f}:1: registries.https://mcr: "https://mcr" is not host:port such as "mcr.example:8443"',
        ),
        (
            "[registries.'mcr:1']\npasword_file = 'x'",
            '{f}:2: registries.mcr:1.pasword_file: is not a field of a registry; did you mean "password_file"?',
        ),
        (
            "[registries.'mcr:1']\nusername = 'x'",
            "{f}:1: registries.mcr:1: has one of username and password_file: say both",
        ),
        (
            "[registries.mcr]\npassword_file = '/p'\ntoken_file = '/t'",
            "{f}:1: registries.mcr: has a password_file and a token_file: say one of them",
        ),
        ("node = ", "{f}:1: this is not TOML: Invalid value"),
        ("node = [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]", "{f}:1: nests lists or tables more than 16 deep"),
    ],
)
def test_what_is_wrong_is_one_clear_sentence_with_its_place(tmp_path: Path, text: str, sentence: str) -> None:
    path = write(tmp_path, text)
    assert wrong(path) == sentence.format(f=path)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, "[ports]\nlow = 1\n[loop]\nworkers = 0\nx = 1\n")
    assert [line.split(": ")[:2] for line in wrong(path).splitlines()] == [
        [f"{path}:2", "ports.low"],
        [f"{path}:4", "loop.workers"],
        [f"{path}:5", "loop.x"],
    ]


def test_a_wrong_variable_is_named_instead_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "[ports]\nlow = 20000\n")
    assert wrong(path, MCP_LOOP_WORKERS="many") == 'MCP_LOOP_WORKERS: must be a whole number, not "many"'
    assert wrong(path, MCP_PORTS_HIGH="15000") == "MCP_PORTS_HIGH: low (20000) is above high (15000)"
    assert wrong(path, MCP_DEFAULTS_ALLOW_LATEST="perhaps") == (
        'MCP_DEFAULTS_ALLOW_LATEST: must be true or false, not "perhaps"'
    )


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    assert wrong(missing) == f"the settings {missing} cannot be read: No such file or directory"
    assert wrong(tmp_path) == f"the settings {tmp_path} cannot be read: Is a directory"
