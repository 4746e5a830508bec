"""The services folder: where its operator keeps the definitions, one file a service, comments and all."""

import re
import tempfile
import tomllib
from collections.abc import Iterator, MutableMapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import click

_BOM = "\ufeff"


def definition(folder: Path, service: str) -> Path | None:
    """The file that defines the service: the one of its name, or another that says so; None where there is none."""
    named = folder / f"{service}.toml"
    if named.is_file() and _defines(named) == service:
        return named
    return next((path for name, path in defined(folder) if name == service), None)


def defined(folder: Path) -> Iterator[tuple[str, Path]]:
    """The services that have a definition, by file; what cannot be read counts by its file's name."""
    for path in files(folder):
        yield _defines(path), path


def files(folder: Path) -> list[Path]:
    """The definitions in a folder, by name. Hidden files are none: editors and file managers leave them behind."""
    return sorted(path for path in folder.glob("*.toml") if not path.name.startswith("."))


def node_of(path: Path) -> str | None:
    """The node that a definition names, however wrong the rest of it is; None where it names none."""
    node = _read(path).get("node")
    return node if isinstance(node, str) else None


def _defines(path: Path) -> str:
    name = _read(path).get("name")
    return name if isinstance(name, str) else path.stem


def _read(path: Path) -> dict[str, Any]:
    """What the file says; nothing where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return {}


def required(folder: Path, service: str) -> Path:
    """The file that defines the service. Raises click.UsageError."""
    path = definition(folder, service)
    if path is None:
        raise click.UsageError(
            f"there is no definition of {service} in {folder}: mcp service new {service} begins one,"
            f" mcp service export {service} prints what an agent has"
        )
    return path


def set_active(path: Path, component: str, active: bool) -> bool:
    """Writes `active` of a service, or of one component, and leaves every other byte; whether that changed anything.

    Raises click.UsageError where the file has no such component, or is no TOML.
    """
    try:
        text = path.read_bytes().decode()  # not as text, which would take \r\n for \n
        document = tomllib.loads(text.removeprefix(_BOM))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise click.UsageError(f"{path} cannot be read: {reason}: active = {_toml(active)} was not written") from error
    where = _place(document, component)
    if where is None:
        raise click.UsageError(f"{path} defines no component {component}: active = {_toml(active)} was not written")
    if _table(document, where).get("active", True) is active:
        return False
    wanted = deepcopy(document)
    _table(wanted, where)["active"] = active
    changed = _line_changed(text, where, active)
    write(path, changed if _says(changed, wanted) else _rewritten(text, where, active))
    return True


def _says(text: str, wanted: dict[str, Any]) -> bool:
    try:
        return tomllib.loads(text.removeprefix(_BOM)) == wanted
    except ValueError:
        return False


def _toml(value: bool) -> str:
    return str(value).lower()


Place = tuple[str | int, ...]
"""Where a table is: nothing for the document itself, or its list and its number in it."""


def _place(document: dict[str, Any], component: str) -> Place | None:
    if not component:
        return ()
    components = document.get("components")
    for number, table in enumerate(components if isinstance(components, list) else ()):
        if isinstance(table, dict) and table.get("name") == component:
            return ("components", number)
    return None


def _table(document: Any, where: Place) -> MutableMapping[str, Any]:
    for part in where:
        document = document[part]
    return document  # type: ignore[no-any-return]


def _line_changed(text: str, where: Place, active: bool) -> str:
    """The text with one line changed, or one more below the table's name; as it was where there is no such line."""
    from api.locate import TooComplex, locate

    try:
        table = locate(text.removeprefix(_BOM))
    except TooComplex:
        return text
    lines = text.split("\n")
    for key, pattern in (("active", r"(\s*active\s*=\s*)(?:true|false)\b"), ("name", r"\ufeff?(\s*)name\s*=")):
        number = table.line_of((*where, key)) - 1
        found = re.match(pattern, lines[number])
        if found and key == "active":
            lines[number] = found[1] + _toml(active) + lines[number][found.end() :]
            return "\n".join(lines)
        if found:
            line, end = lines[number].removesuffix("\r"), "\r" if "\r\n" in text else ""
            last = number == len(lines) - 1
            lines[number : number + 1] = [line + end, f"{found[1]}active = {_toml(active)}" + ("" if last else end)]
            return "\n".join(lines)
    return text


def _rewritten(text: str, where: Place, active: bool) -> str:
    """The same for what is written in another way: tables within a line, a name that comes last or is quoted."""
    import tomlkit

    document = tomlkit.parse(text.removeprefix(_BOM))
    _table(document, where)["active"] = active
    return (_BOM if text.startswith(_BOM) else "") + tomlkit.dumps(document)


def write(path: Path, text: str) -> None:
    """Writes the file whole or not at all; it keeps its mode. Raises click.UsageError."""
    target = path.resolve()
    try:
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as stream:
            written = Path(stream.name)
            try:
                stream.write(text.encode())
                stream.close()
                written.chmod(mode)
                written.replace(target)
            except OSError:
                written.unlink()
                raise
    except OSError as error:
        raise click.UsageError(f"{path} cannot be written: {error.strerror}") from error
