"""The example definitions are documentation that is true."""

from pathlib import Path

import pytest

from api.manifest import dump, load
from api.resolve import Defaults, ResolvedService, resolve
from api.spec import ComponentSpec, HealthSpec, RouteSpec, ServiceSpec, UpdateSpec

FOLDER = Path("examples/services")
EXAMPLES = sorted(FOLDER.glob("*.toml"))
DEFAULTS = Defaults(registry="mcr.svc.mcp.metacircular.net:8443")


def resolved(name: str) -> ResolvedService:
    path = FOLDER / name
    return resolve(load(path.read_bytes(), str(path)).spec, DEFAULTS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_loads_resolves_and_survives_an_export(path: Path) -> None:
    spec = load(path.read_bytes(), str(path)).spec
    assert resolve(spec, DEFAULTS).components
    assert load(dump(spec), "export").spec == spec


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_says_what_it_shows(path: Path) -> None:
    assert path.read_text().startswith("# ")


def test_the_examples_use_every_field_that_a_definition_has() -> None:
    specs = [load(path.read_bytes(), str(path)).spec for path in EXAMPLES]
    components = [component for spec in specs for component in spec.components]
    routes = [route for component in components for route in component.routes]
    assert set().union(*(spec.model_fields_set for spec in specs)) == set(ServiceSpec.model_fields)
    assert set().union(*(component.model_fields_set for component in components)) == set(ComponentSpec.model_fields)
    health = [component.health for component in components if component.health]
    assert set().union(*(check.model_fields_set for check in health)) == set(HealthSpec.model_fields) - {"tls"}
    updates = [component.update for component in components if component.update]
    assert set().union(*(update.model_fields_set for update in updates)) == set(UpdateSpec.model_fields)
    assert set().union(*(route.model_fields_set for route in routes)) == set(RouteSpec.model_fields)


def test_what_the_comments_say_is_derived_is_derived_so() -> None:
    assert [component.image.rpartition("/")[2] for component in resolved("mcr.toml").components] == [
        "mcr:v1.2.1",
        "mcr-web:v1.3.2",
    ]
    assert [component.volumes for component in resolved("mcr.toml").components] == [("/srv/mcr:/srv/mcr",)] * 2
    assert [route.variables for route in resolved("mcr.toml").routes] == [("PORT_REST",), ("PORT_GRPC",), ("PORT",)]
    assert resolved("mc-proxy.toml").components[0].container_name == "mc-proxy"
    assert [component.container_name for component in resolved("metacrypt.toml").components] == [
        "metacrypt-api",
        "metacrypt-web",
    ]
    assert resolved("mcns.toml").routes[0].variables == ("PORT", "PORT_REST")
    assert resolved("hello.toml").routes[0].hostname == "hello.svc.mcp.metacircular.net"
    assert resolved("hello.toml").components[0].volumes == ()
    assert [port.protocol for port in resolved("mcns.toml").components[0].ports] == ["tcp", "udp"]
