"""The agent's settings: `mcp-agent.toml`, then `MCP_*` variables on top.

Every setting can be overridden by a variable named after its place:
`podman.socket` by MCP_PODMAN_SOCKET, `node` by MCP_NODE. Only the table of
registries has no variables: no variable's name could hold a registry's. A
duration is in the unit that ends its name.
"""

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator

from api.complaints import Complaint, Tables, complaints
from api.errors import Refused
from api.fields import Name
from api.manifest import InvalidManifest, read
from api.model import Model
from api.resolve import Defaults
from controller.alerts.discretion import AlertKind
from controller.auth.settings import AuditSettings, AuthSettings, JwtSettings, MciasSettings
from controller.logs import LogFormat
from controller.values import HOST_PORT, AbsolutePath, MaybePath, Seconds, host_port, https, listed, or_empty, words
from reconcilers.containers.policy import Policy


def _registry(value: str) -> str:
    found = HOST_PORT.fullmatch(value if ":" in value.rpartition("]")[2] else f"{value}:443")
    if found is None or int(found[2]) > 65535 or "/" in value:
        raise ValueError('is not host:port such as "mcr.example:8443"')
    return value


def _host_name() -> str:
    return socket.gethostname().partition(".")[0].lower()


class ApiSettings(Model):
    """Where the API is served."""

    socket: AbsolutePath = Field(default="/run/mcp/agent.sock", description="Unix socket, 0600 in a folder of its own.")
    listen: Annotated[str, or_empty(host_port)] = Field(
        default="", description="host:port for TLS 1.3 over TCP, where callers show who they are; empty: none."
    )
    names: Annotated[tuple[str, ...], BeforeValidator(listed)] = Field(
        default=(),
        description="Names and addresses in the agent's certificate, beside localhost, the host's and `listen`'s.",
    )
    cert_file: MaybePath = Field(
        default="", description="PEM of a certificate and its chain to serve instead; read again when it changes."
    )
    key_file: MaybePath = Field(default="", description="Its key, PEM: an ECDSA one, with which TLS 1.2 is refused.")
    max_message_bytes: int = Field(default=4 * 1024 * 1024, ge=1024, description="Of one message to the agent.")
    max_connections: int = Field(
        default=512,
        ge=1,
        description="From all callers over TCP, and as many over the socket; more are closed at once.",
    )
    max_streams: int = Field(default=256, ge=1, description="Calls at once over one connection; more have to wait.")
    max_calls_per_caller: int = Field(default=256, ge=1, description="Calls at once of one caller; more are refused.")


class RegistrySettings(Model):
    """Where desired state is kept."""

    url: str = Field(default="", description="SQLAlchemy URL; empty: SQLite at <state_dir>/registry.db.")


class PodmanSettings(Model):
    """The container engine."""

    socket: AbsolutePath = Field(default="/run/podman/podman.sock", description="podman's API socket.")
    relist_seconds: Seconds = Field(default=30.0, description="Safety net below the engine's events.")
    timeout_seconds: Seconds = Field(default=30.0, description="Of one call; a pull has no such limit.")


class ImageSettings(Model):
    """How images come to the node, and go."""

    check_seconds: Seconds = Field(
        default=300.0,
        description='Between two questions what a tag stands for, where a definition says pull = "newer".',
    )
    silence_seconds: Seconds = Field(default=1800.0, description="podman may say nothing for so long during a pull.")
    keep_seconds: Seconds = Field(
        default=604800.0, description="An image that MCP brought stays so long after its use."
    )
    keep_last: int = Field(
        default=2, ge=0, description="So many unused images of each repository stay longer, for a rollback."
    )
    collect_seconds: Seconds = Field(default=3600.0, description="Between two looks for images to remove.")


class ImageRegistrySettings(Model):
    """A registry of images, by the host:port that references begin with."""

    username: str = Field(default="", description='Who we are there; with `token_file` anybody, which is "mcp".')
    password_file: MaybePath = Field(default="", description="File with the password; read anew at each pull.")
    token_file: MaybePath = Field(
        default="", description="File with a token that serves as password; read anew at each pull."
    )
    tls_verify: bool = Field(default=True, description="false: any certificate will do, and plain HTTP.")

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if self.password_file and self.token_file:
            raise ValueError("has a password_file and a token_file: say one of them")
        if bool(self.username) != bool(self.password_file) and not self.token_file:
            raise ValueError("has one of username and password_file: say both")
        return self


class ProxySettings(Model):
    """mc-proxy."""

    socket: MaybePath = Field(default="", description="Its admin socket; empty: this node routes nothing.")
    cert_dir: AbsolutePath = Field(default="/srv/mc-proxy/certs", description="Where it finds certificates.")
    interval_seconds: Seconds = Field(default=0.5, description="Between two looks at its routes: it has no events.")
    timeout_seconds: Seconds = Field(default=10.0, description="Of one call.")


