"""The services folder: where its operator keeps the definitions, one file a service, comments and all."""

import tempfile
import tomllib
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import click


def definition(folder: Path, service: str) -> Path | None:
    """The file that defines the service: the one of its name, or another that says so; None where there is none."""
    named = folder / f"{service}.toml"
    if named.is_file():
        return named
    return next((path for name, path in defined(folder) if name == service), None)


def defined(folder: Path) -> Iterator[tuple[str, Path]]:
    """The services that have a definition, by file; what cannot be read counts by its file's name."""
    for path in sorted(folder.glob("*.toml")):
        try:
            name = tomllib.loads(path.read_text(encoding="utf-8-sig")).get("name")
        except (OSError, ValueError, RecursionError):
            name = None
        yield (name if isinstance(name, str) else path.stem), path


def node_of(path: Path) -> str | None:
    """The node that a definition names, however wrong the rest of it is; None where it names none."""
    try:
        node = tomllib.loads(path.read_text(encoding="utf-8-sig")).get("node")
    except (OSError, ValueError, RecursionError):
        return None
    return node if isinstance(node, str) else None


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
    """Writes `active` of a service, or of one component, and leaves all else as it is; whether that changed anything.

    Raises click.UsageError where the file has no such component, or is no TOML.
    """
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(path.read_text())
    except (OSError, ValueError, TOMLKitError) as error:
        raise click.UsageError(f"{path} cannot be read: {error}") from error
    table = document if not component else _component(document, component)
    if table is None:
        raise click.UsageError(f"{path} defines no component {component}: its `active` was not written there")
    if table.get("active", True) is active:
        return False
    table["active"] = active
    write(path, tomlkit.dumps(document))
    return True


def _component(document: Mapping[str, Any], name: str) -> MutableMapping[str, Any] | None:
    components = document.get("components", [])
    return next((table for table in components if table.get("name") == name), None)


def write(path: Path, text: str) -> None:
    """Writes the file whole or not at all; it keeps its mode. Raises click.UsageError."""
    target = path.resolve()
    try:
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=target.parent, prefix=f".{target.name}.", delete=False) as stream:
            stream.write(text)
        Path(stream.name).chmod(mode)
        Path(stream.name).replace(target)
    except OSError as error:
        raise click.UsageError(f"{path} cannot be written: {error.strerror}") from error
