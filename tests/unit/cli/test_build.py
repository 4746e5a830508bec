"""What is built, under which name, out of what; and what is said where that cannot be known."""

import json
from pathlib import Path

import pytest
from click import UsageError

from api.errors import Refused
from api.manifest import InvalidManifest, Manifest, load
from cli.build_plan import Plan, Recipe, WantedImage
from cli.builder import Podman, Unknown
from cli.config import Building
from tests.unit.cli.plane import Mcp

REGISTRY = "mcr.example:8443"
SHOP = """\
name = "shop"
version = "v1.0.0"
[build.images]
shop = "Dockerfile.api"
shop-web = "Dockerfile.web"
[[components]]
name = "api"
[[components]]
name = "web"
version = "v1.0.1"
[[components]]
name = "db"
image = "docker.io/library/postgres:15"
"""


def shop(*changes: tuple[str, str]) -> Manifest:
    text = SHOP
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return load(text, "f")


def references(manifest: Manifest, component: str = "", registry: str = REGISTRY) -> list[str]:
    plan = Plan(manifest, Building(registry=registry), "mcp.toml")
    return [image.reference for image in plan.wanted(component)]


def problems(manifest: Manifest, component: str = "", registry: str = REGISTRY) -> list[str]:
    with pytest.raises(InvalidManifest) as caught:
        references(manifest, component, registry)
    return str(caught.value).splitlines()


def test_images_are_called_as_the_components_ask_for_them() -> None:
    derived = [f"{REGISTRY}/shop:v1.0.0", f"{REGISTRY}/shop-web:v1.0.1"]
    assert references(shop()) == derived
    assert references(shop(), "web") == derived[1:]
    said = shop(('name = "web"\nversion = "v1.0.1"', 'name = "web"\nimage = "other.example/team/shop-web:v2"'))
    assert references(said) == [derived[0], "other.example/team/shop-web:v2"]
    assert references(shop(), registry="localhost") == ["localhost/shop:v1.0.0", "localhost/shop-web:v1.0.1"]


def test_what_the_definition_does_not_build_is_none_of_our_business() -> None:
    assert references(shop(), "db") == []
    assert references(shop(('[build.images]\nshop = "Dockerfile.api"\nshop-web = "Dockerfile.web"\n', ""))) == []
    unversioned = shop(('shop-web = "Dockerfile.web"\n', ""), ('version = "v1.0.1"\n', ""))
    assert references(unversioned, registry=REGISTRY) == [f"{REGISTRY}/shop:v1.0.0"]


def test_the_same_image_of_several_components_is_one() -> None:
    both = ('name = "web"\nversion = "v1.0.1"', f'name = "web"\nimage = "{REGISTRY}/shop:v1.0.0"')
    assert references(shop(('shop-web = "Dockerfile.web"\n', ""), both)) == [f"{REGISTRY}/shop:v1.0.0"]


def test_an_image_is_wanted_under_one_name_at_a_time() -> None:
    other = ('name = "web"\nversion = "v1.0.1"', f'name = "web"\nimage = "{REGISTRY}/shop:v2"')
    manifest = shop(('shop-web = "Dockerfile.web"\n', ""), other)
    (problem,) = problems(manifest)
    assert problem == (
        f"f:4: build.images.shop: is wanted as {REGISTRY}/shop:v1.0.0 for api and {REGISTRY}/shop:v2 for web: "
        "build one at a time, as with mcp build shop/api"
    )
    assert references(manifest, "web") == [f"{REGISTRY}/shop:v2"]


def test_all_that_is_wrong_is_said_at_once_with_its_line() -> None:
    wrong = shop(('version = "v1.0.0"\n', ""), ('shop-web = "', 'shopweb = "'))
    assert problems(wrong) == [
        "f:4: build.images.shopweb: no component uses an image of that name, only shop, shop-web and postgres",
        'f:5: components[0].image: component "api" has neither an image nor a version to derive it from: set one',
    ]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("shop-web:v1", '"shop-web:v1" names no registry to push to: write registry/shop-web:v1'),
        ("team/shop-web:v1", '"team/shop-web:v1" names no registry to push to: write registry/team/shop-web:v1'),
        ("r.example/shop-web", 'image "r.example/shop-web" has no tag: pin a tag such as :v1.0.0 or a digest'),
        (
            "r.example/shop-web:v1@sha256:0a",
            '"r.example/shop-web:v1@sha256:0a" is pinned to a digest, which no build can promise: name a tag instead',
        ),
    ],
)
def test_an_image_that_cannot_be_pushed_is_refused(image: str, message: str) -> None:
    manifest = shop(('name = "web"\nversion = "v1.0.1"', f'name = "web"\nimage = "{image}"'))
    assert problems(manifest) == [f"f:10: components[1].image: {message}"]


def test_who_has_no_registry_or_no_such_component_is_told() -> None:
    (problem,) = problems(shop(), "web", registry="")
    assert problem == (
        "f:8: components[1].image: is left out, and mcp.toml does not say where images go: "
        "set build.registry, as the node's agent has it"
    )
    assert problems(shop(), "wep") == ['f:6: components: there is no component "wep", only api, web, db']


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    sources = tmp_path / "src" / "shop"
    sources.mkdir(parents=True)
    (sources / "Dockerfile.api").write_text("FROM scratch\nARG VERSION=dev\n")
    (sources / "Dockerfile.web").write_text("FROM scratch\n# ARG VERSION\n")
    return tmp_path / "src"


def out_of(workspace: Path | None, manifest: Manifest) -> tuple[Recipe, ...]:
    building = Building(workspace=str(workspace) if workspace else None, registry=REGISTRY)
    plan = Plan(manifest, building, "mcp.toml")
    return plan.recipes(plan.wanted())


