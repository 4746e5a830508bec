"""Values as TOML writes them, and paths as people write them: for exports, differences and errors."""

import json
import re
from collections.abc import Iterable, Mapping

Value = str | int | float | bool | list["Value"] | dict[str, "Value"]
"""What a definition is made of once its models are taken away."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


def field_path(location: Iterable[int | str]) -> str:
    """A path such as `components[0].routes[1].port` from its parts."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def field_location(path: str) -> tuple[int | str, ...]:
    """The parts of a path such as `components[0].routes[1].port`."""
    return tuple(int(index) if index else name for index, name in _STEP.findall(path))


def toml_key(key: str) -> str:
    """A key, quoted where TOML asks for it."""
    return key if _BARE_KEY.fullmatch(key) else toml_value(key)


def toml_value(value: Value, width: int | None = None) -> str:
    """A value in TOML 1.0; with `width`, a list that would be longer takes one line an item."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case str():
            # JSON's escapes are a subset of TOML's, but TOML alone wants DEL escaped.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
        case list():
            items = [toml_value(item) for item in value]
            line = f"[{', '.join(items)}]"
            if width is None or len(line) <= width or len(items) < 2:
                return line
            return "[\n" + "".join(f"    {item},\n" for item in items) + "]"
        case _:
            pairs = (f"{toml_key(key)} = {toml_value(item)}" for key, item in value.items())
            return f"{{ {', '.join(pairs)} }}" if value else "{}"


def toml_document(table: Mapping[str, Value], width: int) -> str:
    """A whole document: a table's own values first, then its tables, each under its full header."""
    blocks = ["\n".join(_values(table, width)), *_tables(table, (), width)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _values(table: Mapping[str, Value], width: int) -> list[str]:
    return [
        f"{toml_key(key)} = {toml_value(value, width - len(key) - 3)}"
        for key, value in table.items()
        if not _is_table(value)
    ]


def _tables(table: Mapping[str, Value], parents: tuple[str, ...], width: int) -> list[str]:
    blocks: list[str] = []
    for key, value in table.items():
        header = (*parents, toml_key(key))
        if isinstance(value, dict):
            lines = _values(value, width)
            # A table that holds nothing but tables needs no header of its own.
            if lines or not value:
                blocks.append("\n".join([f"[{'.'.join(header)}]", *lines]))
            blocks += _tables(value, header, width)
        elif isinstance(value, list) and _is_table(value):
            for item in value:
                if isinstance(item, dict):
                    blocks.append("\n".join([f"[[{'.'.join(header)}]]", *_values(item, width)]))
                    blocks += _tables(item, header, width)
    return blocks


def _is_table(value: Value) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))