class FileSettings(Model):
    """Files that are pushed."""

    root: MaybePath = Field(
        default="", description="They lie in <root>/<service>; empty: where `defaults.service_root` says."
    )
    max_bytes: int = Field(default=16 * 1024 * 1024, ge=1, le=1 << 30, description="Of one file.")
    keep: int = Field(default=10, ge=0, le=1000, description="So many earlier ones of each path stay, for a rollback.")


class PortSettings(Model):
    """Host ports for routes."""

    low: int = Field(default=10000, ge=1024, le=65535, description="First port given to a route.")
    high: int = Field(default=60000, ge=1024, le=65535, description="Last port given to a route.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) is above high ({self.high})")
        return self


IssuerKind = Literal["embedded", "acme", "metacrypt"]


class CertificateSettings(Model):
    """Certificates of l7 routes, and who issues them."""

    issuer: IssuerKind = Field(
        default="embedded", description="The agent's own CA, or the one of the section `acme` or `metacrypt`."
    )
    fallback: Literal["", "embedded", "acme", "metacrypt"] = Field(
        default="", description="Asked where `issuer` fails and no certificate serves for long; empty: nobody."
    )
    lifetime_days: float = Field(
        default=90.0, gt=0, le=3650, description="What is asked for; renewed at two thirds of what is given."
    )
    retry_first_seconds: Seconds = Field(default=3600.0, description="After a failure of `issuer`; doubles with each.")
    retry_most_seconds: Seconds = Field(default=86400.0, description="The longest pause, unless the issuer wants more.")
    per_hour: int = Field(
        default=60, ge=1, description="Certificates that one outside issuer is asked for, over all services."
    )


class AcmeSettings(Model):
    """An ACME server: Let's Encrypt, step-ca, Metacrypt."""

    directory: Annotated[str, or_empty(https)] = Field(
        default="", description="URL of its directory; to name it is to agree to its terms of service."
    )
    ca_file: MaybePath = Field(
        default="", description="PEM that its own TLS certificate leads to; empty: what this host trusts."
    )
    root_file: MaybePath = Field(
        default="", description="PEM that the certificates it issues must lead to; empty: the topmost it sends."
    )
    contact: str = Field(default="", description="E-mail address for its operator; empty: none.")
    eab_key_id: str = Field(default="", description="Key id of an external account binding; empty: none is needed.")
    eab_hmac_file: MaybePath = Field(
        default="", description="File with the binding's HMAC key, base64url as the CA gives it."
    )
    challenge_listen: Annotated[str, AfterValidator(host_port)] = Field(
        default="0.0.0.0:80", description="host:port where http-01 challenges are answered, while there are any."
    )
    timeout_seconds: Seconds = Field(default=90.0, description="For one certificate; its order goes on later.")


class MetacryptSettings(Model):
    """A CA of Metacrypt, by its REST interface."""

    url: Annotated[str, or_empty(https)] = Field(default="", description="Where it is, without a path.")
    ca_file: MaybePath = Field(
        default="", description="PEM that its own TLS certificate leads to; empty: what this host trusts."
    )
    root_file: MaybePath = Field(
        default="", description="PEM that the certificates it issues must lead to; empty: the topmost it sends."
    )
    token_file: MaybePath = Field(default="", description="File with the bearer token; read anew each time.")
    mount: str = Field(default="pki", description="The engine's mount.")
    issuer: str = Field(default="", description="Which of its CAs issues.")
    profile: str = Field(default="server", description="The profile of what is issued.")
    timeout_seconds: Seconds = Field(default=30.0, description="For one certificate.")


class RestartSettings(Model):
    """How often a container that ends is started again."""

    first_seconds: Seconds = Field(default=10.0, description="Between a start and the second restart; doubles.")
    most_seconds: Seconds = Field(default=300.0, description="The longest pause.")
    quiet_seconds: Seconds = Field(default=600.0, description="So long up, and its restarts are forgotten.")


class LoopSettings(Model):
    """The reconcilers' loops."""

    workers: int = Field(default=4, ge=1, le=64, description="Services each reconciler looks at side by side.")
    resync_seconds: Seconds = Field(default=600.0, description="Each service is looked at at least so often.")
    stop_seconds: Seconds = Field(default=20.0, description="To finish what was begun when told to stop.")
    flapping_changes: int = Field(
        default=10, ge=2, le=1000, description="A service mended so often within the window is mended more slowly."
    )
    flapping_window_seconds: Seconds = Field(
        default=600.0, description="So long in no need of mending, and a service does not flap any more."
    )


class SnapshotSettings(Model):
    """Snapshots of what the agent keeps; `mcp-agent snapshot` takes one."""

    folder: MaybePath = Field(
        default="", description="Where they go: better another disk; empty: <state_dir>/snapshots."
    )
    keep: int = Field(default=14, ge=1, description="So many of them; the oldest go.")
    max_age_seconds: Seconds = Field(
        default=46800.0, description="An older last one is warned of: two of the timer's six hours, and one to spare."
    )