def test_images_are_built_out_of_the_sources_of_their_service(workspace: Path) -> None:
    found = out_of(workspace, shop())
    assert [(one.dockerfile, one.context) for one in found] == [
        (workspace / "shop" / "Dockerfile.api", workspace / "shop"),
        (workspace / "shop" / "Dockerfile.web", workspace / "shop"),
    ]
    assert [one.takes_version for one in found] == [True, False]


def test_sources_that_are_not_there_are_named(workspace: Path) -> None:
    def refusal(*changes: tuple[str, str]) -> str:
        with pytest.raises(InvalidManifest) as caught:
            out_of(workspace, shop(*changes))
        return str(caught.value)

    top = ('name = "shop"\n', 'name = "shop"\npath = "{}"\n')
    assert refusal((top[0], top[1].format("x"))) == f"f:2: path: there is no folder {workspace}/x"
    assert "does not lie below the workspace" in refusal((top[0], top[1].format("../src/shop")))
    assert "does not lie below the workspace" in refusal((top[0], top[1].format("/etc")))
    unnamed = refusal(('name = "shop"\n', 'name = "cafe"\n'), ("shop = ", "cafe = "), ("shop-web = ", "cafe-web = "))
    assert unnamed.startswith(f"f:1: name: there is no folder {workspace}/cafe: fetch the sources")
    missing = refusal(("Dockerfile.web", "Dockerfile.wep"))
    assert (
        missing
        == f"f:5: build.images.shop-web: {workspace}/shop/Dockerfile.wep cannot be read: No such file or directory"
    )


def test_a_workspace_that_is_not_there_is_named(workspace: Path) -> None:
    with pytest.raises(UsageError, match="does not say where the sources are"):
        out_of(None, shop())
    with pytest.raises(UsageError, match="there is no folder"):
        out_of(workspace / "nope", shop())


IMAGE = WantedImage("Dockerfile", f"{REGISTRY}/shop:v1")


def podman(folder: Path, script: str) -> Podman:
    """A podman of another version, or one that misbehaves."""
    path = folder / "podman"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return Podman(Building(podman=(str(path),)), "mcp.toml", quiet=True)


@pytest.mark.parametrize(
    "answer",
    [
        "invalid status code from registry 404 (Not Found)",  # podman 4
        "name unknown: repository name not known to registry",  # podman 5
    ],
)
async def test_a_repository_that_its_registry_does_not_know_has_no_tags(tmp_path: Path, answer: str) -> None:
    said = f"Error: 1 error occurred:\n\t* getting repository tags: fetching tags list: {answer}\n"
    assert not await podman(tmp_path, f"printf '%s' '{said}' >&2; exit 125").has(IMAGE)


async def test_a_tag_is_there_where_it_is_listed(tmp_path: Path) -> None:
    def listing(*tags: str) -> Podman:
        return podman(tmp_path, f"echo '{json.dumps([{'Name': 'shop', 'Tags': tags or None}])}'")

    assert await listing("v0", "v1").has(IMAGE)
    assert not await listing("v1.1", "latest").has(IMAGE)
    assert not await listing().has(IMAGE)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'Error: pinging: 404 (Not Found)' >&2; exit 125", "is not known: pinging: 404 (Not Found)"),
        ("echo 'level=warning x' >&2; echo 'Error: denied' >&2; exit 1", f"known: denied; podman login {REGISTRY}"),
        ("echo not json", "podman's list of tags cannot be read"),
        ("exit 1", "podman did not say why"),
    ],
)
async def test_what_could_not_be_asked_is_not_absent(tmp_path: Path, script: str, words: str) -> None:
    with pytest.raises(Unknown) as caught:
        await podman(tmp_path, script).has(IMAGE)
    assert words in caught.value.message


async def test_a_podman_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(Refused) as caught:
        await Podman(Building(podman=("/nowhere/podman",)), "mcp.toml", quiet=True).has(IMAGE)
    assert caught.value.message == (
        "/nowhere/podman cannot be run: No such file or directory: "
        "install podman, or name it in build.podman of mcp.toml"
    )


async def test_a_tag_that_appears_during_the_build_is_not_pushed_over(
    folder: Path, offline: Mcp, workspace: Path
) -> None:
    (folder / "services").mkdir()
    (folder / "services" / "shop.toml").write_text(SHOP)
    podman(
        folder,
        f"""case $1 in
build) touch {folder}/built;;
push) touch {folder}/pushed;;
search) if test -e {folder}/built; then echo '[{{"Tags": ["v1.0.0"]}}]'; else echo '[]'; fi;;
esac""",
    )
    with offline.config.open("a") as config:
        config.write(f'[build]\nworkspace = "{workspace}"\nregistry = "{REGISTRY}"\npodman = ["{folder}/podman"]\n')
    ran = await offline("build", "shop", "-q")
    assert (ran.status, ran.stdout) == (5, "")
    assert ran.stderr == (
        f"mcp: {REGISTRY}/shop:v1.0.0 is not pushed: it came to exist while it was built here\n"
        f"not built: {REGISTRY}/shop-web:v1.0.1\n"
    )
    assert not (folder / "pushed").exists()


async def test_a_service_that_builds_nothing_is_told_how(folder: Path, offline: Mcp) -> None:
    (folder / "services").mkdir()
    (folder / "services" / "shop.toml").write_text(SHOP)
    ran = await offline("build", "shop/db")
    assert ran.status == 5
    assert ran.stderr.endswith(
        'build.images: names no image of component "db": write [build.images] with its image\'s name = "Dockerfile"\n'
    )
