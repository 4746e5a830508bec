"""Hides what must not be seen on a screen, in a log or in an error: the one place that decides what is secret.

What a definition marks (`secret_env`) is shown to nobody: wherever it would
stand, the mask does, and the mask in a definition that is applied stands for
what is stored.
"""

import re
from collections.abc import Collection, Iterator

from api.errors import InvalidSpec
from api.spec import ComponentSpec, ServiceSpec

MASKED = "********"

_SECRET_NAME = re.compile(
    r"(?:PASSWORD|PASSWD|PASSPHRASE|TOKEN|SECRET|CREDENTIAL|KEY|(?:^|_)(?:PASS|PWD|AUTH|PIN|SALT))S?(?:_|$)",
    re.IGNORECASE,
)
_ENTRY = re.compile(r"(-{0,2}([A-Za-z0-9_.-]+)=)(.+)", re.DOTALL)
_URL_PASSWORD = re.compile(r"(://[^/@:\s]*:)[^/@\s]+(@)")


def looks_secret(name: str) -> bool:
    """Whether what goes by that name is likely a secret: `DB_PASSWORD`, `api-key`."""
    return _SECRET_NAME.search(name.replace("-", "_").replace(".", "_")) is not None


def mask(text: str) -> str:
    """An entry such as `KEY=value`, `--key=value` or a URL, with the secret part hidden."""
    entry = _ENTRY.fullmatch(text)
    if entry and looks_secret(entry[2]):
        return f"{entry[1]}{MASKED}"
    return _URL_PASSWORD.sub(rf"\1{MASKED}\2", text)


def hidden(component: ComponentSpec) -> ComponentSpec:
    """The component as it may be shown: what it marks as secret is masked."""
    if not component.secret_env:
        return component
    env = tuple(mask_marked(entry, component.secret_env) for entry in component.env)
    return component.model_copy(update={"env": env})


def shown(spec: ServiceSpec) -> ServiceSpec:
    """The definition as it may be shown."""
    return spec.model_copy(update={"components": tuple(map(hidden, spec.components))})


def marked_as(spec: ServiceSpec, now: ServiceSpec) -> ServiceSpec:
    """The definition with the marks that `now` has on its variables, beside its own: what is secret was so before."""
    marks = {component.name: component.secret_env for component in now.components}
    components = []
    for component in spec.components:
        names = [entry.partition("=")[0] for entry in component.env]
        more = [name for name in marks.get(component.name, ()) if names.count(name) == 1]
        marked = tuple(dict.fromkeys((*component.secret_env, *more)))
        components.append(component.model_copy(update={"secret_env": marked}))
    return spec.model_copy(update={"components": tuple(components)})


def mask_marked(entry: str, names: Collection[str]) -> str:
    """An entry `KEY=value`, with the value hidden where `names` has its key."""
    name, equals, _ = entry.partition("=")
    return f"{name}={MASKED}" if equals and name in names else entry


_LEAST_SECRET = 6
"""Characters: a shorter value is found in what has nothing to do with it."""


def secret_values(spec: ServiceSpec) -> tuple[str, ...]:
    """The values that the definition marks as secret and that can be looked for in a text."""
    return tuple(
        value
        for component in spec.components
        for name, _, value in (entry.partition("=") for entry in component.env)
        if name in component.secret_env and len(value) >= _LEAST_SECRET
    )


def without_secrets(text: str, values: Collection[str]) -> str:
    """What somebody else wrote, with these values masked wherever they stand as they are."""
    # The longest first: one may be part of another.
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, MASKED)
    return text


def with_stored_secrets(spec: ServiceSpec, stored: ServiceSpec | None) -> ServiceSpec:
    """The definition with the stored values in the place of masks.

    Raises InvalidSpec where nothing is stored for a mask, and where a mask is
    the value of what is not marked, which would show what was secret before.
    """
    before = {component.name: component for component in stored.components} if stored else {}
    components = tuple(
        component.model_copy(update={"env": tuple(_with_stored(index, component, before.get(component.name)))})
        for index, component in enumerate(spec.components)
    )
    return spec.model_copy(update={"components": components})


def _with_stored(index: int, component: ComponentSpec, before: ComponentSpec | None) -> Iterator[str]:
    values = dict(entry.split("=", 1) for entry in before.env) if before else {}
    for place, entry in enumerate(component.env):
        name, _, value = entry.partition("=")
        if value != MASKED:
            yield entry
            continue
        field = f"components[{index}].env[{place}]"
        if name not in component.secret_env:
            raise InvalidSpec(
                field, f"{name} is masked without being marked: name it in secret_env to keep it, or write its value"
            )
        if values.get(name, MASKED) == MASKED:
            problem = f'{name} is masked, and no value of it is stored for component "{component.name}"'
            raise InvalidSpec(field, f"{problem}: write its value")
        yield f"{name}={values[name]}"
