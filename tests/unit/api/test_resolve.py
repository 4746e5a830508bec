"""What a node makes of a definition."""

import pytest

from api.errors import InvalidSpec
from api.resolve import Defaults, resolve
from api.spec import ComponentSpec, RestartPolicy, RouteMode, RouteSpec, ServiceSpec, container_name

DEFAULTS = Defaults(registry="mcr.example:8443", zone="zone.example")


def component(**fields: object) -> ComponentSpec:
    return ComponentSpec.model_validate({"name": "api", "image": "x:1", **fields})


def service(*components: ComponentSpec, **fields: object) -> ServiceSpec:
    return ServiceSpec.model_validate({"name": "docs", "components": components or (component(),), **fields})


def test_what_the_definition_leaves_open_comes_from_the_node() -> None:
    resolved = resolve(service(), DEFAULTS).components[0]
    assert (resolved.network, resolved.user, resolved.restart) == ("mcpnet", "0:0", RestartPolicy.UNLESS_STOPPED)
    assert resolved.volumes == ("/srv/docs:/srv/docs",)
    assert resolved.derived_volume == "/srv/docs"


def test_named_volumes_replace_the_derived_one_and_an_empty_list_means_none() -> None:
    for volumes in ((), ("/a:/b:ro",)):
        resolved = resolve(service(component(volumes=volumes)), DEFAULTS).components[0]
        assert resolved.volumes == volumes
        assert resolved.derived_volume == ""


def test_images_are_derived_from_registry_service_component_and_version() -> None:
    spec = service(
        ComponentSpec(name="api"),
        ComponentSpec(name="web", version="v2"),
        ComponentSpec(name="x", image="y:1"),
        version="v1",
    )
    images = [resolved.image for resolved in resolve(spec, DEFAULTS).components]
    assert images == ["mcr.example:8443/docs:v1", "mcr.example:8443/docs-web:v2", "y:1"]


@pytest.mark.parametrize(
    ("spec", "defaults", "field", "words"),
    [
        (service(ComponentSpec(name="api")), DEFAULTS, "components[0].image", "neither an image nor a version"),
        (service(component(), ComponentSpec(name="b"), version="v1"), Defaults(), "components[1].image", "registry"),
        (service(component(image="x:latest")), DEFAULTS, "components[0].image", "tagged latest"),
        (service(component(image="host:5000/x")), DEFAULTS, "components[0].image", "no tag"),
        (
            service(component(routes=({"port": 443}, {"name": "b", "port": 443}))),
            DEFAULTS,
            "components.routes",
            "both want docs.svc.zone.example on listener :443",
        ),
    ],
)
def test_what_cannot_be_resolved_is_refused_with_its_field(
    spec: ServiceSpec, defaults: Defaults, field: str, words: str
) -> None:
    with pytest.raises(InvalidSpec, match=words) as caught:
        resolve(spec, defaults)
    assert caught.value.field == field


def test_a_digest_needs_no_tag_and_latest_is_the_nodes_choice() -> None:
    digest = "x@sha256:" + "0" * 64
    assert resolve(service(component(image=digest)), DEFAULTS).components[0].image == digest
    loose = Defaults(allow_latest=True)
    assert resolve(service(component(image="host:5000/x")), loose).components[0].image == "host:5000/x:latest"


@pytest.mark.parametrize(
    ("routes", "variables"),
    [
        ((RouteSpec(port=1),), [("PORT",)]),
        ((RouteSpec(name="rest-api", port=1),), [("PORT", "PORT_REST_API")]),
        ((RouteSpec(name="rest", port=1), RouteSpec(port=2)), [("PORT_REST",), ("PORT",)]),
        ((RouteSpec(name="rest", port=1), RouteSpec(name="grpc", port=2)), [("PORT_REST",), ("PORT_GRPC",)]),
    ],
)
def test_routes_name_the_variables_that_carry_their_port(
    routes: tuple[RouteSpec, ...], variables: list[tuple[str, ...]]
) -> None:
    resolved = resolve(service(component(routes=routes)), DEFAULTS)
    assert [route.variables for route in resolved.routes] == variables


def test_a_route_without_a_hostname_has_the_services_name_in_the_zone() -> None:
    route = resolve(service(component(routes=(RouteSpec(port=8443, mode=RouteMode.L7),))), DEFAULTS).routes[0]
    assert (route.listener, route.hostname) == (":8443", "docs.svc.zone.example")


def test_equal_service_and_component_names_are_not_doubled() -> None:
    assert container_name("mc-proxy", "mc-proxy") == "mc-proxy"
    assert container_name("mc", "proxy") == "mc-proxy"
