"""Differences are complete, read well, and show no secret."""

from typing import Any

import pytest
from hypothesis import given
from pydantic import BaseModel

from api.diff import diff
from api.manifest import dump, load
from api.secrecy import MASKED, looks_secret, mask
from api.spec import ComponentSpec, HealthSpec, RouteSpec, ServiceSpec
from api.wire import definition_to_wire, from_wire
from tests.unit.api.definitions import full, services


def walk(model: BaseModel, path: str = "") -> list[tuple[str, BaseModel, str]]:
    """Every field of a definition and of all tables within it."""
    found = []
    for name in type(model).model_fields:
        value = getattr(model, name)
        here = f"{path}.{name}" if path else name
        found.append((here, model, name))
        if isinstance(value, BaseModel):
            found += walk(value, here)
        elif isinstance(value, tuple):
            for item in value:
                if isinstance(item, BaseModel):
                    found += walk(item, f"{here}[{getattr(item, 'name', '')}]")
    return found


def without(spec: BaseModel, owner: BaseModel, field: str) -> BaseModel:
    """The definition with that field of that table back at its default, or another text where it has none."""
    if spec is owner:
        info = type(spec).model_fields[field]
        value = getattr(spec, field)
        other: Any = value + 1 if isinstance(value, int) else f"{value}x"
        update = {field: other if info.is_required() else info.get_default(call_default_factory=True)}
        # What marks an entry needs one.
        return spec.model_copy(update={**update, **({"secret_env": ()} if field == "env" else {})})
    updates: dict[str, Any] = {}
    for name in type(spec).model_fields:
        value = getattr(spec, name)
        if isinstance(value, BaseModel):
            updates[name] = without(value, owner, field)
        elif isinstance(value, tuple):
            updates[name] = tuple(without(v, owner, field) if isinstance(v, BaseModel) else v for v in value)
    return spec.model_copy(update=updates)


FULL = full()
NEVER_ABSENT = {(ServiceSpec, "components"), *((HealthSpec, name) for name in ("http", "tcp", "exec"))}
FIELDS = walk(FULL)


@pytest.mark.parametrize(("path", "owner", "field"), FIELDS, ids=[path for path, _, _ in FIELDS])
def test_no_field_is_forgotten_by_the_difference_the_export_or_the_wire(path: str, owner: Any, field: str) -> None:
    same = [other for _, other, name in FIELDS if type(other) is type(owner) and name == field]
    absent = type(owner).model_fields[field].get_default(call_default_factory=True)
    assert any(getattr(other, field) != absent for other in same), "full() must set every field"
    if getattr(owner, field) == absent or (type(owner), field) in NEVER_ABSENT:
        return
    spec = FULL
    changed = without(spec, owner, field)
    assert isinstance(changed, ServiceSpec)
    assert changed != spec
    assert any(change.path.startswith(path.rsplit("[", 1)[0]) for change in diff(spec, changed))
    # Somebody depends on that name, and what is changed here is not validated.
    for one in (spec, changed) if (type(owner), field) != (ComponentSpec, "name") else (spec,):
        assert load(dump(one), "f").spec == one
        assert from_wire(definition_to_wire(one), ServiceSpec) == one


@given(services, services)
def test_there_are_differences_exactly_where_two_definitions_differ(old: ServiceSpec, new: ServiceSpec) -> None:
    assert bool(diff(old, new)) == (old != new)
    assert not diff(new, new)


@given(services, services)
def test_the_way_back_is_the_mirror_image(old: ServiceSpec, new: ServiceSpec) -> None:
    there = {(change.path, change.old, change.new) for change in diff(old, new)}
    back = {(change.path, change.new, change.old) for change in diff(new, old)}
    assert there == back


def component(name: str, **fields: Any) -> ComponentSpec:
    return ComponentSpec(name=name, image=f"{name}:v1", **fields)


def lines(old: ServiceSpec | None, new: ServiceSpec) -> list[str]:
    return [f"{change.path}: {change.old} -> {change.new}" for change in diff(old, new)]


def test_components_are_matched_by_name_and_routes_by_key() -> None:
    old = ServiceSpec(name="a", components=(component("web", routes=(RouteSpec(port=1), RouteSpec(name="x", port=2))),))
    new = ServiceSpec(
        name="a",
        components=(component("db"), component("web", routes=(RouteSpec(name="x", port=3), RouteSpec(port=1)))),
    )
    assert lines(old, new) == [
        "components[web].routes[x].port: 2 -> 3",
        'components[web].routes: ["default", "x"] -> ["x", "default"]',
        'components[db].name: None -> "db"',
        'components[db].image: None -> "db:v1"',
    ]


def test_a_removed_component_shows_what_went() -> None:
    old = ServiceSpec(name="a", components=(component("web"), component("db", env=("A=1",))))
    new = ServiceSpec(name="a", components=(component("web"),))
    assert lines(old, new) == [
        'components[db].name: "db" -> None',
        'components[db].image: "db:v1" -> None',
        'components[db].env.A: "1" -> None',
    ]


def test_a_first_definition_shows_all_that_it_sets() -> None:
    assert lines(None, ServiceSpec(name="a", active=False, components=(component("web", volumes=()),))) == [
        'name: None -> "a"',
        "active: true -> false",
        'components[web].name: None -> "web"',
        'components[web].image: None -> "web:v1"',
        "components[web].volumes: None -> []",
    ]


def test_environments_are_compared_by_variable_and_secrets_are_masked() -> None:
    old = ServiceSpec(name="a", components=(component("web", env=("A=1", "B=2", "DB_PASSWORD=one")),))
    new = ServiceSpec(name="a", components=(component("web", env=("A=1", "B=3", "DB_PASSWORD=two", "C=")),))
    assert lines(old, new) == [
        'components[web].env.B: "2" -> "3"',
        f'components[web].env.DB_PASSWORD: "{MASKED}" -> "{MASKED}"',
        'components[web].env.C: None -> ""',
    ]


def test_another_order_of_the_environment_is_a_difference_and_shows_no_secret() -> None:
    old = ServiceSpec(name="a", components=(component("web", env=("A=1", "API_TOKEN=one")),))
    new = ServiceSpec(name="a", components=(component("web", env=("API_TOKEN=one", "A=1")),))
    assert lines(old, new) == [f'components[web].env: ["A=1", "API_TOKEN={MASKED}"] -> ["API_TOKEN={MASKED}", "A=1"]']


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("A=1", "A=1"),
        ("DB_PASSWORD=x=y", f"DB_PASSWORD={MASKED}"),
        ("--api-key=x", f"--api-key={MASKED}"),
        ("GITHUB_TOKEN=\nx", f"GITHUB_TOKEN={MASKED}"),
        ("DATABASE_URL=postgres://me:pw@host/db", f"DATABASE_URL=postgres://me:{MASKED}@host/db"),
        ("https://host/path", "https://host/path"),
        ("SECRET=", "SECRET="),
    ],
)
def test_secrets_are_masked(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize(
    "name", ["PASSWORD", "MYSQL_PWD", "apikey", "SSH_PRIVATE_KEY", "client-secret", "PASSPHRASE", "BASIC_AUTH"]
)
def test_names_of_secrets_are_known(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize("name", ["KEYBOARD", "PATH", "AUTHOR", "COMPASS_DIR", "LOG_LEVEL", "BYPASS"])
def test_ordinary_names_are_not_taken_for_secrets(name: str) -> None:
    assert not looks_secret(name)
