"""Who we are to a registry: the settings first, then REGISTRY_AUTH_FILE, then nothing; read anew, and told nobody."""

import json
from base64 import b64encode, urlsafe_b64decode
from pathlib import Path

import pytest

from reconcilers.containers.images.credentials import Access, Credentials, CredentialsUnreadable, Login


def sent(access: Access) -> object:
    """What the engine is told."""
    header = access.headers().get("X-Registry-Auth")
    return json.loads(urlsafe_b64decode(header)) if header else None


def auth_file(folder: Path, **auths: str) -> Path:
    path = folder / "auth.json"
    coded = {key: {"auth": b64encode(auth.encode()).decode()} for key, auth in auths.items()}
    path.write_text(json.dumps({"auths": coded}))
    return path


def test_a_password_is_read_at_each_pull_without_the_white_space_around_it(tmp_path: Path) -> None:
    path = tmp_path / "token"
    credentials = Credentials({"mcr:8443": Login("ann", str(path), "token_file")})
    for password in ("one", "two words"):
        path.write_text(f" {password}\n\n")
        access = credentials.access("mcr:8443/team/hello:v1")
        assert sent(access) == {"mcr:8443": {"username": "ann", "password": password}}
    assert access.source == 'registries."mcr:8443".token_file'


def test_a_password_is_for_its_own_registry_alone(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("sesame")
    credentials = Credentials({"mcr:8443": Login("ann", str(path))})
    for reference in ("mcr/hello:v1", "mcr:84430/hello:v1", "evil.example/mcr:8443/hello:v1", "hello:v1"):
        assert sent(credentials.access(reference)) is None


def test_a_password_is_not_in_what_an_access_prints(tmp_path: Path) -> None:
    assert "sesame" not in repr(Access("mcr:8443", "ann", "sesame", "somewhere"))


def test_without_a_password_a_registry_is_reached_as_the_settings_say(tmp_path: Path) -> None:
    credentials = Credentials({"mcr:8443": Login(tls_verify=False)})
    assert not credentials.access("mcr:8443/hello:v1").tls_verify
    assert credentials.access("mcr:9443/hello:v1").tls_verify


def test_the_settings_come_before_the_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("sesame")
    file = auth_file(tmp_path, **{"mcr:8443": "bob:other", "else:1": "bob:other"})
    credentials = Credentials({"mcr:8443": Login("ann", str(path))}, file)
    assert credentials.access("mcr:8443/hello:v1").username == "ann"
    access = credentials.access("else:1/hello:v1")
    assert sent(access) == {"else:1": {"username": "bob", "password": "other"}}
    assert access.source == str(file)


def test_of_several_entries_the_narrowest_counts(tmp_path: Path) -> None:
    auths = {"mcr:8443": "all:a", "mcr:8443/team": "team:b", "mcr:8443/team/hello": "hello:c:d", "mcr": "x:y"}
    credentials = Credentials({}, auth_file(tmp_path, **auths))
    found = {
        reference: (access.username, access.password)
        for reference in ("mcr:8443/x:1", "mcr:8443/team/x:1", "mcr:8443/team/hello:1", "mcr:8443/teams/x:1", "x:1")
        if (access := credentials.access(reference))
    }
    assert found == {
        "mcr:8443/x:1": ("all", "a"),
        "mcr:8443/team/x:1": ("team", "b"),
        "mcr:8443/team/hello:1": ("hello", "c:d"),
        "mcr:8443/teams/x:1": ("all", "a"),
        "x:1": ("", ""),
    }


def test_an_entry_without_a_password_is_left_to_podman(tmp_path: Path) -> None:
    path = tmp_path / "auth.json"
    path.write_text('{"auths": {"mcr:8443": {}}, "credHelpers": {"mcr:8443": "secretservice"}}')
    assert sent(Credentials({}, path).access("mcr:8443/hello:v1")) is None


@pytest.mark.parametrize("text", ["", "[]", '{"auths": {"r.example": {"auth": "%"}}}', '{"auths": {"r.example": 7}}'])
def test_a_file_that_is_no_auth_json_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "auth.json"
    path.write_text(text)
    with pytest.raises(CredentialsUnreadable) as unreadable:
        Credentials({}, path).access("r.example/a:1")
    assert unreadable.value.message == f"{path}, named by REGISTRY_AUTH_FILE, is no auth.json"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing, binary = tmp_path / "none", tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for path, why in ((missing, "cannot be read: No such file or directory"), (binary, "is no text")):
        with pytest.raises(CredentialsUnreadable) as unreadable:
            Credentials({"r.example": Login("ann", str(path))}).access("r.example/a:1")
        assert unreadable.value.message == f'{path}, named by registries."r.example".password_file, {why}'
