"""What differs between two definitions, field by field.

Components and routes are matched by name, so that inserting one does not make
all that follow look changed. Nothing here knows the fields: a new one is
compared, too.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from pydantic import BaseModel

from api.notation import toml_key, toml_value
from api.secrecy import MASKED, looks_secret, mask, mask_marked
from api.service import FieldChange
from api.spec import ComponentSpec, RouteSpec, ServiceSpec


def diff(old: ServiceSpec | None, new: ServiceSpec) -> tuple[FieldChange, ...]:
    """All differences, in the order of the definition's fields; empty exactly when the two are equal.

    `None` for `old` lists all that `new` sets. Paths name entries, as in
    `components[web].routes[rest].port`; secrets are masked on both sides, and
    what one side marks as secret is one on the other as well.
    """
    return tuple(_models("", old, new))


def _models(path: str, old: BaseModel | None, new: BaseModel | None) -> Iterator[FieldChange]:
    """Differences of two tables; one that is absent counts as one with nothing set."""
    some = new if new is not None else old
    if some is None:
        return
    changed = False
    secret = {name for one in (old, new) if isinstance(one, ComponentSpec) for name in one.secret_env}
    for name, field in type(some).model_fields.items():
        absent = None if field.is_required() else field.get_default(call_default_factory=True)
        before = absent if old is None else getattr(old, name)
        after = absent if new is None else getattr(new, name)
        if before != after:
            changed = True
            yield from _values(f"{path}.{name}" if path else name, before, after, secret)
    if not changed and old != new:
        yield FieldChange(path=path, old=_shown(old), new=_shown(new))


def _values(path: str, old: Any, new: Any, secret: Collection[str]) -> Iterator[FieldChange]:
    if isinstance(old, BaseModel) or isinstance(new, BaseModel):
        yield from _models(path, old, new)
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        yield from _mappings(path, old, new, secret)
    elif any(isinstance(item, BaseModel) for items in (old, new) if isinstance(items, tuple) for item in items):
        yield from _named_models(path, old or (), new or ())
    elif isinstance(old, tuple) and isinstance(new, tuple) and _entries(old) != _entries(new):
        yield from _mappings(path, _entries(old), _entries(new), secret)
    else:
        yield FieldChange(path=path, old=_shown(old, secret=secret), new=_shown(new, secret=secret))


def _mappings(
    path: str, old: Mapping[str, Any], new: Mapping[str, Any], secret: Collection[str]
) -> Iterator[FieldChange]:
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if before != after:
            yield FieldChange(
                path=f"{path}.{toml_key(key)}", old=_shown(before, key, secret), new=_shown(after, key, secret)
            )


def _entries(items: Sequence[str]) -> Mapping[str, str]:
    """A list of `KEY=value` as a mapping; empty for any other list, and where keys repeat."""
    pairs = [item.split("=", 1) for item in items]
    if any(len(pair) != 2 for pair in pairs) or len({pair[0] for pair in pairs}) < len(pairs):
        return {}
    return {pair[0]: pair[1] for pair in pairs}


def _named_models(path: str, old: Sequence[BaseModel], new: Sequence[BaseModel]) -> Iterator[FieldChange]:
    before = {_identity(model): model for model in old}
    after = {_identity(model): model for model in new}
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            yield from _models(f"{path}[{name}]", before.get(name), after.get(name))
    kept_before = [name for name in before if name in after]
    kept_after = [name for name in after if name in before]
    # The order matters: the first component's image is derived differently.
    if kept_before != kept_after:
        yield FieldChange(path=path, old=_shown(kept_before), new=_shown(kept_after))


def _identity(model: BaseModel) -> str:
    return model.key if isinstance(model, RouteSpec) else str(getattr(model, "name"))  # noqa: B009  # known by convention


def _shown(value: Any, name: str = "", secret: Collection[str] = ()) -> str | None:
    """The value of `name` in TOML, without secrets; None for one that is absent."""
    match value:
        case None:
            return None
        case BaseModel():
            return toml_value(value.model_dump(mode="json", exclude_defaults=True))
        case Enum():
            return toml_value(str(value.value))
        case str():
            return toml_value(MASKED if name in secret or looks_secret(name) else mask(value))
        case list() | tuple():
            return toml_value([mask(mask_marked(str(item), secret)) for item in value])
        case _:
            return toml_value(value)
