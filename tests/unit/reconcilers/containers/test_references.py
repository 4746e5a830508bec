"""What a reference says by itself, and which of an image's names and digests it means."""

import pytest

from reconcilers.containers.images.references import LocalImage, is_called, registry_of, repository_of


@pytest.mark.parametrize(
    ("reference", "registry", "repository"),
    [
        ("hello", "", "hello"),
        ("hello:v1", "", "hello"),
        ("team/hello:v1", "", "team/hello"),
        ("localhost/hello:v1", "localhost", "localhost/hello"),
        ("localhost:5000/hello", "localhost:5000", "localhost:5000/hello"),
        ("mcr.example:8443/team/hello:v1", "mcr.example:8443", "mcr.example:8443/team/hello"),
        ("mcr.example/hello@sha256:0a", "mcr.example", "mcr.example/hello"),
        ("mcr.example:8443/hello:v1@sha256:0a", "mcr.example:8443", "mcr.example:8443/hello"),
    ],
)
def test_a_reference_begins_with_its_registry_and_ends_with_tag_and_digest(
    reference: str, registry: str, repository: str
) -> None:
    assert (registry_of(reference), repository_of(reference)) == (registry, repository)


@pytest.mark.parametrize(
    ("name", "reference", "same"),
    [
        ("mcr.example/hello:v1", "mcr.example/hello:v1", True),
        ("mcr.example/hello:v10", "mcr.example/hello:v1", False),
        ("mcr.example/hello:latest", "mcr.example/hello", True),
        ("docker.io/library/hello:v1", "hello:v1", True),
        ("docker.io/library/othello:v1", "hello:v1", False),
        ("mirror.example/mcr.example/hello:v1", "mcr.example/hello:v1", False),
        ("mcr.example/hello:latest", "mcr.example/hello@sha256:0a", False),
    ],
)
def test_a_short_name_means_what_the_engine_made_of_it(name: str, reference: str, same: bool) -> None:
    assert is_called(name, reference) is same


IMAGE = LocalImage(
    "id",
    digests=("mcr.example/hello@sha256:1", "docker.io/library/hello@sha256:2", "localhost/hello@sha256:3"),
    manifest="sha256:1",
)


@pytest.mark.parametrize(
    ("reference", "digest"),
    [
        ("mcr.example/hello:v1", "sha256:1"),
        ("mcr.example/hello@sha256:1", "sha256:1"),
        ("hello:v1", "sha256:2"),
        ("localhost/hello:v1", ""),
        ("elsewhere.example/hello:v1", ""),
    ],
)
def test_a_digest_is_the_one_of_the_references_own_registry(reference: str, digest: str) -> None:
    assert IMAGE.digest_in(reference) == digest


def test_a_tag_that_stands_for_a_list_has_the_lists_digest() -> None:
    image = LocalImage("id", digests=("r.example/a@sha256:one", "r.example/a@sha256:list"), manifest="sha256:one")
    assert image.digest_in("r.example/a:v1") == "sha256:list"
