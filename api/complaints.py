"""Says in a person's words what pydantic found wrong with a definition, or with another of our TOML files.

A sentence completes the field's path: `components[0].routes[0].port: must be a
whole number, not the text "8443": leave the quotes away`.
"""

import difflib
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, time
from typing import Any

from pydantic import BaseModel, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from api.access import TokenName
from api.fields import ImageName, Name, Version
from api.notation import field_path, toml_value
from api.secrecy import mask
from api.spec import (
    BuildSpec,
    ComponentSpec,
    HealthSpec,
    RouteSpec,
    ServiceSpec,
    SnapshotSpec,
    UpdateSpec,
)

_Location = tuple[int | str, ...]
_Context = Mapping[str, Any]

Tables = Mapping[type[BaseModel], tuple[str, str]]
"""What each table of a document is called, and where its fields are written; the document itself comes first."""

DEFINITION: Tables = {
    ServiceSpec: ("a service", "at the top, before the first table"),
    BuildSpec: ("[build]", "in [build]"),
    SnapshotSpec: ("[snapshot]", "in [snapshot]"),
    ComponentSpec: ("a component", "in [[components]]"),
    HealthSpec: ("[components.health]", "in [components.health]"),
    UpdateSpec: ("[components.update]", "in [components.update]"),
    RouteSpec: ("a route", "in [[components.routes]]"),
}
_EXAMPLES = {
    "name": 'name = "web"',
    "port": "port = 8443",
    "components": '[[components]] with a name = "web"',
    "nodes": "[nodes.rift] with an address",
    "address": 'address = "unix:///run/mcp/agent.sock"',
}


def _pattern(annotated: Any) -> str:
    return next(str(item.pattern) for item in annotated.__metadata__ if isinstance(item, StringConstraints))


_PATTERNS = {
    _pattern(Name): "must be lower case letters, digits and inner dashes, at most 63",
    _pattern(TokenName): "must be lower case letters, digits and inner .-_@, at most 63",
    _pattern(ImageName): 'must be an image\'s name without registry and tag, such as "metacrypt-web"',
    _pattern(Version): 'must be an image tag such as v1.0.0 (letters, digits, "_.-", at most 128)',
}

_A_KEY = "[key]"
"""What pydantic appends to the place of a free key that is itself wrong."""

_NUMBER = re.compile(r"\d+(\.\d+)?")

_SHOWN = 60
"""Characters of a wrong value that are shown."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing that is wrong with a definition."""

    location: _Location
    message: str

    @property
    def field(self) -> str:
        """The field's path; empty for the definition as a whole."""
        return field_path(_short(part) if isinstance(part, str) else part for part in self.location)


def complaints(
    error: ValidationError, document: Mapping[str, Any] | None = None, tables: Tables = DEFINITION
) -> tuple[Complaint, ...]:
    """All that is wrong, in the order found; `document` is what was validated, as its author wrote it."""
    found = []
    for details in error.errors(include_url=False):
        # A list is also called too short when it merely holds wrong items, which are reported themselves.
        if details["type"] == "too_short" and details["input"]:
            continue
        place, value = details["loc"], details["input"]
        if place[-1:] == (_A_KEY,):
            place = place[:-1]
        elif document is not None:
            value = _value_at(document, place)
        found.append(Complaint(place, _sentence(details, value, tables)))
    return tuple(found)


def _sentence(details: ErrorDetails, value: Any, tables: Tables) -> str:
    kind, location, context = details["type"], details["loc"], details.get("ctx", {})
    shown = _shown(value, location)
    if kind == "missing":
        return _missing(location, tables)
    if kind == "extra_forbidden":
        return _unknown_key(location, tables)
    if kind == "value_error":
        # A validator of one text says what that text is not; one of a table speaks for itself.
        return f"{shown} {context['error']}" if isinstance(value, str) else str(context["error"])
    if kind in ("enum", "literal_error"):
        return _not_one_of(context["expected"], value, shown)
    return f"{_WANTED.get(kind, _anything_else)(location, context)}, not {shown}{_hint(kind, value)}"


def _list_wanted(location: _Location, _: _Context) -> str:
    if location[-1] in ("components", "routes"):
        return f"must be written as [[{'.'.join(part for part in location if isinstance(part, str))}]] tables"
    return "must be a list in [ ]"


