"""The reference is complete and current."""

import re
from pathlib import Path

import click
import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from api import locate, manifest
from api.manifest import load
from api.notation import toml_value
from api.spec import (
    BuildSpec,
    ComponentSpec,
    HealthSpec,
    RouteSpec,
    ServiceSpec,
    SnapshotSpec,
    UpdateSpec,
)
from scripts import docs

DEFINITION = Path("docs/reference/definition.md")
SECTIONS: dict[str, type[BaseModel]] = {
    "The service": ServiceSpec,
    "build": BuildSpec,
    "snapshot": SnapshotSpec,
    "components": ComponentSpec,
    "health": HealthSpec,
    "update": UpdateSpec,
    "routes": RouteSpec,
}


def section(title: str) -> str:
    return DEFINITION.read_text().split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def rows(title: str) -> list[list[str]]:
    lines = [line for line in section(title).splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_the_command_reference_is_what_the_commands_say() -> None:
    assert docs.TARGET.read_text() == docs.document(), "run: make generate"


def test_every_command_says_what_it_prints_as_json() -> None:
    assert set(docs.REPORTS) == set(docs.every_command(click.Context(docs.main.cli)))


@pytest.mark.parametrize("title", SECTIONS)
def test_every_field_of_a_definition_is_described_in_its_order(title: str) -> None:
    assert [row[0].strip("`") for row in rows(title)] == list(SECTIONS[title].model_fields)


@pytest.mark.parametrize("title", SECTIONS)
def test_every_field_of_a_definition_is_described_with_type_default_and_example(title: str) -> None:
    for name, kind, default, meaning, example in rows(title):
        field = SECTIONS[title].model_fields[name.strip("`")]
        assert kind
        assert meaning
        assert ("required" in default) == field.is_required()
        if field.default not in (PydanticUndefined, None):
            value = field.get_default()
            written = "none" if name == "`routes`" else toml_value(list(value) if isinstance(value, tuple) else value)
            assert written in default
        assert example or meaning.startswith("See ")


def test_every_example_of_a_field_is_valid() -> None:
    tables = {"The service": "", "components": "", "snapshot": "[snapshot]\n", "build": "[build.images]\n"}
    for title in SECTIONS:
        for name, _, _, _, example in rows(title):
            field, value = name.strip("`"), example.strip("`").replace("\\|", "|")
            if not value:
                continue
            line = value if title == "build" else f"{field} = {value}"
            component = (
                '[[components]]\nname = "a"\n' if (title, field) != ("components", "name") else "[[components]]\n"
            )
            head = "" if (title, field) == ("The service", "name") else 'name = "a"\n'
            if field == "secret_env":
                line = f'env = ["DB_PASSWORD=x"]\n{line}'
            check = "" if field in ("http", "tcp", "exec") else 'http = "/"\n'
            text = {
                "The service": f"{head}{line}\n{component}",
                "components": f'{head}{component}{line}\n[[components]]\nname = "db"\n',
                "health": f"{head}{component}[components.health]\n{check}{line}\n",
                "update": f"{head}{component}[components.update]\n{line}\n",
                "routes": f"{head}{component}[[components.routes]]\n{'' if field == 'port' else 'port = 1'}\n{line}\n",
            }.get(title, f"{head}{component}{tables.get(title, '')}{line}\n")
            assert load(text, example).spec


def test_the_first_example_is_a_whole_definition() -> None:
    example = DEFINITION.read_text().split("```toml\n", 1)[1].split("```", 1)[0]
    assert load(example, "definition.md").spec.name == "metacrypt"


def test_limits_are_the_ones_in_force() -> None:
    limits = " ".join(section("Limits").split())
    assert manifest.MAX_BYTES == 1024**2
    assert f"number at most {locate.MAX_KEY_LENGTH} characters" in limits
    assert f"dotted key at most {locate.MAX_KEY_PARTS} parts" in limits
    assert f"nest at most {locate.MAX_NESTING} deep" in limits


def test_links_lead_somewhere() -> None:
    for page in (DEFINITION, docs.TARGET):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert (page.parent / link).exists(), link
