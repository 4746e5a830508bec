"""The issuers that the settings name: which are made, and what is said where something is missing."""

from datetime import timedelta
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from api.errors import Refused
from controller.issuers import open_issuers
from controller.registry import utc_now
from controller.settings import Settings
from reconcilers.certs.ca import EmbeddedCa

ACME = {"directory": "https://acme.example/directory"}
METACRYPT = {"url": "https://metacrypt.example", "issuer": "infra", "token_file": "/etc/token"}


def opened(folder: Path, **sections: Any) -> list[str]:
    ca = EmbeddedCa.open(folder / "ca", "rift", utc_now)
    settings = Settings.model_validate({"node": "rift", "state_dir": str(folder), **sections})
    return [issuer.name for issuer in open_issuers(settings, ca, utc_now) if issuer is not None]


def test_the_embedded_ca_is_the_default(tmp_path: Path) -> None:
    assert opened(tmp_path) == ["CN=MCP CA of rift"]
    assert [path.name for path in tmp_path.iterdir()] == ["ca"]


def test_any_other_can_be_first_or_stand_in(tmp_path: Path) -> None:
    names = {"embedded": "CN=MCP CA of rift", "acme": f"ACME {ACME['directory']}"}
    names["metacrypt"] = f"Metacrypt {METACRYPT['url']} infra"
    for first, second in permutations(names, 2):
        certs = {"issuer": first, "fallback": second}
        assert opened(tmp_path, certs=certs, acme=ACME, metacrypt=METACRYPT) == [names[first], names[second]]


def test_what_is_kept_of_an_acme_server_is_for_nobody_else_to_read(tmp_path: Path) -> None:
    opened(tmp_path, certs={"issuer": "acme"}, acme=ACME)
    (folder,) = (tmp_path / "acme").iterdir()
    assert folder.name.startswith("acme.example-")
    assert {path.stat().st_mode & 0o077 for path in (folder, folder / "certificates")} == {0}


@pytest.mark.parametrize(
    ("sections", "complaint"),
    [
        ({"certs": {"issuer": "acme"}}, "[certs] names acme, but [acme] directory is not set"),
        ({"certs": {"fallback": "metacrypt"}}, "[certs] names metacrypt, but [metacrypt] url is not set"),
        ({"certs": {"fallback": "embedded"}}, '[certs] issuer and fallback are both "embedded"'),
        (
            {"certs": {"issuer": "acme"}, "acme": ACME | {"eab_key_id": "x"}},
            "[certs] names acme, but [acme] eab_hmac_file is not set",
        ),
        (
            {"certs": {"issuer": "acme"}, "acme": ACME | {"root_file": "/nowhere/root.pem"}},
            "[acme] cannot be used: [Errno 2] No such file or directory: '/nowhere/root.pem'",
        ),
    ],
)
def test_what_is_missing_is_one_sentence(tmp_path: Path, sections: dict[str, Any], complaint: str) -> None:
    with pytest.raises(Refused) as refused:
        opened(tmp_path, **sections)
    assert refused.value.message == complaint


def test_times_and_limits_come_from_the_settings(tmp_path: Path) -> None:
    ca = EmbeddedCa.open(tmp_path / "ca", "rift", utc_now)
    certs = {"issuer": "acme", "per_hour": 7}
    acme = ACME | {"timeout_seconds": 5, "challenge_listen": "[::1]:5002"}
    settings = Settings.model_validate({"node": "rift", "state_dir": str(tmp_path), "certs": certs, "acme": acme})
    made = open_issuers(settings, ca, utc_now)[0]._settings  # type: ignore[attr-defined]
    assert (made.challenge_host, made.challenge_port) == ("::1", 5002)
    assert (made.remote.per_hour, made.remote.patience) == (7, timedelta(seconds=5))
