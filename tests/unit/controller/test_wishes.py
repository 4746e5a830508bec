"""What a wish that is less than a definition makes of the one that is stored."""

from datetime import UTC, datetime

import pytest

from api.errors import NotFound
from api.resolve import Defaults
from api.service import Revision
from api.spec import ComponentSpec, ServiceSpec
from controller.wishes import earlier, rerun, with_active, with_component
from tests.unit.reconcilers.memory import newborn

NOW = datetime(2026, 11, 25, tzinfo=UTC)
DEFAULTS = Defaults(registry="reg.example:5000")


def shop(web: str = "x:1", db: str = "y:1", version: str = "v1") -> ServiceSpec:
    return ServiceSpec(
        name="shop",
        version=version,
        components=(ComponentSpec(name="web", image=web), ComponentSpec(name="db", image=db)),
    )


def revision(generation: int, spec: ServiceSpec, **digests: str) -> Revision:
    return Revision(generation=generation, actor="ann", at=NOW, spec=spec, digests=digests)


def test_active_is_set_of_a_service_or_of_one_component() -> None:
    assert not with_active(shop(), "", False).active
    quiet = with_active(shop(), "db", False)
    assert (quiet.active, quiet.runs("web"), quiet.runs("db")) == (True, True, False)
    assert with_active(quiet, "db", True) == shop()
    with pytest.raises(NotFound, match="it has web, db"):
        with_active(shop(), "api", False)


def test_one_component_is_taken_over_and_the_rest_stays_as_it_is_stored() -> None:
    merged = with_component(shop(), shop("x:2", "y:2", "v2"), "db")
    assert merged == shop("x:1", "y:2", "v1")
    more = ServiceSpec(name="shop", components=(ComponentSpec(name="api", image="z:1"),))
    assert [one.name for one in with_component(shop(), more, "api").components] == ["web", "db", "api"]


def test_a_rollback_without_a_number_goes_to_what_was_defined_otherwise() -> None:
    """Restarts are generations, too, and change nothing."""
    service = newborn(shop("x:2"), generation=4)
    kept = [revision(1, shop("x:0")), revision(2, shop("x:1")), revision(3, shop("x:2")), revision(4, shop("x:2"))]
    assert earlier(service, kept, 0).generation == 2
    assert earlier(service, kept, 1).generation == 1
    with pytest.raises(NotFound, match="there are 1 to 4"):
        earlier(service, kept, 7)
    with pytest.raises(NotFound, match="was never defined otherwise"):
        earlier(service, kept[2:], 0)


@pytest.mark.parametrize(
    ("image", "now", "again"),
    [
        ("reg.example:5000/web:v1", {"reg.example:5000/web:v1": "sha256:1"}, "reg.example:5000/web:v1"),
        ("reg.example:5000/web:v1", {"reg.example:5000/web:v1": "sha256:2"}, "reg.example:5000/web@sha256:1"),
        ("reg.example:5000/web:v1", {}, "reg.example:5000/web@sha256:1"),
        ("localhost/web:v1", {}, "localhost/web:v1"),
        ("localhost/web:v1", {"localhost/web:v1": "sha256:2"}, "localhost/web@sha256:1"),
        ("reg.example:5000/web@sha256:1", {}, "reg.example:5000/web@sha256:1"),
    ],
)
def test_a_revision_comes_back_with_the_image_that_it_ran(image: str, now: dict[str, str], again: str) -> None:
    spec = rerun(revision(1, shop(image), **{image: "sha256:1"}), DEFAULTS, now)
    assert spec == shop(again)


def test_a_derived_image_is_named_where_its_tag_moved() -> None:
    spec = ServiceSpec(name="shop", version="v1", components=(ComponentSpec(name="web"),))
    derived = "reg.example:5000/shop:v1"
    again = rerun(revision(1, spec, **{derived: "sha256:1"}), DEFAULTS, {derived: "sha256:2"})
    assert again.components[0].image == "reg.example:5000/shop@sha256:1"