def _program(command: tuple[str, ...]) -> tuple[str, ...]:
    if command and not command[0].startswith("/"):
        raise ValueError("does not begin with an absolute path")
    return command


class AlertSettings(Model):
    """Whom the agent tells of what happens, by itself."""

    command: Annotated[tuple[str, ...], BeforeValidator(words), AfterValidator(_program)] = Field(
        default=(),
        description="What is run with the event as JSON on its standard input; words, no shell; empty: none.",
    )
    kinds: Annotated[tuple[AlertKind, ...], BeforeValidator(listed)] = Field(
        default=("failed", "recovered", "flapping", "calmed"), description="Of which events."
    )
    timeout_seconds: Seconds = Field(default=30.0, description="Of one run; then it is killed.")
    quiet_seconds: float = Field(
        default=3600.0,
        ge=0,
        allow_inf_nan=False,
        description="The same is not told again for so long; then if it came again and lasts.",
    )


class MetricsSettings(Model):
    """Prometheus and health checks over HTTP."""

    listen: Annotated[str, AfterValidator(host_port)] = Field(
        default="127.0.0.1:9464", description="host:port of /metrics, /healthz and /readyz."
    )


class LogSettings(Model):
    """Structured logs on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="The least that is shown.")
    format: LogFormat = Field(default="auto", description="auto: text on a terminal, JSON elsewhere.")


class Settings(Model):
    """All settings of one agent."""

    node: Name = Field(default_factory=_host_name, description="This node's name; default: the host's.")
    state_dir: AbsolutePath = Field(default="/var/lib/mcp", description="The registry, the CA and open orders.")
    api: ApiSettings = ApiSettings()
    auth: AuthSettings = AuthSettings()
    mcias: MciasSettings = MciasSettings()
    jwt: JwtSettings = JwtSettings()
    audit: AuditSettings = AuditSettings()
    registry: RegistrySettings = RegistrySettings()
    podman: PodmanSettings = PodmanSettings()
    images: ImageSettings = ImageSettings()
    registries: dict[Annotated[str, AfterValidator(_registry)], ImageRegistrySettings] = Field(
        default_factory=dict, description="By the host:port that image references begin with."
    )
    mcproxy: ProxySettings = ProxySettings()
    defaults: Defaults = Defaults()
    policy: Policy = Policy()
    files: FileSettings = FileSettings()
    ports: PortSettings = PortSettings()
    certs: CertificateSettings = CertificateSettings()
    acme: AcmeSettings = AcmeSettings()
    metacrypt: MetacryptSettings = MetacryptSettings()
    restarts: RestartSettings = RestartSettings()
    loop: LoopSettings = LoopSettings()
    snapshot: SnapshotSettings = SnapshotSettings()
    alerts: AlertSettings = AlertSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()

    @property
    def registry_url(self) -> str:
        """Where the registry is, with the default filled in."""
        return self.registry.url or f"sqlite:///{Path(self.state_dir) / 'registry.db'}"


def _sections() -> Iterator[tuple[str, type[Model]]]:
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Model):
            yield name, field.annotation


_TABLES: Tables = {
    Settings: ("mcp-agent.toml", "at the top, before the first table"),
    ImageRegistrySettings: ("a registry", 'in [registries."host:port"]'),
    **{section: (f"[{name}]", f"in [{name}]") for name, section in _sections()},
}


def variables() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every variable and the path of the setting that it overrides."""
    sections = dict(_sections())
    for name in Settings.model_fields:
        if name in sections:
            for inner in sections[name].model_fields:
                yield f"MCP_{name}_{inner}".upper(), (name, inner)
        elif name != "registries":
            yield f"MCP_{name}".upper(), (name,)


def load(path: Path, environ: Mapping[str, str]) -> Settings:
    """The settings in `path` with those of `environ` on top. Raises Refused with all that is wrong with either."""
    try:
        settings, _ = read(path.read_bytes(), str(path), Settings, _TABLES)
    except OSError as error:
        raise Refused(f"the settings {path} cannot be read: {error.strerror}") from error
    except InvalidManifest as error:
        raise Refused(str(error)) from error
    document = _overlay(settings.model_dump(exclude_unset=True), environ)
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        found = complaints(error, document, _TABLES)
        raise Refused("\n".join(f"{_blamed(one, environ)}: {one.message}" for one in found)) from error


def _overlay(document: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """`document` with what `environ` overrides. Values are text: the models read numbers out of it."""
    result = {key: dict(value) if isinstance(value, dict) else value for key, value in document.items()}
    for variable, path in variables():
        if variable in environ:
            target = result.setdefault(path[0], {}) if len(path) == 2 else result
            target[path[-1]] = environ[variable]
    return result


def _blamed(complaint: Complaint, environ: Mapping[str, str]) -> str:
    """The variables that are to blame: the file was right by itself."""
    place = complaint.location
    return ", ".join(name for name, path in variables() if name in environ and path[: len(place)] == place)
