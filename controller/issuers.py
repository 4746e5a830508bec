"""Makes the issuers of certificates that the settings name, or says what is missing for it."""

from datetime import timedelta
from pathlib import Path

from api.errors import Refused
from controller.settings import IssuerKind, Settings
from reconcilers.base import Clock
from reconcilers.certs.acme import Acme, AcmeSettings, state_folder
from reconcilers.certs.ca import EmbeddedCa
from reconcilers.certs.issuer import Issuer
from reconcilers.certs.metacrypt import Metacrypt, MetacryptSettings
from reconcilers.certs.remote import RemoteSettings


def open_issuers(settings: Settings, ca: EmbeddedCa, clock: Clock) -> tuple[Issuer, Issuer | None]:
    """The issuer, and the one that stands in for it. Blocks. Raises Refused."""
    first, second = settings.certs.issuer, settings.certs.fallback
    if first == second:
        raise Refused(f'[certs] issuer and fallback are both "{first}"')
    return _open(settings, first, ca, clock), _open(settings, second, ca, clock) if second else None


def _open(settings: Settings, kind: IssuerKind, ca: EmbeddedCa, clock: Clock) -> Issuer:
    try:
        match kind:
            case "embedded":
                return ca
            case "acme":
                return Acme(_acme(settings), clock)
            case "metacrypt":
                return Metacrypt(_metacrypt(settings), clock)
    except (OSError, ValueError) as error:
        raise Refused(f"[{kind}] cannot be used: {error}") from error


def _acme(settings: Settings) -> AcmeSettings:
    acme = settings.acme
    _need("acme", "directory", acme.directory)
    if acme.eab_key_id:
        _need("acme", "eab_hmac_file", acme.eab_hmac_file)
    host, _, port = acme.challenge_listen.rpartition(":")
    return AcmeSettings(
        RemoteSettings(
            state_folder(Path(settings.state_dir), acme.directory),
            acme.directory,
            acme.ca_file,
            acme.root_file,
            settings.certs.per_hour,
            timedelta(seconds=acme.timeout_seconds),
        ),
        host.strip("[]"),
        int(port),
        acme.contact,
        acme.eab_key_id,
        acme.eab_hmac_file,
    )


def _metacrypt(settings: Settings) -> MetacryptSettings:
    metacrypt = settings.metacrypt
    for name in ("url", "issuer", "token_file"):
        _need("metacrypt", name, getattr(metacrypt, name))
    return MetacryptSettings(
        RemoteSettings(
            Path(settings.state_dir) / "metacrypt",
            metacrypt.url,
            metacrypt.ca_file,
            metacrypt.root_file,
            settings.certs.per_hour,
            timedelta(seconds=metacrypt.timeout_seconds),
        ),
        metacrypt.issuer,
        metacrypt.token_file,
        metacrypt.mount,
        metacrypt.profile,
    )


def _need(section: str, name: str, value: str) -> None:
    if not value:
        raise Refused(f"[certs] names {section}, but [{section}] {name} is not set")
