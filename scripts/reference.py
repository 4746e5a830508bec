"""Writes docs/reference/agent.md from the code. With --check, only says whether the file is current."""

import ast
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from inspect import getsource
from pathlib import Path
from textwrap import dedent

from pydantic.fields import FieldInfo

from api.conditions import ConditionType, Reason, Status
from api.model import Model
from api.notation import toml_value
from api.service import Certificate, Service
from controller.metrics import Metrics
from controller.settings import ImageRegistrySettings, Settings
from controller.wakes import ALL

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "agent.md"

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_SERVICE = Service.model_construct(
    name="hello", conditions=(), certificates=(Certificate.model_construct(hostname="hello", not_after=_NOW),)
)
"""Has what there are series of only while there is a service."""

HEAD = """\
# The agent: settings, conditions, metrics

<!-- Written by scripts/reference.py from the code: change it there. -->
"""


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_settings(), *_conditions(), *_metrics()]) + "\n"


def _settings() -> Iterator[str]:
    yield "## Settings\n"
    yield "`mcp-agent serve -c mcp-agent.toml`; a variable overrides the file."
    yield "[deploy/mcp-agent.toml](../../deploy/mcp-agent.toml) is the commented example.\n"
    yield "| Setting | Variable | Default | Meaning |\n|---|---|---|---|"
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Model):
            for inner, inner_field in section.model_fields.items():
                yield _setting(f"{name}.{inner}", inner_field)
        elif name == "registries":
            for inner, inner_field in ImageRegistrySettings.model_fields.items():
                yield _setting(f'registries."host:port".{inner}', inner_field, variable=False)
        else:
            yield _setting(name, field)
    yield ""


def _setting(path: str, field: FieldInfo, *, variable: bool = True) -> str:
    default = "" if field.default_factory else f"`{_toml(field.default)}`"
    name = f"`MCP_{path.replace('.', '_').upper()}`" if variable else ""
    return f"| `{path}` | {name} | {default} | {field.description} |"


def _toml(value: object) -> str:
    if isinstance(value, float):
        return str(value)
    return toml_value(list(value) if isinstance(value, tuple) else value)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _conditions() -> Iterator[str]:
    yield "## Conditions\n"
    yield (
        "As in Kubernetes' API conventions: type, status ("
        + ", ".join(f"`{status}`" for status in Status)
        + "), reason,"
    )
    yield "message, observed generation, last transition. `Unknown` means that it could not be observed.\n"
    yield "| Condition | True when |\n|---|---|"
    yield from (f"| `{member}` | {text} |" for member, text in _documented(ConditionType))
    yield "\n| Reason | Meaning | `apply` |\n|---|---|---|"
    for member, text in _documented(Reason):
        assert isinstance(member, Reason)
        yield f"| `{member}` | {text} | {'fails' if member.needs_a_person else ''} |"
    yield ""


def _documented(enum: type[StrEnum]) -> Iterator[tuple[StrEnum, str]]:
    """Each member with the docstring below it, which the interpreter does not keep."""
    (definition,) = ast.parse(dedent(getsource(enum))).body
    assert isinstance(definition, ast.ClassDef)
    for statement, text in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(statement, ast.Assign) and isinstance(target := statement.targets[0], ast.Name):
            assert isinstance(text, ast.Expr), f"{target.id} has no docstring"
            assert isinstance(text.value, ast.Constant), f"{target.id} has no docstring"
            yield enum[target.id], str(text.value.value)


def _metrics() -> Iterator[str]:
    yield "## Metrics\n"
    yield f"On `/metrics`. `reconciler` is one of {_listed(ALL)}."
    yield "Beside these there are those of Prometheus' Python client about the process and the interpreter.\n"
    yield "| Metric | Type | Labels | Meaning |\n|---|---|---|---|"
    metrics = Metrics(ALL)
    metrics.watch_services(lambda: (_SERVICE,))
    for family in metrics.registry.collect():
        if family.name.startswith("mcp_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
            yield f"| `{name}` | {family.type} | {', '.join(labels)} | {family.documentation} |"


def main() -> int:
    """Writes or checks the page; returns the exit code."""
    if "--check" not in sys.argv:
        PAGE.write_text(page())
    elif PAGE.read_text() != page():
        print("docs/reference/agent.md is not what the code says: run 'make generate' and commit.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
