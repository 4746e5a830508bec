"""What a wish that is less than a definition makes of the one that is stored. Pure."""

from collections.abc import Mapping, Sequence
from typing import Final

from api.errors import NotFound
from api.resolve import Defaults, resolve
from api.service import Revision, Service
from api.spec import ComponentSpec, ServiceSpec

_LOCAL: Final = "localhost/"
"""Images that no registry has: their digests cannot be asked for."""


def with_active(spec: ServiceSpec, component: str, active: bool) -> ServiceSpec:
    """The definition with `active` set of the service, or of one component. Raises NotFound."""
    if not component:
        return spec.model_copy(update={"active": active})
    return _with(spec, _component(spec, component).model_copy(update={"active": active}))


def with_component(stored: ServiceSpec, spec: ServiceSpec, component: str) -> ServiceSpec:
    """What is stored, with one component as `spec` has it. Raises NotFound."""
    return _with(stored, _component(spec, component))


def earlier(service: Service, revisions: Sequence[Revision], generation: int) -> Revision:
    """The revision of that generation; 0: the last that was defined otherwise. Raises NotFound."""
    if generation:
        found = next((one for one in revisions if one.generation == generation), None)
        kept = f"{revisions[0].generation} to {revisions[-1].generation}" if revisions else "none"
        problem = f'service "{service.name}" has no revision {generation}: there are {kept}'
    else:
        found = next((one for one in reversed(revisions) if one.spec != service.spec), None)
        problem = f'service "{service.name}" was never defined otherwise'
    if found is None:
        raise NotFound(f"{problem}; mcp service history {service.name} shows them")
    return found


def rerun(revision: Revision, defaults: Defaults, known: Mapping[str, str]) -> ServiceSpec:
    """The revision's definition, with its images named by digest where their tags may stand for something else now.

    `known` is what tags stand for now, as far as that is known. Raises InvalidSpec.
    """
    spec = revision.spec
    for component in resolve(spec, defaults).components:
        digest = revision.digests.get(component.image)
        now = known.get(component.image)
        moved = now != digest if now is not None else not component.image.startswith(_LOCAL)
        if digest and moved and "@" not in component.image:
            image = f"{_untagged(component.image)}@{digest}"
            spec = _with(spec, _component(spec, component.name).model_copy(update={"image": image}))
    return spec


def _component(spec: ServiceSpec, name: str) -> ComponentSpec:
    for component in spec.components:
        if component.name == name:
            return component
    known = ", ".join(component.name for component in spec.components)
    raise NotFound(f'service "{spec.name}" has no component "{name}": it has {known}')


def _with(spec: ServiceSpec, component: ComponentSpec) -> ServiceSpec:
    """The definition with that component in the place of the one of its name, or at the end. Checked anew."""
    others = {one.name: one for one in spec.components}
    components = tuple((others | {component.name: component}).values())
    return ServiceSpec.model_validate(spec.model_copy(update={"components": components}).model_dump())


def _untagged(image: str) -> str:
    head, slash, name = image.rpartition("/")
    return head + slash + name.partition(":")[0]