def _anything_else(_: _Location, __: _Context) -> str:
    return "must be something else"


def _header(name: object, container: str) -> str:
    return f"[[{name}]]" if container == "Tuple" else f"[{name}.<name>]"


_WANTED: Mapping[str, Callable[[_Location, _Context], str]] = {
    "string_type": lambda _, __: "must be text in quotes",
    "int_type": lambda _, __: "must be a whole number",
    "int_parsing": lambda _, __: "must be a whole number",
    "float_type": lambda _, __: "must be a number",
    "float_parsing": lambda _, __: "must be a number",
    "finite_number": lambda _, __: "must be a finite number",
    "bool_type": lambda _, __: "must be true or false",
    "bool_parsing": lambda _, __: "must be true or false",
    "tuple_type": _list_wanted,
    "model_type": lambda _, __: "must be a table",
    "dict_type": lambda _, __: "must be a table",
    "too_short": lambda location, context: f"needs at least one {_header(location[-1], context['field_type'])} table",
    "greater_than": lambda _, context: f"must be more than {context['gt']:g}",
    "greater_than_equal": lambda _, context: f"must be at least {context['ge']}",
    "less_than_equal": lambda _, context: f"must be at most {context['le']}",
    "string_pattern_mismatch": lambda _, context: _PATTERNS.get(context["pattern"], _anything_else(_, context)),
}
"""What a field must be, by pydantic's name for what is wrong with it."""


def _hint(kind: str, value: Any) -> str:
    match kind, value:
        case ("int_type", str()) if value.strip().isdecimal():
            return f": write {int(value)} without quotes"
        case ("float_type", str()) if _NUMBER.fullmatch(value.strip()):
            return f": write {value.strip()} without quotes"
        case ("bool_type", "true" | "false"):
            return f": write {value} without quotes"
        case ("string_type", bool() | int() | float()):
            return ": put it in quotes"
        case ("tuple_type", str()):
            return ": put it in [ ]"
    return ""


def _missing(location: _Location, tables: Tables) -> str:
    field = str(location[-1])
    owner, _ = tables[_model_at(location[:-1], tables)]
    return f"is missing: {owner} needs it, for example {_EXAMPLES.get(field, field)}"


def _unknown_key(location: _Location, tables: Tables) -> str:
    key = str(location[-1])
    model = _model_at(location[:-1], tables)
    owner, _ = tables[model]
    sentence = f"is not a field of {owner}"
    elsewhere = [place for other, (_, place) in tables.items() if other is not model and key in other.model_fields]
    close = difflib.get_close_matches(key[:_SHOWN], model.model_fields, n=1, cutoff=0.6)
    if elsewhere:
        return f"{sentence}: it belongs {' or '.join(elsewhere)}"
    if close:
        return f'{sentence}; did you mean "{close[0]}"?'
    return f"{sentence}; it knows {', '.join(model.model_fields)}"


def _not_one_of(expected: str, value: Any, shown: str) -> str:
    choices = [part.strip("'") for part in expected.replace(" or ", ", ").split(", ")]
    close = difflib.get_close_matches(value.lower()[:_SHOWN], choices, n=1) if isinstance(value, str) else []
    quoted = [f'"{choice}"' for choice in choices]
    listed = f"{', '.join(quoted[:-1])} or {quoted[-1]}"
    suggestion = f'; did you mean "{close[0]}"?' if close else ""
    return f"must be {listed}, not {shown}{suggestion}"


def _shown(value: Any, location: _Location) -> str:
    """The value as its author wrote it, but no longer than a line and without secrets."""
    if isinstance(value, str):
        # Whether its author marks it as secret, or meant to, cannot be asked of what is wrong.
        return "the entry" if "env" in location else toml_value(_short(mask(value)))
    if isinstance(value, bool):
        return toml_value(value)
    if isinstance(value, int | float):
        return f"the number {_short(str(value))}"
    if isinstance(value, date | time):
        return f"the date or time {value}"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return "a table"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _value_at(document: Any, location: _Location) -> Any:
    value = document
    for part in location:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _model_at(location: _Location, tables: Tables) -> type[BaseModel]:
    """The model of the table at that place in a document; a table's free keys and a list's indices lead nowhere new."""
    model = next(iter(tables))
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            model = next(_models_in(model.model_fields[part].annotation))
    return model


def _models_in(annotation: Any) -> typing.Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)
