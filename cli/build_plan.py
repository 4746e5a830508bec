"""Which images a definition has built, what they are called, and out of what; asks nobody but the disk.

All that is wrong is said at once, each with its line in the definition.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from api.errors import InvalidSpec
from api.manifest import InvalidManifest, Manifest, Problem
from api.resolve import Defaults, derived_image_name, image_reference
from api.spec import ServiceSpec
from cli.config import Building

_LOCAL = "localhost"
"""What podman puts before the name of an image that has no registry."""
_TAKES_VERSION = re.compile(r"^\s*ARG\s.*\bVERSION\b", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class WantedImage:
    """An image of `[build.images]` under the name by which a component asks for it."""

    name: str
    dockerfile: str
    """As the definition has it: relative to the folder of sources."""
    reference: str
    """With registry and tag."""

    @property
    def repository(self) -> str:
        """The reference without its tag."""
        return self.reference.rpartition(":")[0]

    @property
    def tag(self) -> str:
        """The version."""
        return self.reference.rpartition(":")[2]

    @property
    def registry(self) -> str:
        """host[:port]; empty for an image that stays with the podman that built it."""
        first = self.reference.partition("/")[0]
        return "" if first == _LOCAL else first


@dataclass(frozen=True, slots=True)
class Recipe:
    """Out of what an image is built."""

    image: WantedImage
    dockerfile: Path
    context: Path
    takes_version: bool
    """Whether its Dockerfile has an ARG VERSION."""


@dataclass(slots=True)
class _Complaints:
    manifest: Manifest
    problems: list[Problem] = field(default_factory=list)

    def add(self, at: str, message: str) -> None:
        self.problems.append(Problem(self.manifest.source, self.manifest.locate(at), at, message))

    def end(self) -> None:
        if self.problems:
            raise InvalidManifest(tuple(sorted(self.problems, key=lambda problem: problem.line)))


def wanted(manifest: Manifest, building: Building, source: str, component: str = "") -> tuple[WantedImage, ...]:
    """The images that `[build.images]` has built, or those of one component; none where it names none.

    `source` is what mcp.toml is called. Raises InvalidManifest.
    """
    spec = manifest.spec
    images = spec.build.images if spec.build else {}
    complaints = _Complaints(manifest)
    if component and component not in [one.name for one in spec.components]:
        names = ", ".join(one.name for one in spec.components)
        complaints.add("components", f'there is no component "{component}", only {names}')
        complaints.end()
    uses = [(name, index) for name, index in _uses(spec) if component in ("", spec.components[index].name)]
    references: dict[str, dict[str, str]] = {}
    for name, index in uses:
        if name in images:
            reference = _reference(complaints, index, building, source)
            if reference:
                references.setdefault(name, {}).setdefault(reference, spec.components[index].name)
    if not component:
        used = list(dict.fromkeys(name for name, _ in uses))
        for name in images.keys() - used:
            complaints.add(f"build.images.{name}", f"no component uses an image of that name, only {_listed(used)}")
    for name, by_reference in references.items():
        if len(by_reference) > 1:
            each = _listed(f"{reference} for {user}" for reference, user in by_reference.items())
            build = f"mcp build {spec.name}/{next(iter(by_reference.values()))}"
            complaints.add(f"build.images.{name}", f"is wanted as {each}: build one at a time, as with {build}")
    complaints.end()
    return tuple(WantedImage(name, images[name], one) for name, found in references.items() for one in found)


def _uses(spec: ServiceSpec) -> Iterator[tuple[str, int]]:
    """The name of each component's image without registry and tag, and the component's index."""
    for index, component in enumerate(spec.components):
        if component.image is None:
            yield derived_image_name(spec, index), index
        else:
            yield component.image.partition("@")[0].rpartition("/")[2].partition(":")[0], index


def _reference(complaints: _Complaints, index: int, building: Building, source: str) -> str:
    """What the image is called that is to be built for that component; empty where that was complained about."""
    spec, at = complaints.manifest.spec, f"components[{index}].image"
    image = spec.components[index].image
    if image is None and not building.registry:
        complaints.add(
            at,
            f"is left out, and {source} does not say where images go: set build.registry, as the node's agent has it",
        )
        return ""
    try:
        reference = image_reference(spec, index, Defaults(registry=building.registry))
    except InvalidSpec as error:
        complaints.add(error.field, error.message)
        return ""
    first, slash, _ = reference.partition("/")
    if "@" in reference:
        complaints.add(at, f'"{reference}" is pinned to a digest, which no build can promise: name a tag instead')
    elif not slash or not (first == _LOCAL or "." in first or ":" in first):
        complaints.add(at, f'"{reference}" names no registry to push to: write registry/{reference}')
    else:
        return reference
    return ""


def recipes(manifest: Manifest, building: Building, source: str, images: Iterable[WantedImage]) -> tuple[Recipe, ...]:
    """Out of what the images are built. Raises InvalidManifest, and click.UsageError where the workspace is missing."""
    images = tuple(images)
    if not images:
        return ()
    context = _context(manifest, building, source)
    complaints = _Complaints(manifest)
    found = []
    for image in images:
        dockerfile = context / image.dockerfile
        try:
            text = dockerfile.read_text(errors="replace")
        except OSError as error:
            complaints.add(f"build.images.{image.name}", f"{dockerfile} cannot be read: {error.strerror}")
        else:
            found.append(Recipe(image, dockerfile, context, bool(_TAKES_VERSION.search(text))))
    complaints.end()
    return tuple(found)


def _context(manifest: Manifest, building: Building, source: str) -> Path:
    if building.workspace is None:
        raise click.UsageError(
            f'{source} does not say where the sources are: set build.workspace, as in workspace = "~/src"'
        )
    workspace = Path(building.workspace)
    if not workspace.is_dir():
        raise click.UsageError(f"{source}: build.workspace: there is no folder {workspace}")
    spec = manifest.spec
    below = spec.path or spec.name
    at = "path" if spec.path else "name"
    complaints = _Complaints(manifest)
    context = workspace / below
    if Path(below).is_absolute() or ".." in Path(below).parts:
        complaints.add(at, f'"{below}" does not lie below the workspace {workspace}')
    elif not context.is_dir():
        what = "" if spec.path else ": fetch the sources, or say with `path` where below the workspace they are"
        complaints.add(at, f"there is no folder {context}{what}")
    complaints.end()
    return context


def _listed(words: Iterable[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last
